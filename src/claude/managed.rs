//! The managed settings of a cell: the layer of Claude Code's configuration that nothing inside can override. Pure.
//!
//! `launch` puts [`managed_settings`] into every cell, read-only, as `/etc/claude-code/managed-settings.json`.

use serde_json::json;

/// Where Claude Code looks for them on Linux, below `/etc`.
pub const PATH_IN_ETC: &str = "claude-code/managed-settings.json";

/// The file's content.
///
/// Tried with 2.1.329 against a workspace and a home full of planted settings, hooks, servers, skills, agents and
/// memory files: alone it leaves `CLAUDE.md`, `env` and `apiKeyHelper` in force, which the flags of `args` keep out; with
/// the flags nothing planted takes effect. A `managed-mcp.json` must not be added: the CLI then refuses
/// `--strict-mcp-config`.
#[must_use]
pub fn managed_settings() -> Vec<u8> {
    let settings = json!({
        // No program is started by configuration that the agent can write. Servers that the daemon itself offers on the
        // pipe (`sdkMcpServers`) are not touched by these; tried.
        "disableAllHooks": true,
        "allowManagedHooksOnly": true,
        "allowManagedMcpServersOnly": true,
        "allowedMcpServers": [],
        "enableAllProjectMcpServers": false,
        "strictPluginOnlyCustomization": true,
        // Permission is the owner's to give, not the workspace's.
        "allowManagedPermissionRulesOnly": true,
        "permissions": { "disableBypassPermissionsMode": "disable", "disableAutoMode": "disable" },
        // A second sandbox cannot be built inside the cell, and is not needed there.
        "sandbox": { "enabled": false },
        // The check asks the vendor directly, past the broker.
        "skipWebFetchPreflight": true,
        "cleanupPeriodDays": 36500,
    });
    settings.to_string().into_bytes()
}

//! Settings after every check: what the rest of the daemon reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{AgentName, UserId};

/// All settings. Built only by `config::load`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::manual_non_exhaustive, reason = "inside one crate non_exhaustive would forbid nothing")]
pub struct Settings {
    /// `[telegram]`.
    pub telegram: TelegramSettings,
    /// `[claude]`.
    pub claude: ClaudeSettings,
    /// `[agents.NAME]`, each with `[defaults]` filled in. Never empty.
    pub agents: BTreeMap<AgentName, AgentSettings>,
    /// The agent of a place that chose none: the first of the file.
    pub default_agent: AgentName,
    /// `[status]`; `None` when switched off.
    pub status: Option<StatusSettings>,
    /// Keeps other modules from building one unchecked.
    pub(super) checked: (),
}

impl Settings {
    /// What a reload from `self` to `other` cannot apply, by name: those settings keep their old values until the
    /// service is restarted. Agents, limits and owners are applied at once.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        [
            ("telegram.api_url", self.telegram.api_url != other.telegram.api_url),
            ("claude.program", self.claude.program != other.claude.program),
            ("claude.upstream", self.claude.upstream != other.claude.upstream),
            ("status", self.status != other.status),
        ]
        .into_iter()
        .filter_map(|(name, changed)| changed.then_some(name))
        .collect()
    }
}

/// `[telegram]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelegramSettings {
    /// Who is answered, beside those who paired.
    pub owners: BTreeSet<UserId>,
    /// Root of the Bot API.
    pub api_url: String,
}

/// `[claude]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaudeSettings {
    /// The Claude Code program.
    pub program: PathBuf,
    /// Root of the Messages API, without a trailing slash.
    pub upstream: String,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// The owner's words about it.
    pub description: String,
    /// Passed to `--model`.
    pub model: String,
    /// Appended to the system prompt.
    pub instructions: Option<String>,
    /// An idle cell is ended after this long.
    pub idle: Duration,
    /// A turn is stopped after this long.
    pub turn_limit: Duration,
    /// Bytes of memory a cell may use.
    pub memory: u64,
    /// Processes a cell may have.
    pub pids: u32,
    /// Hosts the agent may reach. Empty: none.
    pub egress: Vec<String>,
    /// How tool uses are permitted.
    pub permissions: Permissions,
}

/// How tool uses are permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permissions {
    /// What the cell allows is allowed.
    Sandboxed,
    /// Claude may read and plan, and change nothing.
    Plan,
}

/// `[status]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSettings {
    /// Where the page listens.
    pub listen: SocketAddr,
    /// Argon2 hash in PHC form; always set when `listen` is not loopback.
    pub password: Option<String>,
}

//! The command line and the environment of a Claude Code process. Pure.
//!
//! Called by `process`. Invariant: no secret is in either: the credential is a placeholder that the broker replaces.
//!
//! Every flag that keeps the agent's own files from configuring the process (`--setting-sources=`,
//! `--strict-mcp-config`) is doubled by `managed`, because flags and managed settings have failed separately before.

use crate::model::SessionId;

/// How one process is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The conversation's session.
    pub session: SessionId,
    /// Whether that session exists already.
    pub opening: Opening,
    /// An alias (`sonnet`) or a full model id.
    pub model: String,
    /// Appended to the system prompt.
    pub instructions: Option<String>,
    /// What it may do.
    pub mode: Mode,
    /// Where the broker listens on the cell's loopback.
    pub broker_port: u16,
    /// Which placeholder it is given.
    pub credential: CredentialKind,
}

/// Whether a session is begun or continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The first start.
    New,
    /// The transcript exists.
    Resume,
}

/// What a process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every tool; what the CLI would ask a person becomes an [`Ask`](super::Ask).
    Work,
    /// Read and plan. Whoever answers the asks must deny them: the CLI runs what is allowed, in plan mode too.
    Plan,
}

/// The shape of the credential, so that the CLI adds the right headers around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// `x-api-key`.
    ApiKey,
    /// `authorization: Bearer`, with the OAuth betas.
    OauthToken,
}

/// The agent's home inside its cell.
const HOME: &str = "/home/agent";

/// The built-in tools that exist for the agent. `AskUserQuestion` and `WebFetch` are left out on purpose: the first
/// needs an answer shape that no button of ours gives yet, the second fetches by itself where the egress rules are the
/// broker's business (the agent has `Bash`). `TaskStop` is the only tool about background tasks beside `Bash` itself.
const TOOLS: &str = "Bash,Read,Edit,Write,Glob,Grep,WebSearch,Agent,TaskStop";

/// For `--settings`. A session started by its default would delete every transcript older than 30 days. In plan mode
/// the CLI would by default let a classifier of the vendor's servers decide about tools; it cannot be reached, and every
/// tool would be refused with an explanation that confuses the owner.
const SETTINGS: &str = r#"{"cleanupPeriodDays":36500,"useAutoModeDuringPlan":false}"#;

/// The arguments, without the program's own name. Values are joined with `=`: one could begin with a dash.
#[must_use]
pub fn command_line(invocation: &Invocation) -> Vec<String> {
    let mut line: Vec<String> = [
        "-p",
        "--input-format=stream-json",
        "--output-format=stream-json",
        "--verbose",
        "--include-partial-messages",
        "--permission-prompt-tool=stdio",
        "--strict-mcp-config",
        "--setting-sources=",
        "--system-prompt-snapshot=off",
    ]
    .map(str::to_owned)
    .into();
    let (mode, more_tools) = match invocation.mode {
        Mode::Work => ("default", ""),
        Mode::Plan => ("plan", ",ExitPlanMode"),
    };
    line.push(format!("--permission-mode={mode}"));
    line.push(format!("--settings={SETTINGS}"));
    line.push(format!("--tools={TOOLS}{more_tools}"));
    line.push(match invocation.opening {
        Opening::New => format!("--session-id={}", invocation.session),
        Opening::Resume => format!("--resume={}", invocation.session),
    });
    line.push(format!("--model={}", invocation.model));
    if let Some(instructions) = &invocation.instructions {
        line.push(format!("--append-system-prompt={instructions}"));
    }
    line
}

/// The whole environment: nothing is inherited.
#[must_use]
pub fn environment(broker_port: u16, credential: CredentialKind) -> Vec<(String, String)> {
    let broker = format!("http://127.0.0.1:{broker_port}");
    let mut variables = vec![
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME", HOME.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
        ("CLAUDE_CONFIG_DIR", format!("{HOME}/.claude")),
        // Messages only: with the quiet switch below it is the only host the CLI asks.
        ("ANTHROPIC_BASE_URL", broker.clone()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ("DISABLE_AUTOUPDATER", "1".to_owned()),
        ("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS", "1".to_owned()),
        // For what the agent runs: the broker is also the only way out of the cell.
        ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
        ("no_proxy", "127.0.0.1,localhost".to_owned()),
    ];
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        variables.push((name, broker.clone()));
    }
    variables.push(match credential {
        CredentialKind::ApiKey => ("ANTHROPIC_API_KEY", "sk-ant-placeholder".to_owned()),
        CredentialKind::OauthToken => ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-placeholder".to_owned()),
    });
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation() -> Invocation {
        Invocation {
            session: SessionId("11111111-1111-4111-8111-111111111111".to_owned()),
            opening: Opening::New,
            model: "sonnet".to_owned(),
            instructions: Some("--be nice\nand short".to_owned()),
            mode: Mode::Work,
            broker_port: 3128,
            credential: CredentialKind::ApiKey,
        }
    }

    #[test]
    fn the_command_line_of_a_first_start() {
        assert_eq!(
            command_line(&invocation()),
            [
                "-p",
                "--input-format=stream-json",
                "--output-format=stream-json",
                "--verbose",
                "--include-partial-messages",
                "--permission-prompt-tool=stdio",
                "--strict-mcp-config",
                "--setting-sources=",
                "--system-prompt-snapshot=off",
                "--permission-mode=default",
                r#"--settings={"cleanupPeriodDays":36500,"useAutoModeDuringPlan":false}"#,
                "--tools=Bash,Read,Edit,Write,Glob,Grep,WebSearch,Agent,TaskStop",
                "--session-id=11111111-1111-4111-8111-111111111111",
                "--model=sonnet",
                "--append-system-prompt=--be nice\nand short",
            ]
        );
    }

    #[test]
    fn resuming_planning_and_no_instructions_change_only_their_own_flags() {
        let other =
            Invocation { opening: Opening::Resume, mode: Mode::Plan, instructions: None, ..invocation() };
        let (before, after) = (command_line(&invocation()), command_line(&other));
        let changed: Vec<_> = after.iter().filter(|flag| !before.contains(flag)).collect();
        assert_eq!(
            changed,
            [
                "--permission-mode=plan",
                "--tools=Bash,Read,Edit,Write,Glob,Grep,WebSearch,Agent,TaskStop,ExitPlanMode",
                "--resume=11111111-1111-4111-8111-111111111111",
            ]
        );
        assert_eq!(after.len(), before.len() - 1);
    }

    #[test]
    fn the_environment_holds_a_placeholder_and_one_way_out() {
        let names = |invocation: &Invocation| -> Vec<String> {
            environment(invocation.broker_port, invocation.credential)
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        let key = names(&invocation());
        assert_eq!(
            key,
            [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/home/agent",
                "LANG=C.UTF-8",
                "TMPDIR=/tmp",
                "CLAUDE_CONFIG_DIR=/home/agent/.claude",
                "ANTHROPIC_BASE_URL=http://127.0.0.1:3128",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
                "DISABLE_AUTOUPDATER=1",
                "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS=1",
                "NO_PROXY=127.0.0.1,localhost",
                "no_proxy=127.0.0.1,localhost",
                "HTTP_PROXY=http://127.0.0.1:3128",
                "HTTPS_PROXY=http://127.0.0.1:3128",
                "http_proxy=http://127.0.0.1:3128",
                "https_proxy=http://127.0.0.1:3128",
                "ANTHROPIC_API_KEY=sk-ant-placeholder",
            ]
        );
        let token = names(&Invocation { credential: CredentialKind::OauthToken, ..invocation() });
        assert_eq!(token.last().unwrap(), "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-placeholder");
        assert_eq!(token[..token.len() - 1], key[..key.len() - 1]);
    }
}

//! The whole protocol: the client sends one [`Request`] as a line of JSON, the daemon answers with [`Reply`] lines and
//! closes. The client keeps its side open while it waits; closing it means that it no longer wants the answer.

use serde::{Deserialize, Serialize};

use crate::model::{AgentName, AgentOverview, InboxId, Outbound, Overview, RunOverview};

/// Bytes a request line may have, its newline included.
pub const LINE_LIMIT: usize = 1024 * 1024;

/// Bytes a reply line may have, as the client sees it.
pub const REPLY_LIMIT: usize = 16 * 1024 * 1024;

/// What the command line wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Everything `skep status` shows. Answered by [`Reply::Overview`].
    Status,
    /// The agents. Answered by [`Reply::Agents`].
    Agents,
    /// The latest runs, newest first. Answered by [`Reply::Runs`].
    Runs {
        /// At most so many.
        limit: u32,
    },
    /// Words (or a slash command) for an agent. Answered by [`Reply::Accepted`] once they are stored, then by every
    /// [`Reply::Event`] of the run they became, then by [`Reply::Done`].
    Ask {
        /// The agent; `None`: the one the conversation is with.
        agent: Option<AgentName>,
        /// Name of the terminal conversation (`Place::Terminal`).
        conversation: String,
        /// The words.
        text: String,
    },
    /// End the running turn of a conversation. Answered by [`Reply::Done`], also when nothing runs.
    Stop {
        /// Name of the terminal conversation.
        conversation: String,
        /// The agent; `None`: the one the conversation is with.
        agent: Option<AgentName>,
    },
    /// Let the next words of a conversation begin a fresh session. Answered by [`Reply::Done`].
    New {
        /// Name of the terminal conversation.
        conversation: String,
        /// The agent; `None`: the one the conversation is with.
        agent: Option<AgentName>,
    },
    /// A one-time pairing code. Answered by [`Reply::Code`].
    Pair,
    /// Run a command in a cell like those of `agent`. The client's standard input, output and error come with the
    /// line as descriptors. Answered by [`Reply::Exit`].
    Exec {
        /// The agent.
        agent: AgentName,
        /// The command and its arguments; never empty.
        argv: Vec<String>,
        /// Variables to add to the cell's own.
        #[serde(default)]
        env: Vec<(String, String)>,
    },
    /// The running daemon's version. Answered by [`Reply::Version`].
    Version,
    /// Read the settings again. Answered by [`Reply::Reloaded`].
    Reload,
}

/// What the daemon answers. [`Reply::Error`] may stand in place of any of them; every variant but
/// [`Reply::Accepted`] and [`Reply::Event`] is the last line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "data", rename_all = "snake_case")]
pub enum Reply {
    /// The whole picture.
    Overview(Box<Overview>),
    /// The agents, by name.
    Agents(Vec<AgentOverview>),
    /// Runs, newest first.
    Runs(Vec<RunOverview>),
    /// The words are stored and will be answered, whatever becomes of this connection.
    Accepted {
        /// The inbox row.
        inbox: InboxId,
    },
    /// Something happened in the conversation.
    Event(Outbound),
    /// A one-time pairing code.
    Code {
        /// What to send to the bot.
        code: String,
        /// Seconds it is good for.
        expires_in: u64,
    },
    /// The command in the cell has ended.
    Exit {
        /// Its exit code; 128 and the signal's number when one ended it.
        code: i32,
    },
    /// The running daemon's version.
    Version {
        /// As in `Cargo.toml`.
        version: String,
    },
    /// The settings were read again and are in force, but for those that `restart` names.
    Reloaded {
        /// Doubts about the file, one line each.
        warnings: Vec<String>,
        /// Settings that need a restart.
        restart: Vec<String>,
    },
    /// It could not be done.
    Error {
        /// What failed.
        message: String,
        /// What to do about it.
        fix: String,
    },
    /// It is done.
    Done,
}

impl Reply {
    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Accepted { .. } | Self::Event(_))
    }

    /// An error with its remedy.
    #[must_use]
    pub fn error(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Error { message: message.into(), fix: fix.into() }
    }
}

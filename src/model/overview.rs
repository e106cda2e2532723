//! What `/status`, `skep status`, the status page and systemd's STATUS line show: one value, published by `watch`.

use serde::{Deserialize, Serialize};

use super::{AgentName, Place, RunId, Usage};

/// The whole picture at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The daemon's version.
    pub version: String,
    /// When the daemon started, in seconds since the epoch.
    pub started_at: i64,
    /// Agents in the order of their names.
    pub agents: Vec<AgentOverview>,
    /// Queues.
    pub queue: QueueOverview,
    /// The latest runs, newest first, at most 20.
    pub runs: Vec<RunOverview>,
    /// Tokens and cost.
    pub usage: UsageOverview,
    /// What protects the cells here, and what this machine lacks.
    pub machine: MachineOverview,
    /// The state of the Telegram side.
    pub telegram: TelegramState,
}

/// One agent and its cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentOverview {
    /// Its name.
    pub name: AgentName,
    /// The owner's words about it.
    pub description: String,
    /// The model it is set to.
    pub model: String,
    /// Live cells.
    pub cells: Vec<CellOverview>,
    /// Runs of it that wait.
    pub queued: usize,
}

/// One live cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellOverview {
    /// The conversation's place.
    pub place: Place,
    /// Host process id of the cell's first process.
    pub pid: i32,
    /// Layers that were read back as enforced, in plain words.
    pub layers: Vec<String>,
    /// Bytes in use, where that can be measured.
    pub memory: Option<u64>,
    /// When it started, in seconds since the epoch.
    pub started_at: i64,
    /// Whether a turn is running in it.
    pub busy: bool,
}

/// How much waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueOverview {
    /// Inbox rows not routed yet.
    pub inbox: u64,
    /// Runs that wait for their turn.
    pub queued: u64,
    /// Runs that Claude has.
    pub running: u64,
    /// Outbox rows not confirmed yet.
    pub outbox: u64,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Waits for its turn.
    Queued,
    /// Handed to Claude.
    Running,
    /// Answered.
    Finished,
    /// Ended by an error that the chat was told.
    Failed,
    /// Stopped by the owner.
    Cancelled,
}

impl RunState {
    /// The word kept in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Finished, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// One run, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOverview {
    /// Its number.
    pub id: RunId,
    /// The agent.
    pub agent: AgentName,
    /// Where it was asked.
    pub place: Place,
    /// Its state.
    pub state: RunState,
    /// The first 80 characters of the prompt.
    pub prompt: String,
    /// When it came in, in seconds since the epoch.
    pub created_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// What it used.
    pub usage: Usage,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Tokens and cost by period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageOverview {
    /// Since midnight UTC.
    pub today: Usage,
    /// Since the first of the month, UTC.
    pub month: Usage,
    /// Model calls today.
    pub calls_today: u64,
    /// Of these, refused or failed.
    pub errors_today: u64,
}

/// What this machine offers for cells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineOverview {
    /// `T0` to `T4` as README explains.
    pub tier: String,
    /// Layers in force for every cell, in plain words.
    pub layers: Vec<String>,
    /// What is missing, each with its fix.
    pub missing: Vec<String>,
    /// Version of the Claude Code CLI, when it was found.
    pub claude_version: Option<String>,
    /// Bytes of memory a new process may still use (`MemAvailable`).
    pub memory_available: Option<u64>,
}

/// The state of the Telegram side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TelegramState {
    /// No token is set.
    #[default]
    Off,
    /// Not connected yet.
    Connecting,
    /// Polling.
    Online {
        /// The bot's user name.
        bot: String,
        /// When the last poll came back, in seconds since the epoch.
        last_poll: i64,
    },
    /// Polling fails; it goes on trying.
    Failing {
        /// What failed, in plain words, without secrets.
        error: String,
        /// Since when, in seconds since the epoch.
        since: i64,
    },
    /// Telegram refused the token; polling has stopped until a new one is set.
    Rejected,
}

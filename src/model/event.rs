//! What an agent does, as the rest of the daemon sees it.

use serde::{Deserialize, Serialize};

use super::{AgentName, ConversationId, InboxId, Place, RunId, Usage};

/// One event of one run, on its way to whoever shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outbound {
    /// Where the conversation is held.
    pub place: Place,
    /// The conversation.
    pub conversation: ConversationId,
    /// The agent that speaks.
    pub agent: AgentName,
    /// The run; `None` for a turn that started by itself (a background task came to its end).
    pub run: Option<RunId>,
    /// The inbox row the run came from: a terminal waits for the events of what it submitted.
    pub inbox: Option<InboxId>,
    /// What happened.
    pub event: AgentEvent,
}

/// What happened in a run. Streaming events are best effort; the end of a run is a row of the store before it is
/// one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentEvent {
    /// The run waits behind `ahead` others of its conversation.
    Queued {
        /// How many runs are before it.
        ahead: usize,
    },
    /// Claude has the prompt.
    Started,
    /// A piece of the answer, in Markdown.
    Text {
        /// The new piece only.
        delta: String,
    },
    /// A tool is used, or has come to its end.
    Tool(ToolActivity),
    /// Something worth a line that is neither answer nor failure (a retry, a compaction, a fresh session).
    Notice {
        /// The line, in plain words.
        text: String,
    },
    /// The run ended well. The full answer is in the store.
    Finished {
        /// The whole answer, in Markdown.
        text: String,
        /// What it cost.
        usage: Usage,
    },
    /// The run ended badly. The same words are in the store.
    Failed(Failure),
    /// The owner stopped it.
    Cancelled,
}

/// One tool use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolActivity {
    /// Claude's id of this use, the same at start and end.
    pub id: String,
    /// The tool's name as Claude calls it: `Bash`, `Edit`, …
    pub name: String,
    /// One line about the input, for example the command; control characters removed, at most 200 characters.
    pub detail: String,
    /// `None` while it runs, then whether it ended well.
    pub ok: Option<bool>,
}

/// Why a run failed, in the owner's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed.
    pub what: String,
    /// What the owner can do about it.
    pub fix: String,
}

/// A limit of the model API, as Claude reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Which window: `five_hour`, `seven_day`, …
    pub kind: String,
    /// When it opens again, in seconds since the epoch.
    pub resets_at: Option<i64>,
}

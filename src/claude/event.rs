//! What a Claude process does, as the session machine sees it.

use serde_json::Value;

use super::Exit;
use crate::model::{Failure, RateLimit, SessionId, ToolActivity, Usage};

/// One event of one process, in order. [`ClaudeEvent::Exited`] is always the last.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaudeEvent {
    /// The id of the session, when it is first seen and whenever it changes (`/clear` does that).
    SessionSeen(SessionId),
    /// A turn begins.
    TurnStarted {
        /// The uuids of the messages that started it. Empty when it started by itself, or the CLI does not say.
        prompts: Vec<String>,
    },
    /// A piece of the answer; the pieces of a turn joined are [`TurnEnd::text`].
    Text {
        /// The new piece only.
        delta: String,
    },
    /// A tool is used, or has come to its end. Those of subagents too: they may be all that happens for minutes.
    Tool(ToolActivity),
    /// Something worth a line that is neither answer nor failure.
    Notice {
        /// The line, in plain words.
        text: String,
    },
    /// A limit of the subscription was reported as reached.
    RateLimit(RateLimit),
    /// The process waits for permission, for as long as it takes.
    Ask(Ask),
    /// The process no longer waits for this answer.
    AskCancelled {
        /// The ask.
        request_id: String,
    },
    /// The state of a message that was sent.
    Message {
        /// The uuid it was sent with.
        uuid: String,
        /// Its state.
        state: MessageState,
    },
    /// How many background tasks run that will start a turn when they end. A process with some is not idle.
    BackgroundTasks {
        /// All of them, not the change.
        count: usize,
    },
    /// A turn has ended. The process goes on.
    TurnEnded(Box<TurnEnd>),
    /// A type of line that this version does not know; once per type.
    Unknown {
        /// `type`, or `type/subtype`.
        kind: String,
    },
    /// A line that could not be read and was skipped: not JSON, or longer than the limit.
    Skipped {
        /// Its length in bytes.
        length: usize,
    },
    /// The process has ended. Nothing follows.
    Exited(Exited),
}

/// A tool wants to be permitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Names the ask in the answer.
    pub request_id: String,
    /// The tool.
    pub tool_name: String,
    /// The tool's input.
    pub input: Value,
}

/// The state of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageState {
    /// The process has it.
    Queued,
    /// A turn works on it.
    Started,
    /// Its turn has ended.
    Completed,
    /// It was withdrawn, or its turn failed before the model answered.
    Cancelled,
}

/// A turn's end.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnEnd {
    /// Everything the main loop said in this turn, its blocks divided by blank lines: what the owner saw streaming. The
    /// CLI's own `result` names the last message only; it is used where nothing was streamed.
    pub text: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Tokens and cost of this turn, subagents included, as the CLI reckons.
    pub usage: Usage,
    /// The uuids of every message this turn took up.
    pub prompts: Vec<String>,
    /// Whether the turn started by itself (a background task came to its end).
    pub unasked: bool,
    /// The session's id after it.
    pub session: SessionId,
    /// `success`, `error_during_execution`, …
    pub subtype: String,
    /// `completed`, `aborted_streaming`, `api_error`, …
    pub terminal_reason: Option<String>,
    /// HTTP status of the model API, where that ended the turn.
    pub api_error_status: Option<u16>,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Completed,
    /// Somebody interrupted it.
    Interrupted,
    /// Badly, in the owner's words.
    Failed(Failure),
}

/// The end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// How it ended.
    pub how: Exit,
    /// The last 4 KiB of its standard error, control characters removed.
    pub stderr: String,
}

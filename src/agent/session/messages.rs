//! What a conversation's state machine is told, and what it answers.

use std::time::Duration;

use crate::model::{AgentEvent, Failure, RunId, RunState, SessionId, ToolActivity};
use crate::store::Run;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::agent) enum Input {
    /// A stored run joins the queue.
    Enqueue(Box<Run>, Arrival),
    /// A queued run was cancelled in the store.
    Cancel(RunId),
    /// The run that was to be handed over had been cancelled meanwhile: Claude does not have it.
    Withdrawn(RunId),
    /// The owner wants the running turn to end.
    Stop,
    /// The owner wants a fresh session: the conversation has this id in the store already.
    Renew(SessionId, Running),
    /// The memory is wanted elsewhere: end the process if nothing runs.
    Yield,
    /// The daemon is going down: hand nothing over any more.
    Drain,
    /// The process answered `initialize`.
    Ready,
    /// The process could not be started.
    StartFailed(StartFailure),
    /// A turn began.
    TurnStarted,
    /// Claude took up the message with this id.
    Taken(String),
    /// A piece of text of the current turn.
    Text(String),
    /// A tool of the current turn.
    Tool(ToolActivity),
    /// A line worth showing.
    Notice(String),
    /// How many background tasks keep the process from being idle.
    Background(usize),
    /// A turn ended.
    TurnEnded(TurnEnd),
    /// The process is gone.
    Exited {
        /// The last it said on stderr, for the owner.
        said: String,
    },
    /// A timer ran out.
    Timer(Timer),
}

/// What becomes of a running turn when a fresh session is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// It is stopped.
    Stop,
    /// It comes to its end first.
    Finish,
}

/// How a run came to its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The owner has just sent it: if it has to wait, they are told.
    Fresh,
    /// An earlier life of the daemon left it, and told them then.
    Recovered,
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum StartFailure {
    /// Claude knows no session of that id.
    NoSession,
    /// Claude already has a session of that id: it must be resumed.
    SessionExists,
    /// The process did not become ready in time.
    Hung(Failure),
    /// The process was killed while it started.
    Died(Failure),
    /// Anything else.
    Failed(Failure),
}

/// How a turn ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::agent) struct TurnEnd {
    /// All the text of the turn.
    pub text: String,
    /// Why it failed, in the owner's words.
    pub failure: Option<Failure>,
    /// It ended because it was interrupted.
    pub interrupted: bool,
    /// Cost in millionths of a US dollar.
    pub cost_micros: u64,
    /// The message ids it consumed.
    pub messages: Vec<String>,
    /// Claude says that it started by itself.
    pub own: bool,
    /// The session it belongs to from now on.
    pub session: Option<SessionId>,
}

/// A timer of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::agent) enum Timer {
    /// Nothing has run for the idle time.
    Idle,
    /// A turn has taken its whole time.
    TurnLimit,
    /// An interrupted turn has not ended.
    HardStop,
}

/// What to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::agent) enum Action {
    /// Start a process.
    Launch {
        /// Continue the stored session, else begin it.
        resume: bool,
    },
    /// Store that the run is handed over, then write the prompt.
    Hand {
        /// The run.
        run: RunId,
        /// The id for the message.
        message: String,
        /// The words, with a note where it is not the first time.
        prompt: String,
    },
    /// Ask the running turn to end.
    Interrupt,
    /// End the process now.
    Kill,
    /// End the process in good order.
    EndProcess,
    /// Give the conversation a fresh session id in the store.
    RenewSession,
    /// The next process begins this session; the store has it already.
    Adopt(SessionId),
    /// Remember that Claude has this session.
    Begun(Option<SessionId>),
    /// End a run in the store, then say so.
    End(Box<Closing>),
    /// Tell whoever watches the run (`None`: the conversation).
    Emit(Option<RunId>, AgentEvent),
    /// Deliver what a turn of Claude's own said.
    Deliver {
        /// The text, in Markdown.
        text: String,
        /// What the turn cost.
        cost_micros: u64,
    },
    /// Start or restart a timer.
    Arm(Timer, Duration),
    /// Stop a timer.
    Disarm(Timer),
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Closing {
    pub run: RunId,
    pub state: RunState,
    /// What the chat is told.
    pub text: String,
    pub failure: Option<Failure>,
    pub cost_micros: u64,
}

/// Settings of the agent that the machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct Limits {
    pub idle: Duration,
    pub turn: Duration,
}

//! The vocabulary every other module speaks: identifiers, what came in, what must go out, what the status page shows.
//!
//! Invariant: no I/O, no async, no clock, and no import of another module of ours.

mod access;
mod command;
mod event;
mod ids;
mod inbound;
mod overview;
mod usage;

pub use access::{Access, Admission};
pub use command::{Command, MENU};
pub use event::{AgentEvent, Failure, Outbound, RateLimit, ToolActivity};
pub use ids::{
    AgentName, AgentNameError, ChatId, ConversationId, InboxId, MessageId, OutboxId, Place, RunId, SessionId,
    ThreadId, UpdateId, UserId,
};
pub use inbound::{Content, Inbound, Origin};
pub use overview::{
    AgentOverview, CellOverview, MachineOverview, Overview, QueueOverview, RunOverview, RunState,
    TelegramState, UsageOverview,
};
pub use usage::{ModelCall, Usage};

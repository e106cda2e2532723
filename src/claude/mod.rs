//! One genuine Claude Code process: its command line, the JSON lines on its pipes, and what they mean.
//!
//! Called by `agent` only. `args` and `managed` say how it is started, `stream` and `wire` read its lines, `turn` turns
//! them into [`ClaudeEvent`]s, `explain` puts its errors into the owner's words; all of these are pure. `process` and
//! `pump` are the shell around them, and `program` asks an installed program for its version.
//!
//! Invariants:
//! - Nothing of the vendor's wire leaves this module: whoever is above sees [`ClaudeEvent`] and [`Failure`] only.
//! - An unknown line, type, field or subtype is never an error: it is skipped, and its type reported once.
//! - Memory is bounded whatever the process writes: a line, a turn's text, every channel and the kept standard error
//!   have a limit.
//! - A started process ends with its [`Claude`]: dropping the handle kills it.
//!
//! [`Failure`]: crate::model::Failure

mod args;
mod cell;
#[cfg(test)]
mod child;
mod event;
mod explain;
#[cfg(test)]
mod live;
mod managed;
mod process;
mod program;
mod pump;
mod say;
mod stream;
mod tool;
mod turn;
mod wire;

pub use args::{CredentialKind, Invocation, Mode, Opening, command_line, environment};
pub use cell::{Cell, Command, Control, Exit, SpawnError};
pub use event::{Ask, ClaudeEvent, Exited, MessageState, Outcome, TurnEnd};
pub use explain::{Trouble, explain};
pub use managed::{PATH_IN_ETC, managed_settings};
pub use process::{Answer, Claude, Gone, Ready, StartError};
pub use program::{MINIMUM, ProgramError, Version, probe};

//! The command line's door: a Unix socket that takes one request per connection and answers in JSON lines.
//!
//! `daemon.rs` binds it, runs it and answers the [`Call`]s it yields; `cli` is the client. The server knows nothing of
//! agents: it reads, checks and hands over.
//!
//! Invariants:
//! - Only root, the daemon's own user and members of its group are heard, by the kernel's word (peer credentials).
//! - Lines, connections and waiting calls are bounded; whatever a client sends, the daemon stays up.
//! - A client that hangs up is noticed: [`Call::reply`] is then closed.

mod descriptors;
mod peer;
mod protocol;
mod server;
#[cfg(test)]
mod tests;

pub use descriptors::send as send_with_descriptors;
pub use protocol::{LINE_LIMIT, REPLY_LIMIT, Reply, Request};
pub use server::{Call, Caller, ControlError, ControlServer};

//! The map of this crate. There is no code here.
//!
//! Skep is one daemon and its command line. Data flows downhill: what comes in is stored before it is looked at, what goes
//! out is stored before it is sent, and between the two a run carries a prompt to its end.
//!
//! ```text
//! telegram::poll ──┐                                        ┌── claude::process ── a cell (skep-sandbox)
//! control (skep …) ┴─► inbox ─► router ─► agent::supervisor ─► agent::actor ─┤            │
//!                       │ row     │ run row        │ session.rs decides       └── broker ◄─┘ model API
//!                       ▼         ▼                ▼
//!                      store (SQLite, one thread) ◄─ answer row ─► telegram::delivery ─► the owner's phone
//! ```
//!
//! # Layers
//!
//! A module imports only what stands above it in this table; `tests/layering.rs` holds the code to it.
//!
//! | layer | modules | may import |
//! |---|---|---|
//! | 0 | [`model`], [`failpoint`] | nothing |
//! | 1 | [`config`], [`systemd`], [`announce`] | 0 |
//! | 2 | [`store`] | 0, 1 |
//! | 3 | [`broker`], [`claude`], [`telegram`], [`status`] | 0 to 2, never each other |
//! | 4 | [`agent`] | 0 to 2, claude, broker, and the sandbox crate |
//! | 5 | [`inbox`], [`overview`] | 0 to 2; overview also agent |
//! | 6 | [`router`] | 0 to 2, agent, inbox, overview |
//! | 7 | [`control`], [`daemon`], then [`cli`], then `main` | everything above |
//!
//! # Channels
//!
//! Every channel is bounded; each is made where its receiver is started.
//!
//! | from | to | carries | when it is full |
//! |---|---|---|---|
//! | poll | inbox | updates with their acknowledgement | the poll waits, Telegram keeps the rest |
//! | inbox | router | `Inbound`, already a row | the inbox waits |
//! | router | supervisor, then actor | runs, stop, cancel | the router waits |
//! | process | actor | `ClaudeEvent` | Claude's stdout waits |
//! | broker | actor | `ModelCall` | the cell's connection waits at its end |
//! | actor, router | chat side | `ToChat` | they wait; the chat side always drains |
//! | actor, router | terminals, status page | `Outbound` | the slow reader loses the oldest |
//!
//! # Invariants
//!
//! - An update is acknowledged to Telegram only after its row is committed; a run is handed to Claude only after its state
//!   is; an answer is sent only after it is a row; a row is done only when Telegram confirmed it.
//! - The daemon has no capability when it reads its first byte from outside; the model credential never leaves it.
//! - The death of an actor ends the daemon, and systemd starts it again; the death of a child is an event.
#![forbid(unsafe_code)]

pub mod agent;
pub mod announce;
pub mod broker;
pub mod claude;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod failpoint;
pub mod inbox;
pub mod model;
pub mod overview;
pub mod router;
pub mod status;
pub mod store;
pub mod systemd;
pub mod telegram;

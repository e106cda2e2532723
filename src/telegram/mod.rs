//! Everything that speaks the Bot API.
//!
//! `poll` brings updates to the inbox, `update` reads them, `delivery` brings what the store holds ready into the chats.
//! The daemon starts one `Poll` and one `Delivery` per bot token and joins them to the rest with channels.
//!
//! Invariants:
//! - Nothing is confirmed to Telegram before it is committed, nothing is sent before its row says so.
//! - No error, log line or `Debug` output of this module holds the bot's token.

mod api;
mod backoff;
mod delivery;
mod draft;
mod error;
mod fields;
mod markup;
mod pace;
mod payload;
mod poll;
#[cfg(test)]
mod tests;
mod update;

pub use api::{Api, Me};
pub use delivery::Delivery;
pub use error::{ApiError, SetupError};
pub use poll::{Batch, Poll, Refused};
pub use update::{Bot, classify, decode};

//! Against the fake Bot API of `tests/fake-telegram`, in real time: what only a server can show.

mod api;
mod delivery;
mod poll;
mod support;

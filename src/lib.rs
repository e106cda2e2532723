//! The map of this crate.

pub mod agent;
pub mod broker;
pub mod claude;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod failpoint;
pub mod inbox;
pub mod model;
pub mod router;
pub mod status;
pub mod store;
pub mod systemd;
pub mod telegram;

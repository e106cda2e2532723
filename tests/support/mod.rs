//! Support for the system tests: both stand-ins, and the daemon as its owner runs it.
//!
//! Everything is real but the two remote services: the built `skep daemon`, its helper, a cell, the Claude Code CLI.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "test support"
)]

mod daemon;
pub mod http;
mod model;
mod phone;
pub mod processes;
mod world;

pub use daemon::{Daemon, Exit};
pub use model::{Model, text_reply};
pub use phone::{OWNER, Phone};
pub use world::{World, slow_reply};

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Claude Code CLI, fetched by `tests/setup.sh`.
pub fn claude() -> PathBuf {
    let path =
        std::env::var_os("SKEP_CLAUDE").map_or_else(|| root().join(".local/claude/claude"), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run tests/setup.sh test", path.display());
    path
}

/// A stand-in written in Python: ends when this value is dropped.
struct StandIn {
    child: Child,
    _stdin: ChildStdin,
    /// The line of JSON it greeted with.
    greeting: serde_json::Value,
}

impl StandIn {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = Command::new("python3")
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts the stand-in");
        let stdin = child.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let greeting = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{args:?} said {line:?}: {e}"));
        Self { child, _stdin: stdin, greeting }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until `question` has an answer; panics with `what` when it has none in time.
pub fn eventually<T>(what: &str, seconds: u64, mut question: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(std::time::Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

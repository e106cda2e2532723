//! The words a conversation's state machine says: to the model about a cut-off, and to the owner at the end of a run. Pure.

use std::time::Duration;

use super::ATTEMPTS;
use crate::model::Failure;

/// The prompt of a run that was handed over before and not finished.
pub(super) fn again(prompt: &str) -> String {
    format!(
        "[Note from Skep, the program that relays this chat: work on the message below was cut off by a restart, and \
         its answer did not reach the owner. Look at what is already done, do not repeat finished side effects, \
         and give the complete answer now.]\n\n{prompt}"
    )
}

pub(super) fn with_line(text: &str, line: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() { line.to_owned() } else { format!("{text}\n\n{line}") }
}

pub(super) fn failed_text(text: &str, failure: &Failure) -> String {
    with_line(
        text,
        &format!("⚠️ {}.\n{}.", failure.what.trim_end_matches('.'), failure.fix.trim_end_matches('.')),
    )
}

pub(super) fn limit_failure(limit: Duration) -> Failure {
    Failure {
        what: format!("This took longer than {} and was stopped", spoken(limit)),
        fix: "Ask for a smaller step, or raise turn_limit in skep.toml".to_owned(),
    }
}

pub(super) fn crash_failure(said: &str) -> Failure {
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
    Failure {
        what: format!("Claude ended unexpectedly {ATTEMPTS} times. Its last words: {last}"),
        fix: "Send the message again; if it happens every time, try /new or look at `journalctl -u skep`"
            .to_owned(),
    }
}

/// A duration in words: `90 s`, `30 min`, `2 h`.
fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

//! Named steps of a message's path at which a crash test kills the process.
//!
//! With the feature `failpoints` (tests only) `SKEP_KILL_AT=NAME` or `NAME:N` makes the process send itself SIGKILL
//! when it reaches the step for the first (the Nth) time. Without the feature [`reach`] is empty.

/// Every step a crash test may name, in the order of a message's path.
pub const STEPS: [&str; 16] = [
    "poll.received",
    "inbox.committed",
    "poll.confirmed",
    "router.decided",
    "run.queued",
    "cell.launched",
    "claude.ready",
    "run.started",
    "claude.prompted",
    "claude.first_text",
    "draft.sending",
    "draft.sent",
    "claude.finished",
    "run.finished",
    "outbox.sending",
    "outbox.sent",
];

/// Dies here if a crash test asked for it.
#[cfg(feature = "failpoints")]
pub fn reach(step: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static SEEN: AtomicU32 = AtomicU32::new(0);
    debug_assert!(STEPS.contains(&step), "{step} is not in STEPS");
    let Ok(wanted) = std::env::var("SKEP_KILL_AT") else { return };
    let (name, count) = match wanted.split_once(':') {
        Some((name, count)) => (name, count.parse().unwrap_or(1)),
        None => (wanted.as_str(), 1),
    };
    if name == step && SEEN.fetch_add(1, Ordering::SeqCst) + 1 == count {
        // The point is to leave no chance to tidy up.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Dies here if a crash test asked for it.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_step: &str) {}

//! How long to wait after the nth failure in a row (pure but for the jitter).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Counts failures in a row.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    failures: usize,
}

const STEPS: [u64; 5] = [1, 2, 4, 8, 15];

impl Backoff {
    /// The wait before the next try: 1, 2, 4, 8, 15 s and so on at 15 s, plus up to a quarter.
    pub(super) fn next(&mut self) -> Duration {
        let base = STEPS[self.failures.min(STEPS.len() - 1)] * 1000;
        self.failures = self.failures.saturating_add(1);
        // Every RandomState hashes with keys of its own: enough to keep a fleet from knocking in step.
        let jitter = RandomState::new().hash_one(self.failures) % (base / 4);
        Duration::from_millis(base + jitter)
    }

    /// Something succeeded.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether nothing has failed since the last success.
    pub(super) fn is_fresh(&self) -> bool {
        self.failures == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_fifteen_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        for expected in [1, 2, 4, 8, 15, 15, 15] {
            let wait = backoff.next().as_millis() as u64;
            assert!((expected * 1000..expected * 1250).contains(&wait), "{wait} for {expected}");
        }
        backoff.reset();
        assert!(backoff.is_fresh());
        assert!(backoff.next() < Duration::from_millis(1250));
    }
}

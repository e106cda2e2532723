//! Room for one more cell: on a small machine an idle cell is ended first (its session resumes later).
//!
//! Called before every launch. Invariant: it never refuses; where nothing can be freed, the cell's own limits decide.

use std::time::Duration;

use super::Registry;

/// What a starting Claude needs: 110 MiB of its own, and what it shares when it is the first.
const NEEDED: u64 = 192 * 1024 * 1024;
/// An idle cell ends in well under this.
const STEP: Duration = Duration::from_millis(250);
/// How often to look again before going ahead all the same.
const TRIES: u32 = 20;

/// Waits until there is memory for one more cell, asking idle ones to end.
pub(super) async fn make_room(registry: &Registry) {
    for _ in 0..TRIES {
        match memory_available() {
            Some(bytes) if bytes < NEEDED => {}
            _ => return,
        }
        if !registry.yield_one() {
            tracing::warn!("memory is short and no idle cell can be ended");
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// `MemAvailable` in bytes; `None` where /proc does not tell.
#[must_use]
pub fn memory_available() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_available_memory_is_read() {
        assert_eq!(available("MemTotal:  10 kB\nMemAvailable:     888 kB\n"), Some(888 * 1024));
        assert_eq!(available("MemTotal:  10 kB\n"), None);
    }
}

//! How fast one chat, and all chats together, may be written to (pure).
//!
//! Telegram counts sends and edits of a chat together: about one a second with short bursts, 20 a minute in a group, and
//! punishes who goes on. One bucket per chat therefore holds both, with a part that only final texts may use.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of permissions that fills with time.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    level: f64,
    most: f64,
    per_second: f64,
    at: Instant,
    /// Flood control: nothing goes out before this.
    closed_until: Option<Instant>,
}

/// What a permission is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A final text: may use everything.
    Final,
    /// Progress: leaves enough for a final text.
    Progress,
}

/// What progress leaves in the bucket.
const RESERVE: f64 = 2.0;

impl Bucket {
    /// For one chat.
    pub(super) fn chat(group: bool, now: Instant) -> Self {
        // In a group burst and rate together stay below 20 in any minute.
        let per_second = if group { 0.25 } else { 1.0 };
        Self { level: 4.0, most: 4.0, per_second, at: now, closed_until: None }
    }

    /// For all chats together.
    pub(super) fn global(now: Instant) -> Self {
        Self { level: 25.0, most: 25.0, per_second: 25.0, at: now, closed_until: None }
    }

    /// Takes one permission, or says when to ask again.
    pub(super) fn take(&mut self, now: Instant, purpose: Purpose) -> Result<(), Instant> {
        if let Some(until) = self.closed_until {
            if now < until {
                return Err(until);
            }
            self.closed_until = None;
        }
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.most);
        self.at = now;
        let needed = if purpose == Purpose::Final { 1.0 } else { 1.0 + RESERVE };
        if self.level >= needed {
            self.level -= 1.0;
            return Ok(());
        }
        // Rounded up a little, so that the next try does not come a moment too early.
        Err(now + Duration::from_secs_f64((needed - self.level) / self.per_second) + Duration::from_millis(1))
    }

    /// Telegram asked to wait.
    pub(super) fn close(&mut self, now: Instant, wait: Duration) {
        // A second more: the server counts from when it answered, and asking early lengthens the wait.
        let until = now + wait + Duration::from_secs(1);
        self.closed_until = Some(self.closed_until.map_or(until, |old| old.max(until)));
        self.level = self.level.min(1.0);
    }

    /// Whether nothing would be forgotten by making a new one.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        let open = self.closed_until.is_none_or(|until| until <= now);
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        open && self.level + passed * self.per_second >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(now: Instant, seconds: f64) -> Instant {
        now + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn progress_leaves_room_for_a_final_text() {
        let now = Instant::now();
        let mut bucket = Bucket::chat(false, now);
        assert_eq!(bucket.take(now, Purpose::Progress), Ok(()));
        assert_eq!(bucket.take(now, Purpose::Progress), Ok(()));
        let again = bucket.take(now, Purpose::Progress).unwrap_err();
        assert!(again > later(now, 0.9) && again < later(now, 1.1));
        assert_eq!(bucket.take(now, Purpose::Final), Ok(()));
        assert_eq!(bucket.take(now, Purpose::Final), Ok(()));
        assert!(bucket.take(now, Purpose::Final).is_err());
        assert_eq!(bucket.take(later(now, 1.01), Purpose::Final), Ok(()));
    }

    #[test]
    fn a_group_never_sees_twenty_in_a_minute() {
        let start = Instant::now();
        let mut bucket = Bucket::chat(true, start);
        let taken = (0..600)
            .filter(|tenth| bucket.take(later(start, f64::from(*tenth) / 10.0), Purpose::Final).is_ok())
            .count();
        assert!((15..20).contains(&taken), "{taken}");
    }

    #[test]
    fn flood_control_closes_the_bucket_for_everything() {
        let now = Instant::now();
        let mut bucket = Bucket::chat(false, now);
        bucket.close(now, Duration::from_secs(7));
        bucket.close(now, Duration::from_secs(3));
        assert_eq!(bucket.take(now, Purpose::Final), Err(later(now, 8.0)));
        assert!(!bucket.is_full(later(now, 7.0)));
        assert_eq!(bucket.take(later(now, 8.0), Purpose::Final), Ok(()));
    }
}

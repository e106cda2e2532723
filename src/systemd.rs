//! What systemd is told: ready, status line, watchdog, reloading, stopping.
//!
//! Called by the daemon's composition root. Without a notify socket (a developer's terminal) every call does nothing;
//! a call that fails is logged and costs nothing else, because systemd's own time-outs answer a silent service.
//!
//! Invariant: the environment is only read. The helper is started with an empty environment of its own, so nobody
//! inherits the notify socket, and unsetting the variable (which races with every reader) is not needed.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service works; the status line says how.
pub fn ready(line: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(line))]);
}

/// The line `systemctl status` shows.
pub fn status(line: &str) {
    send(&[NotifyState::Status(&one_line(line))]);
}

/// The service reads its settings again; [`ready`] ends it.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Asked for by Type=notify-reload (systemd 253 and later), ignored before.
    states.extend(NotifyState::monotonic_usec_now().ok());
    send(&states);
}

/// The service ends by its own will.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The service is alive.
pub fn ping() {
    send(&[NotifyState::Watchdog]);
}

/// How often to [`ping`]: half of what the unit's `WatchdogSec=` allows. `None` when nobody watches.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// A message of the notify protocol ends at the line's end: what follows would be read as another assignment.
fn one_line(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_cannot_carry_another_assignment() {
        assert_eq!(one_line("idle\nMAINPID=1\r\0"), "idle MAINPID=1  ");
        assert_eq!(one_line(&"é".repeat(500)).chars().count(), 400);
    }

    #[test]
    fn without_a_notify_socket_nothing_happens() {
        ready("x");
        reloading();
        stopping();
        ping();
    }
}

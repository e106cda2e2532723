//! What systemd is told: ready, status line, watchdog, reloading, stopping.
//!
//! Called by the daemon's composition root. Without a notify socket (a developer's terminal) every call does nothing;
//! a call that fails is logged and costs nothing else, because systemd's own time-outs answer a silent service.
//!
//! Invariants: nobody here waits for a service manager that does not read (it stops reading while it reloads itself): a
//! line that does not fit into its queue is dropped, since the next one says more, and only what changes the service's
//! state is given a second. The environment is only read. The helper is started with an empty environment of its own, so nobody
//! inherits the notify socket, and unsetting the variable (which races with every reader) is not needed.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// How long a change of the service's state may wait for room in the service manager's queue.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// The service works; the status line says how.
pub fn ready(line: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(line))], Patience::Brief);
}

/// The line `systemctl status` shows.
pub fn status(line: &str) {
    send(&[NotifyState::Status(&one_line(line))], Patience::None);
}

/// The service reads its settings again; [`ready`] ends it.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Asked for by Type=notify-reload (systemd 253 and later), ignored before.
    states.extend(NotifyState::monotonic_usec_now().ok());
    send(&states, Patience::Brief);
}

/// The service ends by its own will.
pub fn stopping() {
    send(&[NotifyState::Stopping], Patience::Brief);
}

/// The service is alive.
pub fn ping() {
    send(&[NotifyState::Watchdog], Patience::None);
}

/// How often to [`ping`]: half of what the unit's `WatchdogSec=` allows. `None` when nobody watches.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

/// Whether a full queue is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    Brief,
}

fn send(states: &[NotifyState<'_>], patience: Patience) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    let text = states.iter().fold(String::new(), |mut text, state| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{state}");
        text
    });
    match deliver(&socket, &text, patience) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience == Patience::None => {
            tracing::debug!("systemd does not read; a line to it is dropped");
        }
        Err(error) => tracing::warn!(%error, "cannot notify systemd"),
    }
}

/// One datagram to `socket`: a path, or `@` and an abstract name.
fn deliver(socket: &OsStr, text: &str, patience: Patience) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    match patience {
        Patience::None => sender.set_nonblocking(true)?,
        Patience::Brief => sender.set_write_timeout(Some(ROOM_WITHIN))?,
    }
    sender.send_to_addr(text.as_bytes(), &address).map(drop)
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
    fn a_service_manager_that_does_not_read_costs_lines_and_little_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let began = std::time::Instant::now();
        let full = (0..10_000).find_map(|_| deliver(path.as_os_str(), "STATUS=x\n", Patience::None).err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        let late = deliver(path.as_os_str(), "READY=1\n", Patience::Brief).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::WouldBlock);
        assert!(began.elapsed() < 5 * ROOM_WITHIN, "{:?}", began.elapsed());
        manager.recv(&mut [0; 64]).unwrap();
        deliver(path.as_os_str(), "READY=1\n", Patience::Brief).unwrap();
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("skep-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        deliver(format!("@{name}").as_ref(), "WATCHDOG=1\n", Patience::None).unwrap();
        let mut line = [0; 64];
        let length = manager.recv(&mut line).unwrap();
        assert_eq!(&line[..length], b"WATCHDOG=1\n");
    }

    #[test]
    fn without_a_notify_socket_nothing_happens() {
        ready("x");
        reloading();
        stopping();
        ping();
    }
}

//! The resident helper: one thread, one socket, one request at a time.
//!
//! It holds at most three capabilities, opens no network connection and holds no secret. It ends, with every cell,
//! when the daemon's end of the socket closes. A request that is malformed, oversized, repeated or out of place is
//! answered with a refusal and changes nothing.

mod child;
mod launch;
mod prepare;
mod setup;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::codec::MAX_MESSAGE;
use crate::helper::launch::Live;
use crate::helper::setup::Settings;
use crate::passing::{receive, send_with_fds};
use crate::spec::{CellParts, CellSpec};
use crate::sys;
use crate::wire::{LAUNCH_FIXED_FDS, Reply, Request};

/// Most cells at a time.
const MAX_CELLS: usize = 256;

/// The helper ends when its socket closes and at nothing else: a signal to the whole service, or from a terminal,
/// must leave the daemon time to stop its agents in good order. The command of a cell starts with none ignored.
const IGNORED: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// The helper's whole life; the program `skep-sandbox` calls it with the socket as standard input.
///
/// # Errors
/// When standard input is not a socket from the daemon, or polling fails.
pub fn run() -> io::Result<()> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    setup::check_socket(socket.as_fd())?;
    for signal in IGNORED {
        sys::ignore_signal(signal)?;
    }
    let mut helper = Helper { socket, settings: None, live: Vec::new() };
    let mut buffer = vec![0; MAX_MESSAGE];
    while helper.wait()? {
        let Ok(received) = receive(helper.socket.as_fd(), &mut buffer) else { break };
        if received.length == 0 {
            break;
        }
        let (reply, fds) = if received.truncated {
            (Reply::Refused("the request does not fit".to_owned()), Vec::new())
        } else {
            helper.answer(&buffer[..received.length], received.fds)
        };
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        if send_with_fds(helper.socket.as_fd(), &reply.encode(), &borrowed).is_err() {
            break;
        }
    }
    // Dropping the list kills what is left.
    Ok(())
}

struct Helper {
    socket: OwnedFd,
    /// Set by the first message.
    settings: Option<Settings>,
    live: Vec<Live>,
}

impl Helper {
    /// Waits for a request, reaping cells meanwhile. `false`: the daemon is gone.
    fn wait(&mut self) -> io::Result<bool> {
        loop {
            let mut watch = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            watch.extend(self.live.iter().map(|cell| PollFd::new(cell.pidfd.as_fd(), PollFlags::POLLIN)));
            match poll(&mut watch, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let has = |at: usize, flag| watch[at].revents().is_some_and(|seen| seen.intersects(flag));
            let (request, gone) =
                (has(0, PollFlags::POLLIN), has(0, PollFlags::POLLHUP | PollFlags::POLLERR));
            let ended: Vec<bool> = (1..watch.len()).map(|at| has(at, PollFlags::POLLIN)).collect();
            drop(watch);
            let mut ended = ended.into_iter();
            self.live.retain(|_| !ended.next().unwrap_or(false));
            if gone && !request {
                return Ok(false);
            }
            if request {
                return Ok(true);
            }
        }
    }

    fn answer(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
        let refuse = |why: String| (Reply::Refused(why), Vec::new());
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(error) => return refuse(error.to_string()),
        };
        match (request, &mut self.settings) {
            (Request::Hello(hello), settings @ None) => match Settings::establish(hello) {
                Ok(mut ready) => {
                    let report = launch::trial(&mut ready);
                    *settings = Some(ready);
                    (Reply::Ready(Box::new(report)), Vec::new())
                }
                Err(why) => refuse(why),
            },
            (Request::Hello(_), Some(_)) => refuse("the helper is set up already".to_owned()),
            (_, None) => refuse("the helper is not set up yet".to_owned()),
            (Request::Prepare { slot, canonical }, Some(settings)) => {
                match prepare::prepare(settings, slot, &canonical, &fds) {
                    Ok(()) => (Reply::Prepared, Vec::new()),
                    Err(why) => refuse(why),
                }
            }
            (Request::Launch { parts, canonical }, Some(_)) => {
                self.launch(*parts, canonical, fds).unwrap_or_else(refuse)
            }
        }
    }

    fn launch(
        &mut self,
        parts: CellParts,
        canonical: Vec<std::path::PathBuf>,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), String> {
        let settings = self.settings.as_mut().ok_or("the helper is not set up yet")?;
        if self.live.len() >= MAX_CELLS {
            return Err(format!("{MAX_CELLS} cells are running already"));
        }
        let spec = CellSpec::new(parts).map_err(|error| error.to_string())?;
        let expected = LAUNCH_FIXED_FDS + spec.parts().programs.len();
        if fds.len() != expected || canonical.len() + 3 != expected {
            return Err(format!("{expected} descriptors are needed, {} came", fds.len()));
        }
        Ok(match launch::launch(settings, spec.parts(), &canonical, fds)? {
            Ok((live, reply, fds)) => {
                self.live.push(live);
                (reply, fds)
            }
            Err(failed) => (Reply::Step(failed), Vec::new()),
        })
    }
}

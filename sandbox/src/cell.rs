//! One running cell, as the daemon holds it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::report::Enforced;
use crate::sys;

/// A running cell. Dropping it kills every process in it.
#[derive(Debug)]
pub struct Cell {
    pid: i32,
    pidfd: OwnedFd,
    leaf: Option<PathBuf>,
    enforced: Enforced,
    exit: Option<OwnedFd>,
    listener: Option<TcpListener>,
}

impl Cell {
    /// `fds`: pidfd, exit pipe, then perhaps the listener.
    pub(crate) fn new(
        pid: i32,
        leaf: Option<PathBuf>,
        enforced: Enforced,
        fds: Vec<OwnedFd>,
    ) -> Option<Cell> {
        let mut fds = fds.into_iter();
        let (pidfd, exit) = (fds.next()?, fds.next()?);
        let listener = fds.next().map(TcpListener::from);
        let cell = Cell { pid, pidfd, leaf, enforced, exit: Some(exit), listener };
        match cell.listener.as_ref().map(|listener| listener.set_nonblocking(true)) {
            None | Some(Ok(())) => Some(cell),
            Some(Err(_)) => None,
        }
    }

    /// What the cell is held by, read back just before its command started.
    #[must_use]
    pub fn report(&self) -> &Enforced {
        &self.enforced
    }

    /// The listening socket on the cell's loopback, non-blocking; the first call gets it.
    pub fn take_listener(&mut self) -> Option<TcpListener> {
        self.listener.take()
    }

    /// The pipe that tells how the cell ended: read it to end of file, then [`crate::ExitStatus::parse`].
    pub fn take_exit(&mut self) -> Option<OwnedFd> {
        self.exit.take()
    }

    /// Host pid of the cell's first process (its reaper).
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A pidfd of the cell's first process; readable once every process of the cell is dead.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Asks the command to end: the reaper forwards `SIGTERM` and `SIGINT` (and `SIGHUP`, `SIGQUIT`, `SIGUSR1`,
    /// `SIGUSR2`) to it. A cell that has ended already is not an error.
    ///
    /// # Errors
    /// The error of `pidfd_send_signal`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match sys::pidfd_send_signal(self.pidfd.as_fd(), signal as i32) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Kills every process of the cell, at once and unconditionally. May be called again.
    ///
    /// # Errors
    /// When neither the cgroup nor the first process could be killed.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(leaf) = &self.leaf {
            // Gone leaf: the cell has ended. The first process is killed below in any case.
            let _ = std::fs::write(leaf.join("cgroup.kill"), "1");
        }
        self.signal(Signal::SIGKILL)
    }

    /// Memory of the cell in bytes: its cgroup's charge, else the summed resident sets of its processes
    /// (shared pages count once per process), else unknown.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let charged = |leaf: &PathBuf| -> Option<u64> {
            std::fs::read_to_string(leaf.join("memory.current")).ok()?.trim().parse().ok()
        };
        self.leaf.as_ref().and_then(charged).or_else(|| resident(self.pid))
    }

    /// The cell's cgroup, if it has one.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Path> {
        self.leaf.as_deref()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Sums the resident sets of `root` and everything below it. Orphans hang on the reaper, so the tree is whole.
fn resident(root: i32) -> Option<u64> {
    const MOST: usize = 65_536;
    let mut waiting = vec![root];
    let mut pages = 0_u64;
    let mut seen = 0;
    while let Some(pid) = waiting.pop() {
        seen += 1;
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"));
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let resident = |text: String| text.split(' ').nth(1).and_then(|field| field.parse::<u64>().ok());
        match statm.ok().and_then(resident) {
            Some(count) => pages += count,
            None if pid == root => return None,
            None => {}
        }
        let children = match children {
            Ok(text) => text,
            Err(_) if pid == root => return None,
            Err(_) => continue,
        };
        if seen < MOST {
            waiting.extend(children.split_whitespace().filter_map(|field| field.parse::<i32>().ok()));
        }
    }
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

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
    command: i32,
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
        command: i32,
        leaf: Option<PathBuf>,
        enforced: Enforced,
        fds: Vec<OwnedFd>,
    ) -> Option<Cell> {
        let mut fds = fds.into_iter();
        let (pidfd, exit) = (fds.next()?, fds.next()?);
        let listener = fds.next().map(TcpListener::from);
        let cell = Cell { pid, command, pidfd, leaf, enforced, exit: Some(exit), listener };
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

    /// Host pid of the command itself, as it was when the cell started; it may have ended since.
    #[must_use]
    pub fn command_pid(&self) -> i32 {
        self.command
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
        let read = |name: &str| std::fs::read_to_string(self.leaf.as_ref()?.join(name)).ok();
        let number = |text: &str| text.trim().parse::<u64>().ok();
        if let Some(bytes) = read("memory.current").as_deref().and_then(number) {
            return Some(bytes);
        }
        // The list in the cgroup also names what a /proc with hidden processes keeps from the daemon.
        match read("cgroup.procs") {
            Some(held) => Some(
                held.lines().filter_map(|line| resident_pages(line.parse().ok()?)).sum::<u64>()
                    * page_size()?,
            ),
            None => resident_tree(self.pid).or_else(|| resident_tree(self.command)),
        }
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

fn page_size() -> Option<u64> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    u64::try_from(size).ok()
}

fn resident_pages(pid: i32) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split(' ').nth(1)?.parse().ok()
}

/// Sums the resident sets of `root` and everything below it. Orphans hang on the reaper, so from there the tree is
/// whole; a service with `ProtectProc=invisible` cannot see the reaper, and then the command's tree must do.
fn resident_tree(root: i32) -> Option<u64> {
    const MOST: usize = 65_536;
    let children = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let mut pages = resident_pages(root)?;
    let mut waiting = vec![root];
    let mut seen = 0;
    while let Some(pid) = waiting.pop() {
        let list = match children(pid) {
            Ok(list) => list,
            Err(_) if pid == root => return None,
            // It ended meanwhile.
            Err(_) => continue,
        };
        for child in list.split_whitespace().filter_map(|field| field.parse::<i32>().ok()) {
            pages += resident_pages(child).unwrap_or(0);
            seen += 1;
            if seen < MOST {
                waiting.push(child);
            }
        }
    }
    Some(pages * page_size()?)
}

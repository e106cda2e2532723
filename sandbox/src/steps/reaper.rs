//! Step "reaper": the first process forks the command and stays behind to reap, forward signals and report.
//!
//! When the command ends the reaper tells how, then ends itself, and the kernel kills whatever else is in the cell.
//! It cannot be traced by the agent, owns nothing but the exit pipe, and may make a handful of system calls.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin};

use super::{At, Done, Plan};
use crate::report::{RECORD_EXITED, RECORD_SIGNALED, Step};
use crate::sys::{self, Fork};

const FORWARDED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Blocks what the reaper waits for, then forks. `None` in the command's process.
pub(crate) fn fork() -> Done<Option<Pid>> {
    let mut waited = SigSet::empty();
    FORWARDED.iter().for_each(|signal| waited.add(*signal));
    waited.add(Signal::SIGCHLD);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&waited), None).at(Step::Reaper, "block signals")?;
    match sys::fork().at(Step::Reaper, "fork the command")? {
        Fork::Child => Ok(None),
        Fork::Parent(pid, _) => Ok(Some(Pid::from_raw(pid))),
    }
}

/// The rest of the reaper's life.
pub(crate) fn stay(plan: &Plan<'_>, command: Pid, exit: OwnedFd) -> ! {
    if settle(plan, &exit).is_err() {
        sys::exit_now(71);
    }
    let mut waited = SigSet::empty();
    FORWARDED.iter().for_each(|signal| waited.add(*signal));
    waited.add(Signal::SIGCHLD);
    loop {
        // Reap before waiting: a command that ended before the mask was set left its signal pending anyway.
        if let Some((kind, value)) = reap(command) {
            let _ = nix::unistd::write(std::io::stdin().as_fd(), &[kind, value]);
            sys::exit_now(0);
        }
        match waited.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                let _ = kill(command, signal);
            }
        }
    }
}

/// Puts the exit pipe at 0, closes all else, and goes under the reaper's own small filter.
fn settle(plan: &Plan<'_>, exit: &OwnedFd) -> Done {
    dup2_stdin(exit).at(Step::Reaper, "keep the exit pipe")?;
    sys::close_from(1).at(Step::Reaper, "close all other descriptors")?;
    super::seccomp::install(&plan.policies.reaper)
}

/// Reaps everything that has ended; the command's end as an exit record.
fn reap(command: Pid) -> Option<(u8, u8)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => {
                return Some((RECORD_EXITED, code.to_le_bytes()[0]));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Some((RECORD_SIGNALED, (signal as i32).to_le_bytes()[0]));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(_) => {}
        }
    }
}

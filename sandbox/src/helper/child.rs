//! The new process: builds its own cell, then becomes reaper and command. Never returns to the helper's code.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::passing::{receive, send_with_fds};
use crate::report::{Step, StepError};
use crate::steps::exec::Command;
use crate::steps::verify::{self, Inside};
use crate::steps::{self, Done, Plan, reaper, seccomp};
use crate::sys;

/// What the new process tells the helper.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Everything is in place; the listener comes with it.
    Ready(Inside),
    Failed(StepError),
}

impl Word {
    fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Word::Ready(inside) => {
                out.u8(1).flag(inside.nested_refused);
                out.flag(inside.canary_hidden.is_some()).flag(inside.canary_hidden == Some(true));
            }
            Word::Failed(failed) => failed.encode(out.u8(2)),
        }
        out.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Word, DecodeError> {
        let mut input = Decoder::new(bytes);
        match input.u8()? {
            1 => {
                let nested_refused = input.flag()?;
                let (tried, hidden) = (input.flag()?, input.flag()?);
                Ok(Word::Ready(Inside { nested_refused, canary_hidden: tried.then_some(hidden) }))
            }
            2 => Ok(Word::Failed(StepError::decode(&mut input)?)),
            _ => Err(DecodeError::BadValue),
        }
    }
}

/// Ends the process even if something panics: the helper's own stack lies below.
struct NeverReturn;

impl Drop for NeverReturn {
    fn drop(&mut self) {
        sys::exit_now(70);
    }
}

/// Everything from the moment after `clone`.
pub(super) fn live(plan: &Plan<'_>, channel: &OwnedFd, exit: OwnedFd, stdio: &[OwnedFd; 3]) -> ! {
    let _guard = NeverReturn;
    let failed = match start(plan, channel, exit, stdio) {
        Ok(never) => match never {},
        Err(failed) => failed,
    };
    let _ = send_with_fds(channel.as_fd(), &Word::Failed(failed).encode(), &[]);
    sys::exit_now(72)
}

fn start(
    plan: &Plan<'_>,
    channel: &OwnedFd,
    exit: OwnedFd,
    stdio: &[OwnedFd; 3],
) -> Done<std::convert::Infallible> {
    hear(channel.as_fd(), Step::UidMap)?;
    let command = Command::new(plan)?;
    let listener = steps::build(plan, stdio)?;
    plan.reach(Step::Reaper)?;
    if let Some(pid) = reaper::fork()? {
        reaper::stay(plan, pid, exit);
    }
    drop(exit);
    plan.reach(Step::Seccomp)?;
    seccomp::install(&plan.policies.cell)?;
    plan.reach(Step::Canary)?;
    let inside = verify::from_inside(plan)?;
    let fds: Vec<BorrowedFd<'_>> = listener.iter().map(AsFd::as_fd).collect();
    send_with_fds(channel.as_fd(), &Word::Ready(inside).encode(), &fds)
        .map_err(|_| StepError::check(Step::Verify, "the helper is gone"))?;
    hear(channel.as_fd(), Step::Verify)?;
    if plan.is_trial() {
        sys::exit_now(0);
    }
    plan.reach(Step::Exec)?;
    Err(command.run())
}

/// Waits for the helper's word to go on. Silence means that the helper is dead: end here.
fn hear(channel: BorrowedFd<'_>, step: Step) -> Done {
    let mut byte = [0];
    let answer: io::Result<usize> = receive(channel, &mut byte).map(|received| received.length);
    match answer {
        Ok(1) => Ok(()),
        _ => Err(StepError::check(step, "the helper is gone")),
    }
}

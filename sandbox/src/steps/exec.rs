//! Step "exec": the command, with exactly the environment that was asked for.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::{At, Done, Plan};
use crate::report::{Step, StepError};
use crate::sys;

/// Program, arguments and environment in the form the kernel wants, made before anything is locked.
pub(crate) struct Command {
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    pub(crate) fn new(plan: &Plan<'_>) -> Done<Command> {
        let text = |value: &[u8]| {
            CString::new(value).map_err(|_| StepError::check(Step::Exec, "a string holds a NUL byte"))
        };
        let argv = plan.parts.argv.iter().map(|a| text(a.as_bytes())).collect::<Done<Vec<_>>>()?;
        let pair = |name: &OsStr, value: &OsStr| text(&[name.as_bytes(), b"=", value.as_bytes()].concat());
        let env = plan.parts.env.iter().map(|(name, value)| pair(name, value)).collect::<Done<Vec<_>>>()?;
        Ok(Command { argv, env })
    }

    /// Returns only if it failed.
    pub(crate) fn run(&self) -> StepError {
        if let Err(failed) = ready() {
            return failed;
        }
        let Some(program) = self.argv.first() else {
            return StepError::check(Step::Exec, "the command is empty");
        };
        let errno = sys::exec(program, &self.argv, &self.env);
        StepError::new(Step::Exec, errno, format!("execute {}", program.to_string_lossy()))
    }
}

/// Undoes what the helper set for itself and `execve` would keep: ignored signals and the signal mask.
fn ready() -> Done {
    std::env::set_current_dir("/workspace").at(Step::Exec, "enter /workspace")?;
    for signal in 1..=64 {
        match sys::default_signal(signal) {
            // The two signals that nobody can ignore cannot be set either.
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(errno) => return Err(errno).at(Step::Exec, "restore the usual effect of signals"),
        }
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).at(Step::Exec, "unblock signals")
}

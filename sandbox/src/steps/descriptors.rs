//! Step "descriptors": stdin, stdout and stderr of the cell, a session of its own, all else closed at exec.

use std::os::fd::OwnedFd;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::{At, Done};
use crate::report::Step;
use crate::sys;

pub(crate) fn place(stdio: &[OwnedFd; 3]) -> Done {
    setsid().at(Step::Descriptors, "start a session")?;
    dup2_stdin(&stdio[0]).at(Step::Descriptors, "place stdin")?;
    dup2_stdout(&stdio[1]).at(Step::Descriptors, "place stdout")?;
    dup2_stderr(&stdio[2]).at(Step::Descriptors, "place stderr")?;
    sys::cloexec_from(3).at(Step::Descriptors, "close all other descriptors at exec")
}

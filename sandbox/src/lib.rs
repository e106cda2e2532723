//! Runs one command in a cell: namespaces, seccomp, Landlock, cgroups, no privileges.
mod cell;
mod codec;
#[doc(hidden)]
pub mod helper;
mod launcher;
mod passing;
mod policy;
mod report;
mod spec;
mod steps;
mod sys;
mod tier;
mod wire;

pub use cell::Cell;
pub use launcher::{LaunchError, Launcher, LauncherConfig, Testing};
pub use nix::sys::signal::Signal;
pub use passing::{recv_with_fds, send_with_fds};
pub use report::{CgroupLimits, End, Enforced, ExitStatus, NAMESPACES, Step, StepError};
pub use spec::{CellParts, CellSpec, Limits, MAX_ETC_FILES, MAX_PROGRAMS, MAX_STRINGS, SpecError};
pub use tier::{HelperReport, LANDLOCK_WITH_SCOPES, Tier};

//! The steps of a launch inside the new process, in order, one file each. `lib.rs` tells the order and why.
//!
//! Everything here runs in a copy of the helper that has one thread and ends by `execve` or `_exit`. Invariant: a
//! step either does all it says or returns an error that names it; no error is passed over unless its line says why.

pub(crate) mod binds;
pub(crate) mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod descriptors;
pub(crate) mod dev;
pub(crate) mod etc;
pub(crate) mod exec;
pub(crate) mod identity;
pub(crate) mod landlock;
pub(crate) mod limits;
pub(crate) mod loopback;
pub(crate) mod namespaces;
pub(crate) mod nested;
pub(crate) mod pivot;
pub(crate) mod proc;
pub(crate) mod reaper;
pub(crate) mod root;
pub(crate) mod seccomp;
pub(crate) mod sources;
pub(crate) mod verify;

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::report::{Step, StepError};
use crate::spec::CellParts;

pub(crate) type Done<T = ()> = Result<T, StepError>;

/// The ids of a cell: always 1000 inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) host_uid: u32,
    pub(crate) host_gid: u32,
    /// The ids belong to this agent alone.
    pub(crate) own: bool,
}

/// Uid and gid inside every cell.
pub(crate) const INSIDE_ID: u32 = 1000;

/// A host path that was opened by the daemon, and the inode it must still lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// Everything a launch needs to know, decided before the new process exists.
pub(crate) struct Plan<'a> {
    pub(crate) parts: &'a CellParts,
    pub(crate) ids: Ids,
    /// Workspace, home and programs; empty in the helper's trial launch, which executes nothing.
    pub(crate) sources: Vec<Source>,
    pub(crate) host: &'a root::HostLayout,
    pub(crate) policies: &'a crate::policy::Policies,
    pub(crate) landlock: Option<u32>,
    pub(crate) canary: Option<&'a std::path::Path>,
    /// A memory cgroup holds the cell, so that no limit per process is needed.
    pub(crate) memory_cgroup: bool,
    /// Test hook: this step fails with this error number.
    pub(crate) fail: Option<(Step, i32)>,
}

impl Plan<'_> {
    /// Set only in the trial launch.
    pub(crate) fn is_trial(&self) -> bool {
        self.sources.is_empty()
    }

    /// Fails if a test asked for this step to fail.
    pub(crate) fn reach(&self, step: Step) -> Done {
        match self.fail {
            Some((chosen, errno)) if chosen == step && !self.is_trial() => {
                Err(StepError { step, errno, detail: "made to fail by a test".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// Names the step and the object of a failed call.
pub(crate) trait At<T> {
    fn at(self, step: Step, what: impl Display) -> Done<T>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step, what: impl Display) -> Done<T> {
        self.map_err(|errno| StepError::new(step, errno, what.to_string()))
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: Step, what: impl Display) -> Done<T> {
        self.map_err(|error| StepError {
            step,
            errno: error.raw_os_error().unwrap_or(0),
            detail: what.to_string(),
        })
    }
}

/// Steps 4 to 11, in the process that becomes the cell's reaper. Returns the listener, where one was asked for.
pub(crate) fn build(plan: &Plan<'_>, stdio: &[OwnedFd; 3]) -> Done<Option<OwnedFd>> {
    plan.reach(Step::Sources)?;
    let trees = sources::clone_all(plan)?;
    plan.reach(Step::Identity)?;
    identity::assume(plan)?;
    plan.reach(Step::Root)?;
    root::build(plan, &trees)?;
    plan.reach(Step::Etc)?;
    etc::write(plan, &trees)?;
    plan.reach(Step::Dev)?;
    dev::build(plan, &trees)?;
    plan.reach(Step::Proc)?;
    proc::mount()?;
    plan.reach(Step::NestedBan)?;
    nested::ban()?;
    plan.reach(Step::Binds)?;
    binds::attach(plan, &trees)?;
    drop(trees);
    plan.reach(Step::Pivot)?;
    pivot::enter()?;
    plan.reach(Step::Loopback)?;
    loopback::up()?;
    plan.reach(Step::Listener)?;
    let listener = loopback::listen(plan)?;
    plan.reach(Step::Limits)?;
    limits::apply(plan)?;
    plan.reach(Step::Capabilities)?;
    capabilities::drop_all()?;
    plan.reach(Step::Descriptors)?;
    descriptors::place(stdio)?;
    plan.reach(Step::Landlock)?;
    landlock::restrict(plan)?;
    Ok(listener)
}

//! Step "bind sources": detached copies of every host mount that the cell will see, taken while the process still
//! has the daemon's uid, so that parents closed to others (mode 0700) can be walked.
//!
//! A descriptor opened by the daemon cannot be bound itself: it belongs to another mount namespace. So the path is
//! opened again here without following any symlink, and must lead to the very inode the daemon opened.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, fstat};

use super::dev::NODES;
use super::etc::HOST_ETC;
use super::root::Entry;
use super::{At, Done, Plan, Source};
use crate::report::{Step, StepError};
use crate::sys::{self, Reach};

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;

/// Detached mounts, their attributes already set.
pub(crate) struct Trees {
    /// `/usr` and, on hosts without a merged `/usr`, real directories beside it.
    pub(crate) system: Vec<(&'static str, OwnedFd)>,
    /// Path under `/etc`, and whether it is a directory.
    pub(crate) etc: Vec<(&'static str, OwnedFd)>,
    pub(crate) dev: Vec<(&'static str, OwnedFd)>,
    /// Workspace, home, programs, in the order of the plan.
    pub(crate) own: Vec<OwnedFd>,
}

pub(crate) fn clone_all(plan: &Plan<'_>) -> Done<Trees> {
    let none: Option<&str> = None;
    // Nothing mounted from here on may travel back to the host.
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .at(Step::Sources, "make all mounts private")?;
    // The kernel's first victim under memory pressure is an agent, not the daemon. Raising the score needs no right.
    std::fs::write("/proc/self/oom_score_adj", "500").at(Step::Sources, "raise the OOM score")?;
    let mut trees = Trees { system: Vec::new(), etc: Vec::new(), dev: Vec::new(), own: Vec::new() };
    for (name, entry) in &plan.host.entries {
        if matches!(entry, Entry::Directory) {
            let tree = host_tree(&format!("/{name}"), RDONLY | NOSUID | NODEV)?;
            trees.system.push((name, tree));
        }
    }
    for name in HOST_ETC {
        match host_tree(&format!("/etc/{name}"), RDONLY | NOSUID | NODEV) {
            Ok(tree) => trees.etc.push((name, tree)),
            // Not every host has each of them, and every program copes with their absence.
            Err(failed) if failed.errno == Errno::ENOENT as i32 => {}
            Err(failed) => return Err(failed),
        }
    }
    for name in NODES {
        // A character device on a read-only mount can still be written to; its mode and times cannot be changed.
        trees.dev.push((name, host_tree(&format!("/dev/{name}"), RDONLY | NOSUID | NOEXEC)?));
    }
    for (index, source) in plan.sources.iter().enumerate() {
        let attributes = if index < 2 { NOSUID | NODEV } else { RDONLY | NOSUID | NODEV };
        trees.own.push(verified_tree(source, attributes)?);
    }
    Ok(trees)
}

/// A path that belongs to the host's administrator: symlinks on the way are the host's own business.
fn host_tree(path: &str, attributes: u64) -> Done<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let found = open(path, flags, Mode::empty()).at(Step::Sources, format_args!("open {path}"))?;
    detached(&found, Path::new(path), attributes)
}

fn verified_tree(source: &Source, attributes: u64) -> Done<OwnedFd> {
    let path = &source.path;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found = openat2(AT_FDCWD, path, how).at(Step::Sources, format_args!("open {}", path.display()))?;
    let stat = fstat(&found).at(Step::Sources, format_args!("stat {}", path.display()))?;
    if (stat.st_dev, stat.st_ino) != (source.device, source.inode) {
        let what = format!("{} is no longer what the daemon opened", path.display());
        return Err(StepError::check(Step::Sources, what));
    }
    detached(&found, path, attributes)
}

fn detached(found: &OwnedFd, path: &Path, attributes: u64) -> Done<OwnedFd> {
    let tree =
        sys::open_tree_clone(found.as_fd()).at(Step::Sources, format_args!("copy {}", path.display()))?;
    sys::mount_setattr(tree.as_fd(), Reach::Recursive, attributes)
        .at(Step::Sources, format_args!("restrict {}", path.display()))?;
    Ok(tree)
}

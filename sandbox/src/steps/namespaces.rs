//! Steps "namespaces" and "uid map": the new process in seven namespaces of its own, and who it is on the host.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::cgroup::Leaf;
use super::{At, Done, INSIDE_ID, Ids};
use crate::report::Step;
use crate::sys::{self, Fork};

const ALL: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// `None` in the new process; pid and pidfd in the helper.
pub(crate) fn clone(leaf: Option<&Leaf>) -> Done<Option<(i32, OwnedFd)>> {
    let into = leaf.map(|leaf| leaf.directory.as_fd());
    let (fork, inside_leaf) = match sys::clone3(ALL, into) {
        // Kernels before 5.7, and outer sandboxes that cannot look into clone3's structure.
        Err(Errno::ENOSYS | Errno::E2BIG | Errno::EINVAL) => (sys::clone(ALL), false),
        answer => (answer, true),
    };
    match fork.at(Step::Namespaces, "clone into new namespaces")? {
        Fork::Child => Ok(None),
        Fork::Parent(pid, pidfd) => {
            let pidfd = match pidfd {
                Some(pidfd) => pidfd,
                None => sys::pidfd_open(pid).at(Step::Namespaces, "open a pidfd")?,
            };
            if let (Some(leaf), false) = (leaf, inside_leaf) {
                // The process waits for its maps, so it has not done or started anything yet.
                leaf.adopt(pid)?;
            }
            Ok(Some((pid, pidfd)))
        }
    }
}

/// One uid and one gid, and no change of groups, ever.
pub(crate) fn map(pid: i32, ids: Ids) -> Done {
    let write = |name: &str, text: &str| {
        std::fs::write(format!("/proc/{pid}/{name}"), text).at(Step::UidMap, format_args!("write {name}"))
    };
    write("setgroups", "deny")?;
    write("uid_map", &format!("{INSIDE_ID} {} 1", ids.host_uid))?;
    write("gid_map", &format!("{INSIDE_ID} {} 1", ids.host_gid))
}

//! Step "dev": five harmless devices, the usual links, a private `/dev/shm`. No terminal, no `ptmx`.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::root::{attach, directory, tmpfs};
use super::sources::Trees;
use super::{At, Done, Plan};
use crate::report::Step;

/// The host devices bound into every cell.
pub(crate) const NODES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

pub(crate) fn build(plan: &Plan<'_>, trees: &Trees) -> Done {
    for (name, tree) in &trees.dev {
        let point = Path::new("dev").join(name);
        std::fs::write(&point, b"").at(Step::Dev, format_args!("make /dev/{name}"))?;
        attach(tree, &point)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, Path::new("dev").join(name)).at(Step::Dev, format_args!("link /dev/{name}"))?;
    }
    directory("dev/shm")?;
    let limits = &plan.parts.limits;
    tmpfs("dev/shm", &format!("size={},nr_inodes={},mode=1777", limits.tmpfs_bytes, limits.tmpfs_inodes))
}

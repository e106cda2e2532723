//! Step "binds": `/tmp` with its caps, the workspace, the home, the programs.

use std::path::Path;

use super::root::{self, tmpfs};
use super::sources::Trees;
use super::{At, Done, Plan};
use crate::report::Step;

pub(crate) fn attach(plan: &Plan<'_>, trees: &Trees) -> Done {
    let limits = &plan.parts.limits;
    tmpfs("tmp", &format!("size={},nr_inodes={},mode=1777", limits.tmpfs_bytes, limits.tmpfs_inodes))?;
    let mut own = trees.own.iter();
    for point in ["workspace", "home/agent"] {
        if let Some(tree) = own.next() {
            root::attach(tree, Path::new(point))?;
        }
    }
    for ((_, inside), tree) in plan.parts.programs.iter().zip(own) {
        let point = inside.strip_prefix("/").unwrap_or(inside);
        if let Some(parent) = point.parent() {
            std::fs::create_dir_all(parent).at(Step::Binds, format_args!("make /{}", parent.display()))?;
        }
        std::fs::write(point, b"").at(Step::Binds, format_args!("make /{}", point.display()))?;
        root::attach(tree, point)?;
    }
    Ok(())
}

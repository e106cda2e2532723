//! Step "pivot": the new tree becomes the root, the old one is detached, the root goes read-only.

use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::pivot_root;

use super::{At, Done};
use crate::report::Step;
use crate::sys::{self, Reach};

pub(crate) fn enter() -> Done {
    const RDONLY: u64 = 1;
    // With the same directory twice the old root ends up on top of the new one, and no place for it is needed.
    pivot_root(".", ".").at(Step::Pivot, "pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).at(Step::Pivot, "detach the old root")?;
    std::env::set_current_dir("/").at(Step::Pivot, "enter the new root")?;
    let root =
        open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).at(Step::Pivot, "open the new root")?;
    sys::mount_setattr(root.as_fd(), Reach::One, RDONLY).at(Step::Pivot, "make the root read-only")
}

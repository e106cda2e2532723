//! Step "nested namespace ban": the new user namespace may have no children, ever.
//!
//! A child user namespace would give back full capabilities over itself, and with them the mount calls that undo
//! read-only binds. One write bans it in the kernel, besides the seccomp rule. It must go through the old `/proc`,
//! which the next step detaches: the cell's own has no `sys`. The limit belongs to this namespace, not to the host.

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{At, Done};
use crate::report::Step;

const SYSCTL: &str = "sys/user/max_user_namespaces";

pub(crate) fn ban() -> Done {
    if std::fs::write(format!("/proc/{SYSCTL}"), "0").is_ok() {
        return Ok(());
    }
    // A unit with ProtectKernelTunables has a read-only /proc/sys: write through a complete /proc of our own, which
    // stands in the new root for this moment only.
    let (none, flags) = (None::<&str>, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    mount(Some("proc"), "opt", Some("proc"), flags, none).at(Step::NestedBan, "mount a complete /proc")?;
    let written = std::fs::write(format!("opt/{SYSCTL}"), "0");
    umount2("opt", MntFlags::MNT_DETACH).at(Step::NestedBan, "unmount the complete /proc")?;
    written.at(Step::NestedBan, "write 0 to user.max_user_namespaces")
}

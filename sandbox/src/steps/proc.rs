//! Step "proc": the cell's own `/proc`, processes only.
//!
//! `subset=pid` leaves out `/proc/sys`, `kcore`, `keys`, `sysrq-trigger` and all the rest; `hidepid=ptraceable`
//! leaves out what the reader may not trace, which is the reaper.

use nix::mount::MsFlags;

use super::{At, Done};
use crate::report::Step;

fn mount_options(options: &str) -> Result<(), nix::errno::Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("proc"), "proc", Some("proc"), flags, Some(options))
}

pub(crate) fn mount() -> Done {
    mount_options("subset=pid,hidepid=ptraceable").at(Step::Proc, "mount the cell's own /proc")
}

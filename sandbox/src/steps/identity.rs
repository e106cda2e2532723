//! Step "identity": become uid and gid 1000 of the new user namespace, and carry the agent's name as host name.
//!
//! Going from one unprivileged id to another keeps the capabilities held over the new namespaces; only now can the
//! process own files in them.

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setresgid, setresuid};

use super::{At, Done, INSIDE_ID, Plan};
use crate::report::Step;
use crate::sys;

pub(crate) fn assume(plan: &Plan<'_>) -> Done {
    let (uid, gid) = (Uid::from_raw(INSIDE_ID), Gid::from_raw(INSIDE_ID));
    setresgid(gid, gid, gid).at(Step::Identity, "become gid 1000")?;
    setresuid(uid, uid, uid).at(Step::Identity, "become uid 1000")?;
    match sys::set_host_name(&plan.parts.agent) {
        // A unit with ProtectHostname= forbids the call even here; the name is a comfort, not a wall.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno).at(Step::Identity, "set the host name"),
    }
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

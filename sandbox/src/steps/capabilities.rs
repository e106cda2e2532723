//! Step "capabilities": none left in any set, none to be had again, no new privileges.

use caps::{CapSet, CapsHashSet};
use nix::errno::Errno;

use super::{At, Done};
use crate::report::{Step, StepError};
use crate::sys;

/// `SECBIT_NOROOT`, `NO_SETUID_FIXUP`, `KEEP_CAPS` off, `NO_CAP_AMBIENT_RAISE`, each with its lock.
const SECUREBITS: libc::c_ulong = 0b1110_1111;

pub(crate) fn drop_all() -> Done {
    // Counts up until the kernel knows no further capability, so that future ones go too.
    for capability in 0..64 {
        match sys::prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(_) => {}
            Err(Errno::EINVAL) => break,
            Err(errno) => {
                return Err(errno).at(Step::Capabilities, format_args!("drop capability {capability}"));
            }
        }
    }
    sys::prctl(libc::PR_SET_SECUREBITS, SECUREBITS).at(Step::Capabilities, "lock the securebits")?;
    let none = CapsHashSet::new();
    caps::clear(None, CapSet::Ambient).map_err(|error| failed(&error))?;
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &none).map_err(|error| failed(&error))?;
    }
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at(Step::Capabilities, "set no_new_privs")?;
    // After the last change of credentials, which would clear it: this process ends with the helper.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as _)
        .at(Step::Capabilities, "tie the cell to the helper")?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0).at(Step::Capabilities, "become untraceable")?;
    Ok(())
}

fn failed(error: &caps::errors::CapsError) -> StepError {
    StepError::check(Step::Capabilities, error.to_string())
}

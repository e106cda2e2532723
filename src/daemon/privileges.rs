//! Giving up every privilege after the helper has been started and before anything is read from outside.

use caps::{CapSet, CapsHashSet};

/// A privilege could not be given up; the daemon must not go on.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// A capability set could not be emptied.
    #[error("cannot give up the {set:?} capabilities")]
    Capabilities {
        /// Which set.
        set: CapSet,
        /// Why.
        #[source]
        source: caps::errors::CapsError,
    },
    /// `no_new_privs` could not be set.
    #[error("cannot set no_new_privs")]
    NoNewPrivileges(#[source] nix::errno::Errno),
    /// A capability is still there.
    #[error("the daemon still has capabilities after giving them up: {0:?}")]
    Left(CapsHashSet),
}

/// Empties every capability set and forbids gaining any by exec. Called while the process has one thread.
pub(super) fn drop_all() -> Result<(), PrivilegeError> {
    // The order matters: the ambient set goes with the others, and an effective set can only shrink.
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|source| PrivilegeError::Capabilities { set, source })?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(PrivilegeError::NoNewPrivileges)?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Ambient] {
        let left = caps::read(None, set).map_err(|source| PrivilegeError::Capabilities { set, source })?;
        if !left.is_empty() {
            return Err(PrivilegeError::Left(left));
        }
    }
    Ok(())
}

//! Gives a directory or a file to an agent. Works on the descriptor alone, so no path can be swapped meanwhile.
//!
//! Invariant: only what belongs to the daemon's user or to the agents' range ever changes hands, and regular files
//! only with a single link.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};
use nix::unistd::{Gid, Uid, fchownat};

use super::setup::Settings;

pub(super) fn prepare(
    settings: &Settings,
    slot: Option<u16>,
    path: &Path,
    fds: &[OwnedFd],
) -> Result<(), String> {
    let [target] = fds else { return Err("one descriptor is needed".to_owned()) };
    let name = path.display();
    let stat = fstat(target).map_err(|errno| format!("cannot look at {name}: {errno}"))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let owned = kind == SFlag::S_IFDIR || (kind == SFlag::S_IFREG && stat.st_nlink == 1);
    if !owned {
        return Err(format!("{name} is neither a directory nor a regular file with one link"));
    }
    let range = settings.hello.uid_base..settings.hello.uid_base + u32::from(settings.hello.uid_count);
    if stat.st_uid != settings.uid.as_raw() && !range.contains(&stat.st_uid) {
        return Err(format!("{name} belongs to uid {}: neither the daemon nor an agent", stat.st_uid));
    }
    let ids = match slot {
        Some(_) => settings.ids(slot)?,
        // Shared: nothing changes hands, the daemon's own user keeps it.
        None => {
            crate::steps::Ids { host_uid: settings.uid.as_raw(), host_gid: settings.gid.as_raw(), own: false }
        }
    };
    let mode = match (kind == SFlag::S_IFDIR, ids.own) {
        (true, true) => 0o2770,
        (false, true) => 0o660,
        (true, false) => 0o700,
        (false, false) => 0o600,
    };
    let now = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
    if now == (ids.host_uid, settings.gid.as_raw(), mode) {
        return Ok(());
    }
    let own = |uid: Uid| {
        let gid: Option<Gid> = Some(settings.gid);
        fchownat(target, "", Some(uid), gid, AtFlags::AT_EMPTY_PATH)
            .map_err(|errno| format!("cannot give {name} to uid {uid}: {errno}"))
    };
    // Only an owner may change the mode, and the helper has no right over others' files: so it takes, then gives.
    if stat.st_uid != settings.uid.as_raw() {
        own(settings.uid)?;
    }
    // The descriptor may be O_PATH, which fchmod refuses; this link leads to the same inode and nowhere else.
    let link = format!("/proc/self/fd/{}", target.as_raw_fd());
    let mode = Mode::from_bits_truncate(mode);
    fchmodat(nix::fcntl::AT_FDCWD, link.as_str(), mode, FchmodatFlags::FollowSymlink).map_err(|errno| {
        let hint = if mode.contains(Mode::S_ISGID) && errno == Errno::EPERM {
            " (the unit must not set RestrictSUIDSGID=: it forbids directories whose group is inherited)"
        } else {
            ""
        };
        format!("cannot set the mode of {name}: {errno}{hint}")
    })?;
    own(Uid::from_raw(ids.host_uid))
}

//! What this machine offers for cells, in words.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use skep_sandbox::{HelperReport, Launcher};

use crate::agent::layers;
use crate::model::MachineOverview;

/// Our own leaf of the delegated subtree: a cgroup with processes of its own cannot pass controllers on.
const OWN_LEAF: &str = "supervisor";

/// The root of the cgroup subtree that systemd delegated to us, after moving ourselves into a leaf of it; `None` when we
/// run outside of one. Called while we are the only process in it.
///
/// A delegated subtree belongs to the service's user (`Delegate=` with `User=`); a cgroup that belongs to somebody else,
/// or to root, is not ours to divide. With `DelegateSubgroup=` (systemd 254) we are in a leaf already.
pub(super) fn delegated_cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let user = nix::unistd::geteuid();
    let ours =
        |dir: &Path| !user.is_root() && fs::metadata(dir).is_ok_and(|about| about.uid() == user.as_raw());
    if own.ends_with(OWN_LEAF) {
        return own.parent().filter(|root| ours(root)).map(Path::to_owned);
    }
    if !ours(&own) {
        return None;
    }
    let leaf = own.join(OWN_LEAF);
    let moved = fs::create_dir(&leaf)
        .or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
        .and_then(|()| fs::write(leaf.join("cgroup.procs"), "0"));
    if let Err(error) = moved {
        // The helper then finds that it cannot pass controllers on, and says so.
        tracing::warn!(%error, "cannot move into {}", leaf.display());
    }
    Some(own)
}

/// The machine as the helper found it.
pub(super) fn describe(launcher: &Launcher) -> MachineOverview {
    let found: &HelperReport = launcher.capabilities();
    let layers = match &found.trial {
        Some(Ok(enforced)) => layers(enforced),
        _ => Vec::new(),
    };
    MachineOverview {
        tier: launcher.tier().to_string(),
        layers,
        missing: found.missing(),
        claude_version: None,
        memory_available: None,
    }
}

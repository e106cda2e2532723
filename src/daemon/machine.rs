//! What this machine offers for cells, in words.

use std::path::PathBuf;

use skep_sandbox::{HelperReport, Launcher};

use crate::agent::layers;
use crate::model::MachineOverview;

/// The cgroup subtree that systemd delegated to us; `None` when we run outside of one.
///
/// With `Delegate=` our own cgroup is ours to divide. On systemd 254 and later the unit names a subgroup for us
/// (`DelegateSubgroup=`); the subtree's root is then its parent.
pub(super) fn delegated_cgroup() -> Option<PathBuf> {
    // Only the unit can say that the subtree is ours: a developer's shell is in somebody else's.
    std::env::var_os("SKEP_CGROUP_DELEGATED")?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = PathBuf::from("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    root.join("cgroup.controllers").is_file().then_some(root)
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

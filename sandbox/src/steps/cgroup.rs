//! Step "cgroup": one leaf per cell under the subtree that systemd delegated to the service.
//!
//! Only cgroup version 2. Limits are written where the controller is there and read back; a configured subtree that
//! cannot be used stops the launch.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{At, Done};
use crate::report::{CgroupLimits, Step};
use crate::spec::Limits;

/// The delegated subtree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    pub(crate) controllers: Vec<String>,
    pub(crate) can_kill: bool,
    next: u64,
}

/// One cell's cgroup; removed when dropped.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) path: PathBuf,
    pub(crate) directory: OwnedFd,
}

impl Tree {
    /// Takes the subtree over: leaves of an earlier helper are killed and removed, controllers are passed down.
    pub(crate) fn open(root: &Path) -> Result<Tree, String> {
        let explain = |what: &str, error: &io::Error| format!("{what} {}: {error}", root.display());
        let offered = std::fs::read_to_string(root.join("cgroup.controllers"))
            .map_err(|error| explain("read the controllers of", &error))?;
        for entry in std::fs::read_dir(root).map_err(|error| explain("list", &error))?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"cell-") {
                clear(&entry.path()).map_err(|error| explain("remove an old cell under", &error))?;
            }
        }
        for name in ["memory", "pids", "cpu"] {
            if offered.split_whitespace().any(|each| each == name) {
                // A controller that cannot be passed down is missing from the list read next.
                let _ = std::fs::write(root.join("cgroup.subtree_control"), format!("+{name}"));
            }
        }
        let passed = std::fs::read_to_string(root.join("cgroup.subtree_control"))
            .map_err(|error| explain("read the passed controllers of", &error))?;
        let controllers = passed.split_whitespace().map(str::to_owned).collect();
        let mut tree = Tree { root: root.to_owned(), controllers, can_kill: false, next: 0 };
        let leaf = tree.leaf(&Limits::default()).map_err(|failed| failed.to_string())?;
        tree.can_kill = leaf.path.join("cgroup.kill").exists();
        Ok(tree)
    }

    /// Makes the next leaf and writes its limits.
    pub(crate) fn leaf(&mut self, limits: &Limits) -> Done<Leaf> {
        let path = self.root.join(format!("cell-{}", self.next));
        self.next += 1;
        std::fs::create_dir(&path).at(Step::Cgroup, format_args!("make {}", path.display()))?;
        let directory = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&path)
            .at(Step::Cgroup, format_args!("open {}", path.display()))?;
        let leaf = Leaf { path, directory: directory.into() };
        if self.has("memory")
            && let Some(bytes) = limits.memory_bytes
        {
            leaf.write("memory.max", bytes)?;
            // No `memory.high`: without swap a cell above it has nothing to give back and hangs for minutes, asleep in the
            // kernel, where a kill would be over at once. No swap, which would only hide the limit; not every kernel has it.
            leaf.write_if_there("memory.swap.max", 0)?;
        }
        if self.has("pids") {
            leaf.write("pids.max", limits.pids)?;
        }
        if self.has("cpu") {
            leaf.write("cpu.weight", limits.cpu_weight)?;
            if let Some(percent) = limits.cpu_max_percent {
                leaf.write("cpu.max", format_args!("{} 100000", u64::from(percent) * 1000))?;
            }
        }
        Ok(leaf)
    }

    fn has(&self, name: &str) -> bool {
        self.controllers.iter().any(|each| each == name)
    }
}

impl Leaf {
    fn write(&self, name: &str, value: impl std::fmt::Display) -> Done {
        std::fs::write(self.path.join(name), value.to_string())
            .at(Step::Cgroup, format_args!("write {value} to {name}"))
    }

    fn write_if_there(&self, name: &str, value: u64) -> Done {
        if self.path.join(name).exists() { self.write(name, value) } else { Ok(()) }
    }

    /// Moves a process in, where `clone3` could not start it there.
    pub(crate) fn adopt(&self, pid: i32) -> Done {
        self.write("cgroup.procs", pid)
    }

    /// The limits that are in force.
    pub(crate) fn limits(&self) -> CgroupLimits {
        let text = |name: &str| std::fs::read_to_string(self.path.join(name)).ok();
        let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
        let percent = |line: String| -> Option<u64> {
            let (quota, period) = line.trim().split_once(' ')?;
            Some(quota.parse::<u64>().ok()? * 100 / period.parse::<u64>().ok()?.max(1))
        };
        CgroupLimits {
            memory_max: number("memory.max"),
            pids_max: number("pids.max"),
            cpu_weight: number("cpu.weight"),
            cpu_max_percent: text("cpu.max").and_then(percent),
            kill: self.path.join("cgroup.kill").exists(),
        }
    }

    /// The kernel has killed something in here for want of memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        let events = std::fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // A leaf that cannot be removed is empty of life at least, and the next helper tries again.
        let _ = clear(&self.path);
    }
}

/// Kills everything in a leaf and removes it.
fn clear(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    // The usual case: everything in it is dead already.
    while let Err(error) = std::fs::remove_dir(path) {
        if error.kind() == io::ErrorKind::NotFound {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(error);
        }
        if std::fs::write(path.join("cgroup.kill"), "1").is_err() {
            let held = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            for pid in held.lines().filter_map(|line| line.parse().ok()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

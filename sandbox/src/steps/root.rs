//! Step "root": a small tmpfs that holds nothing but mount points, links and generated files; `/usr` read-only.
//!
//! It is mounted over `/usr` of the old tree, whose copy is already taken: a place that every host has.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

use super::sources::Trees;
use super::{At, Done, Plan};
use crate::report::Step;
use crate::sys;

/// What a top-level name is on the host.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// Bound read-only.
    Directory,
    /// Made again as the same link.
    Link(PathBuf),
}

/// The system part of the host's root, read once when the helper starts.
#[derive(Debug)]
pub(crate) struct HostLayout {
    pub(crate) entries: Vec<(&'static str, Entry)>,
    /// The host's time zone: a link into `/usr`.
    pub(crate) localtime: Option<PathBuf>,
    pub(crate) timezone: Option<Vec<u8>>,
}

impl HostLayout {
    pub(crate) fn read() -> HostLayout {
        const NAMES: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
        let entry = |name: &'static str| {
            let path = Path::new("/").join(name);
            let kind = path.symlink_metadata().ok()?.file_type();
            if kind.is_dir() {
                Some((name, Entry::Directory))
            } else {
                std::fs::read_link(path).ok().map(|target| (name, Entry::Link(target)))
            }
        };
        let zone =
            std::fs::read_link("/etc/localtime").ok().filter(|to| to.starts_with("/usr/share/zoneinfo"));
        let timezone = std::fs::read("/etc/timezone").ok().filter(|text| text.len() < 128);
        HostLayout { entries: NAMES.into_iter().filter_map(entry).collect(), localtime: zone, timezone }
    }
}

pub(crate) fn build(plan: &Plan<'_>, trees: &Trees) -> Done {
    tmpfs("/usr", "size=4m,nr_inodes=1024,mode=0755")?;
    std::env::set_current_dir("/usr").at(Step::Root, "enter the new root")?;
    for name in ["dev", "etc", "home", "home/agent", "opt", "proc", "tmp", "var", "workspace"] {
        directory(name)?;
    }
    // Some programs insist on /var/tmp.
    symlink("../tmp", "var/tmp").at(Step::Root, "link /var/tmp")?;
    for (name, entry) in &plan.host.entries {
        match entry {
            Entry::Directory => directory(name)?,
            Entry::Link(target) => symlink(target, name).at(Step::Root, format_args!("link /{name}"))?,
        }
    }
    for (name, tree) in &trees.system {
        attach(tree, Path::new(name))?;
    }
    Ok(())
}

pub(crate) fn directory(path: impl AsRef<Path>) -> Done {
    let path = path.as_ref();
    std::fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .at(Step::Root, format_args!("make the directory /{}", path.display()))
}

/// Moves a detached mount onto `onto`, relative to the new root, without following a link.
pub(crate) fn attach(tree: &OwnedFd, onto: &Path) -> Done {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let point = open(onto, flags, Mode::empty())
        .at(Step::Root, format_args!("open /{} in the cell", onto.display()))?;
    sys::move_mount(tree.as_fd(), point.as_fd()).at(Step::Root, format_args!("mount /{}", onto.display()))
}

pub(crate) fn tmpfs(at: &str, options: &str) -> Done {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))
        .at(Step::Root, format_args!("mount a tmpfs on {at} ({options})"))
}

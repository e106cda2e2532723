//! What the helper does to itself before the first cell: capabilities, groups, limits, its own filter.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups};

use crate::policy::Policies;
use crate::steps::cgroup::Tree;
use crate::steps::root::HostLayout;
use crate::steps::verify::Baseline;
use crate::steps::{Ids, seccomp};
use crate::sys;
use crate::wire::Hello;

/// The three capabilities that give every agent its own host uid.
const KEPT: [Capability; 3] = [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_CHOWN];

/// Slots must lie far above every account of the system.
const LEAST_UID: u32 = 100_000;

/// Everything fixed once the first message has come.
pub(super) struct Settings {
    pub(super) hello: Hello,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) per_agent: bool,
    pub(super) landlock: Option<u32>,
    pub(super) cgroup: Option<Result<Tree, String>>,
    pub(super) host: HostLayout,
    pub(super) baseline: Baseline,
    pub(super) policies: Policies,
}

/// Standard input must be one end of a socket pair made by a process of the same user.
pub(super) fn check_socket(socket: BorrowedFd<'_>) -> io::Result<()> {
    let refuse = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let kind = getsockopt(&socket, sockopt::SockType)?;
    if kind != nix::sys::socket::SockType::SeqPacket {
        return refuse("standard input is not a packet socket; the daemon starts this program");
    }
    let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
    if peer.uid() != geteuid().as_raw() {
        return refuse("the peer is another user");
    }
    Ok(())
}

impl Settings {
    pub(super) fn establish(hello: Hello) -> Result<Settings, String> {
        let end = u64::from(hello.uid_base) + u64::from(hello.uid_count);
        // u32::MAX is "no id"; 65534 below stands for every unmapped one.
        if hello.uid_base < LEAST_UID || end >= u64::from(u32::MAX) {
            return Err(format!("the uid range must lie between {LEAST_UID} and 4294967294"));
        }
        let per_agent = keep_capabilities()? && hello.uid_count > 0;
        tighten()?;
        let landlock = if hello.without_landlock { None } else { sys::landlock_abi() };
        let cgroup = hello.cgroup.as_deref().map(Tree::open);
        let policies = Policies::compile();
        seccomp::install(&policies.helper).map_err(|failed| failed.to_string())?;
        let baseline = Baseline::read().map_err(|failed| failed.to_string())?;
        Ok(Settings {
            hello,
            uid: geteuid(),
            gid: getegid(),
            per_agent,
            landlock,
            cgroup,
            host: HostLayout::read(),
            baseline,
            policies,
        })
    }

    /// The host ids for a slot; never another agent's by default, and never root.
    pub(super) fn ids(&self, slot: Option<u16>) -> Result<Ids, String> {
        match slot {
            Some(_) if !self.per_agent => {
                Err("an own host user per agent needs CAP_SETUID, CAP_SETGID and CAP_CHOWN".to_owned())
            }
            Some(slot) if slot >= self.hello.uid_count => {
                Err(format!("uid slot {slot} is beyond the {} configured", self.hello.uid_count))
            }
            Some(slot) => {
                let id = self.hello.uid_base + u32::from(slot);
                Ok(Ids { host_uid: id, host_gid: id, own: true })
            }
            None if self.uid.is_root() || self.gid.as_raw() == 0 => {
                Err("a cell must not share the user or group root: give the agent a uid slot".to_owned())
            }
            None => Ok(Ids { host_uid: self.uid.as_raw(), host_gid: self.gid.as_raw(), own: false }),
        }
    }
}

/// Keeps those of the three capabilities that are held, and nothing else. `true`: all three are held.
fn keep_capabilities() -> Result<bool, String> {
    let explain = |error: caps::errors::CapsError| format!("cannot limit its capabilities: {error}");
    let held = caps::read(None, CapSet::Permitted).map_err(explain)?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|each| held.contains(each)).collect();
    if kept.contains(&Capability::CAP_SETGID) {
        // The service's supplementary groups must not follow into cells.
        setgroups(&[]).map_err(|errno| format!("cannot clear its supplementary groups: {errno}"))?;
    }
    if held.contains(&Capability::CAP_SETPCAP) {
        for number in 0..64 {
            let keep = KEPT.iter().any(|each| u64::from(each.index()) == number);
            if !keep && sys::prctl(libc::PR_CAPBSET_DROP, number).is_err() {
                break;
            }
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(explain)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(explain)?;
    caps::set(None, CapSet::Effective, &kept).map_err(explain)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(explain)?;
    Ok(kept.len() == KEPT.len())
}

/// No new privileges; few open files; no core dump through a handler. Hard limits stay, since cells inherit them.
fn tighten() -> Result<(), String> {
    let explain = |errno: nix::Error| format!("cannot limit itself: {errno}");
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(explain)?;
    for (resource, most) in [(Resource::RLIMIT_NOFILE, 2048), (Resource::RLIMIT_CORE, 1)] {
        let (_, hard) = getrlimit(resource).map_err(explain)?;
        setrlimit(resource, hard.min(most), hard).map_err(explain)?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // Whatever the daemon's directory was, keep none of it busy.
    std::env::set_current_dir(PathBuf::from("/")).map_err(|error| format!("cannot enter /: {error}"))
}

//! One launch, as the helper sees it: cgroup, clone, maps, word from inside, look from outside, go.
//!
//! Invariant: whatever fails, the new process is killed and reaped, its cgroup removed, its descriptors closed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid, fchown};

use super::child::{self, Word};
use super::setup::Settings;
use crate::launcher::stream_allowed;
use crate::passing::{Received, receive, send_with_fds};
use crate::report::{CgroupLimits, Enforced, RECORD_OUT_OF_MEMORY, Step, StepError};
use crate::spec::CellParts;
use crate::steps::cgroup::Leaf;
use crate::steps::{At, Done, Ids, Plan, Source, namespaces, verify};
use crate::sys;
use crate::tier::HelperReport;
use crate::wire::Reply;

/// No launch takes longer, or it has failed.
const LAUNCH_LIMIT: Duration = Duration::from_secs(10);

/// A running cell, as the helper holds it. Dropping it kills and reaps it and removes its cgroup.
pub(super) struct Live {
    pid: i32,
    pub(super) pidfd: OwnedFd,
    /// Second writer on the exit pipe: the reaper cannot know of the kernel's memory kills.
    exit: OwnedFd,
    leaf: Option<Leaf>,
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = waitpid(Pid::from_raw(self.pid), None);
        if self.leaf.as_ref().is_some_and(Leaf::out_of_memory) {
            let _ = nix::unistd::write(&self.exit, &[RECORD_OUT_OF_MEMORY, 1]);
        }
    }
}

type Launched = (Live, Reply, Vec<OwnedFd>);

/// `Err(String)`: refused before anything was started.
pub(super) fn launch(
    settings: &mut Settings,
    parts: &CellParts,
    canonical: &[PathBuf],
    mut fds: Vec<OwnedFd>,
) -> Result<Done<Launched>, String> {
    let ids = settings.ids(parts.uid_slot)?;
    let opened = fds.split_off(3);
    let stdio = <[OwnedFd; 3]>::try_from(fds).map_err(|_| "three standard streams are needed")?;
    if !stdio.iter().all(|stream| stream_allowed(stream.as_fd())) {
        return Err("standard streams must be pipes, sockets or /dev/null".to_owned());
    }
    let mut sources = Vec::with_capacity(opened.len());
    for (fd, path) in opened.iter().zip(canonical) {
        let stat = fstat(fd).map_err(|errno| format!("cannot look at {}: {errno}", path.display()))?;
        sources.push(Source { path: path.clone(), device: stat.st_dev, inode: stat.st_ino });
    }
    Ok(start(settings, parts, ids, sources, &stdio).map(|(live, command, enforced, listener, exit)| {
        let reply = Reply::Launched {
            pid: live.pid,
            command,
            leaf: live.leaf.as_ref().map(|leaf| leaf.path.clone()),
            enforced: Box::new(enforced),
        };
        (live, reply, exit.into_iter().chain(listener).collect())
    }))
}

/// A complete launch without a workspace that stops short of executing anything, and what it says of this machine.
pub(super) fn trial(settings: &mut Settings) -> HelperReport {
    let parts = CellParts { agent: "trial".to_owned(), ..CellParts::default() };
    let slot = settings.per_agent.then_some(0);
    let trial = match settings.ids(slot) {
        Ok(ids) => match null_streams() {
            Ok(stdio) => {
                start(settings, &parts, ids, Vec::new(), &stdio).map(|(_, _, enforced, ..)| enforced)
            }
            Err(failed) => Err(failed),
        },
        Err(why) => Err(StepError::check(Step::UidMap, why)),
    };
    let (controllers, can_kill, problem) = match &settings.cgroup {
        None => (Vec::new(), false, None),
        Some(Ok(tree)) => (tree.controllers.clone(), tree.can_kill, None),
        Some(Err(problem)) => (Vec::new(), false, Some(problem.clone())),
    };
    HelperReport {
        helper_uid: settings.uid.as_raw(),
        per_agent_uids: settings.per_agent,
        landlock: settings.landlock,
        controllers,
        cgroup_problem: problem,
        cgroup_configured: settings.cgroup.is_some(),
        cgroup_kill: can_kill,
        trial: Some(trial),
    }
}

fn null_streams() -> Done<[OwnedFd; 3]> {
    let open = || std::fs::File::open("/dev/null").map(OwnedFd::from).at(Step::Descriptors, "open /dev/null");
    Ok([open()?, open()?, open()?])
}

/// The cell, its command's pid, what holds it, its listener, and pidfd and exit pipe for the daemon.
type Started = (Live, i32, Enforced, Option<OwnedFd>, Vec<OwnedFd>);

fn start(
    settings: &mut Settings,
    parts: &CellParts,
    ids: Ids,
    sources: Vec<Source>,
    stdio: &[OwnedFd; 3],
) -> Done<Started> {
    let is_trial = sources.is_empty();
    let injected = settings.hello.fail.filter(|_| !is_trial);
    if let Some((Step::Cgroup, errno)) = injected {
        return Err(StepError { step: Step::Cgroup, errno, detail: "made to fail by a test".to_owned() });
    }
    own_pipes(settings, ids, stdio)?;
    let leaf = match &mut settings.cgroup {
        None => None,
        Some(Ok(tree)) => Some(tree.leaf(&parts.limits)?),
        // The trial tells of namespaces alone; the report names this problem beside it.
        Some(Err(_)) if is_trial => None,
        Some(Err(problem)) => return Err(StepError::check(Step::Cgroup, problem.clone())),
    };
    let held: Option<CgroupLimits> = leaf.as_ref().map(Leaf::limits);
    let plan = Plan {
        parts,
        ids,
        sources,
        host: &settings.host,
        policies: &settings.policies,
        landlock: settings.landlock,
        canary: settings.hello.canary.as_deref(),
        memory_cgroup: held.as_ref().is_some_and(|limits| limits.memory_max.is_some()),
        fail: settings.hello.fail,
    };
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .at(Step::Namespaces, "make a socket pair")?;
    // The kernel then puts the sender's pid, as this process numbers it, beside each message.
    setsockopt(&ours, sockopt::PassCred, &true).at(Step::Namespaces, "ask for the sender's pid")?;
    let (exit_read, exit_write) = std::io::pipe().at(Step::Namespaces, "make the exit pipe")?;
    let exit_ours = exit_write.try_clone().at(Step::Namespaces, "make the exit pipe")?;
    plan.reach(Step::Namespaces)?;
    let Some((pid, pidfd)) = namespaces::clone(leaf.as_ref())? else {
        child::live(&plan, &theirs, exit_write.into(), stdio);
    };
    drop((theirs, exit_write));
    let live = Live { pid, pidfd, exit: exit_ours.into(), leaf };
    plan.reach(Step::UidMap)?;
    namespaces::map(pid, ids)?;
    let (command, mut enforced, listener) = converse(&ours, &plan, &settings.baseline)?;
    enforced.cgroup = held;
    let pidfd = live.pidfd.try_clone().at(Step::Verify, "copy the pidfd")?;
    Ok((live, command, enforced, listener, vec![pidfd, exit_read.into()]))
}

/// Pipes made by the daemon become the agent's, so that `/dev/stdout` can be opened by name as on any other machine.
fn own_pipes(settings: &Settings, ids: Ids, stdio: &[OwnedFd; 3]) -> Done {
    if !ids.own {
        return Ok(());
    }
    for stream in stdio {
        let stat = fstat(stream).at(Step::Descriptors, "look at a standard stream")?;
        let is_pipe = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFIFO.bits();
        if is_pipe && stat.st_uid == settings.uid.as_raw() {
            fchown(stream, Some(Uid::from_raw(ids.host_uid)), None)
                .at(Step::Descriptors, "give a pipe away")?;
        }
    }
    Ok(())
}

/// Lets the new process go on, hears that it is ready, checks it from outside, lets it execute, hears that it did.
fn converse(
    channel: &OwnedFd,
    plan: &Plan<'_>,
    host: &verify::Baseline,
) -> Done<(i32, Enforced, Option<OwnedFd>)> {
    let deadline = Instant::now() + LAUNCH_LIMIT;
    let go = |step| {
        send_with_fds(channel.as_fd(), b"g", &[])
            .map(drop)
            .map_err(|_| StepError::check(step, "the new process has ended without a word"))
    };
    go(Step::UidMap)?;
    let mut received = hear(channel, deadline)?;
    let Word::Ready(inside) = word(&received)? else {
        return Err(StepError::check(Step::Verify, "the new process spoke out of turn"));
    };
    let listener = received.0.fds.pop();
    if listener.is_some() != plan.parts.listener_port.is_some() {
        return Err(StepError::check(Step::Listener, "the listener did not arrive"));
    }
    plan.reach(Step::Verify)?;
    let sender = received.0.sender.filter(|pid| *pid > 0);
    let sender = sender.ok_or_else(|| StepError::check(Step::Verify, "the sender is unknown"))?;
    let enforced = verify::from_outside(sender, host, plan, inside)?;
    go(Step::Exec)?;
    let last = hear(channel, deadline)?;
    if last.0.length != 0 {
        // Anything but the end of file, which the successful exec made, is a failure.
        word(&last)?;
        return Err(StepError::check(Step::Exec, "the new process spoke out of turn"));
    }
    Ok((sender, enforced, listener))
}

type Heard = (Received, [u8; 1024]);

fn hear(channel: &OwnedFd, deadline: Instant) -> Done<Heard> {
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut watch = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watch, timeout) {
            Ok(0) => return Err(StepError::check(Step::Verify, "the launch took too long")),
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).at(Step::Verify, "wait for the new process"),
        }
    }
    let received = receive(channel.as_fd(), &mut buffer).at(Step::Verify, "hear the new process")?;
    Ok((received, buffer))
}

/// The word that was heard; a failure becomes the error it tells of.
fn word((received, buffer): &Heard) -> Done<Word> {
    if received.length == 0 || received.truncated {
        return Err(StepError::check(Step::Verify, "the new process ended without a word"));
    }
    match Word::decode(&buffer[..received.length]) {
        Ok(Word::Failed(failed)) => Err(failed),
        Ok(ready) => Ok(ready),
        Err(_) => Err(StepError::check(Step::Verify, "the new process spoke another language")),
    }
}

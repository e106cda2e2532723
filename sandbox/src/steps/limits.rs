//! Step "limits": resource limits per process, an own empty keyring, the umask.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

use super::{At, Done, Plan};
use crate::report::Step;
use crate::sys;

pub(crate) fn apply(plan: &Plan<'_>) -> Done {
    let limits = &plan.parts.limits;
    // Exactly 1: with a core_pattern that is a pipe, 0 would still start the handler, on the host, as root.
    lower(Resource::RLIMIT_CORE, 1)?;
    lower(Resource::RLIMIT_MEMLOCK, 64 << 10)?;
    lower(Resource::RLIMIT_NOFILE, limits.open_files.into())?;
    // Counts inside this user namespace; where there is a pids cgroup it says the same.
    lower(Resource::RLIMIT_NPROC, limits.pids.into())?;
    lower(Resource::RLIMIT_MSGQUEUE, 1 << 20)?;
    lower(Resource::RLIMIT_RTPRIO, 0)?;
    lower(Resource::RLIMIT_NICE, 0)?;
    lower(Resource::RLIMIT_SIGPENDING, 4096)?;
    if let Some(bytes) = limits.file_size {
        lower(Resource::RLIMIT_FSIZE, bytes)?;
    }
    if !plan.memory_cgroup {
        lower(Resource::RLIMIT_DATA, limits.data_bytes)?;
    }
    match sys::new_session_keyring() {
        // Kernels without keyrings have none to leak.
        Ok(()) | Err(Errno::ENOSYS) => {}
        Err(errno) => return Err(errno).at(Step::Limits, "join an empty keyring"),
    }
    // With an own uid the daemon reaches the files through its group (setgid directories).
    umask(Mode::from_bits_truncate(if plan.ids.own { 0o007 } else { 0o077 }));
    Ok(())
}

/// Sets soft and hard limit to `value`, or to the hard limit in force where that is lower already.
fn lower(resource: Resource, value: u64) -> Done {
    let what = || format!("set {resource:?} to {value}");
    let (_, hard) = getrlimit(resource).at(Step::Limits, what())?;
    let value = value.min(hard);
    setrlimit(resource, value, value).at(Step::Limits, what())
}

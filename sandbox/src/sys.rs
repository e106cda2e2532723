//! The only `unsafe` in the crate: one system call (or one libc call) per function, each with its reason.
//!
//! Nothing here decides anything. What `nix`, `caps` or `std` offer safely is not repeated here.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_long, c_ulong};
use nix::errno::Errno;

type Result<T> = std::result::Result<T, Errno>;

/// What a fork-like call returned.
pub(crate) enum Fork {
    /// In the new process.
    Child,
    /// In the caller: the child's pid and, from `clone`, its pidfd.
    Parent(i32, Option<OwnedFd>),
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Takes ownership of a descriptor that the kernel just made for this process.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass only descriptors returned or delivered by the kernel a moment ago and owned by nobody.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn own_result(answer: c_long) -> Result<OwnedFd> {
    Errno::result(answer).map(|fd| own(fd as RawFd))
}

/// `clone3` without a new stack, like `fork`, with `CLONE_PIDFD`; into `cgroup` where given.
pub(crate) fn clone3(flags: c_int, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: (flags.cast_unsigned() | libc::CLONE_PIDFD.cast_unsigned()).into(),
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the structure is complete and outlives the call; without CLONE_VM the child gets a copy of this
    // single-threaded process, so both sides may go on using everything.
    let pid =
        Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid as i32, Some(own(pidfd))) })
}

/// The older `clone`, for kernels or outer sandboxes that answer `ENOSYS` to `clone3`.
pub(crate) fn clone(flags: c_int) -> Result<Fork> {
    let mut pidfd: c_int = -1;
    let flags = (flags | libc::CLONE_PIDFD | libc::SIGCHLD) as c_ulong;
    // SAFETY: a null stack and no CLONE_VM make this a fork. On x86_64 and aarch64 the third argument is where
    // the pidfd goes; the remaining two are unused with these flags.
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    let pid = Errno::result(answer)?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid as i32, Some(own(pidfd))) })
}

/// `fork`.
pub(crate) fn fork() -> Result<Fork> {
    // SAFETY: the helper and its children have exactly one thread, so no lock can be held by another.
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid, None) })
}

/// Ends this process at once: no destructor, no exit handler of the process it was copied from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: has no preconditions.
    unsafe { libc::_exit(code) }
}

/// `open_tree`: a detached recursive copy of the mount at `at`.
pub(crate) fn open_tree_clone(at: BorrowedFd<'_>) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: c_int = 1;
    const AT_RECURSIVE: c_int = 0x8000;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | AT_RECURSIVE | libc::AT_EMPTY_PATH;
    // SAFETY: the path is a constant C string; the descriptor is borrowed for the call.
    own_result(unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), c"".as_ptr(), flags) })
}

/// `mount_setattr` on a mount and everything below it, or (`recursive` unset) on that mount alone.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, recursive: Reach, set: u64) -> Result<()> {
    const AT_RECURSIVE: c_int = 0x8000;
    let attr = MountAttr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = match recursive {
        Reach::Recursive => AT_RECURSIVE | libc::AT_EMPTY_PATH,
        Reach::One => libc::AT_EMPTY_PATH,
    };
    // SAFETY: the structure is complete and outlives the call; the path is a constant C string.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(answer).map(drop)
}

/// Whether a mount attribute applies below the mount too.
#[derive(Clone, Copy)]
pub(crate) enum Reach {
    /// The mount and all its submounts.
    Recursive,
    /// The mount alone.
    One,
}

/// `move_mount` of a detached mount onto the file or directory `onto`.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> Result<()> {
    const F_EMPTY_PATH: c_int = 0x4;
    const T_EMPTY_PATH: c_int = 0x40;
    // SAFETY: both paths are constant C strings; both descriptors are borrowed for the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            onto.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    };
    Errno::result(answer).map(drop)
}

/// `prctl` with integer arguments only.
pub(crate) fn prctl(option: c_int, argument: c_ulong) -> Result<c_int> {
    const NONE: c_ulong = 0;
    // SAFETY: the options used by this crate take integers, never pointers.
    Errno::result(unsafe { libc::prctl(option, argument, NONE, NONE, NONE) })
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> Result<()> {
    // SAFETY: callers run just before exec or in the reaper and own no descriptor in that range any more.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    // SAFETY: changes a flag only.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(answer).map(drop)
}

/// Joins a fresh, empty session keyring.
pub(crate) fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let answer =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    Errno::result(answer).map(drop)
}

/// A descriptor for process `pid`.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    own_result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to the process behind `pidfd`.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> Result<()> {
    // SAFETY: a null siginfo asks the kernel to fill it in as for kill().
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(answer).map(drop)
}

/// The Landlock ABI of the running kernel.
pub(crate) fn landlock_abi() -> Option<u32> {
    const VERSION: c_int = 1;
    // SAFETY: a null attribute with size 0 and this flag only asks for the version.
    let answer =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(answer).ok().filter(|abi| *abi > 0)
}

/// Tries to make a new user namespace for this process: the self-check expects an error.
pub(crate) fn unshare_user() -> Result<()> {
    // SAFETY: affects only this process's own namespaces.
    Errno::result(unsafe { libc::unshare(libc::CLONE_NEWUSER) }).map(drop)
}

/// Sets the host name of this UTS namespace.
pub(crate) fn set_host_name(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe one live string.
    Errno::result(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Raises the loopback interface with the one-interface ioctl, which needs no netlink socket.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed_char();
    }
    // `IFF_UP` alone: the kernel keeps `IFF_LOOPBACK` and sets `IFF_RUNNING` itself.
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) })
        .map(drop)
}

trait CastSignedChar {
    fn cast_signed_char(self) -> libc::c_char;
}

impl CastSignedChar for u8 {
    /// `c_char` is signed on x86_64 and unsigned on aarch64; interface names are ASCII on both.
    fn cast_signed_char(self) -> libc::c_char {
        self as libc::c_char
    }
}

/// `execve`; returns only if it failed.
pub(crate) fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    match nix::unistd::execve(program, argv, env) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// Gives a signal its usual effect again. By the bare call: libc refuses the two signals it keeps for itself, which
/// a parent may nevertheless have left ignored.
pub(crate) fn default_signal(signal: c_int) -> Result<()> {
    /// The kernel's `struct sigaction` on x86_64 and aarch64: handler, flags, restorer, mask. All zero is the default.
    const DEFAULT: [u64; 4] = [0; 4];
    const NOWHERE: *mut u64 = std::ptr::null_mut();
    // SAFETY: the structure is as large as the kernel reads and outlives the call; no handler is installed.
    let answer =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), NOWHERE, size_of::<u64>()) };
    Errno::result(answer).map(drop)
}

/// Makes a signal have no effect.
pub(crate) fn ignore_signal(signal: c_int) -> Result<()> {
    // SAFETY: installs no handler, only the kernel's own way to ignore.
    let old = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if old == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
}

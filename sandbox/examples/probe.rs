//! The attacker of the test suite: `probe [--isolate] ACTION…` tries each action and prints `ACTION ERRNO` (0: it
//! worked). With `--isolate`, the control runs, it first takes namespaces of its own so that a success harms nobody.
//!
//! Raw system calls on purpose: the suite must not depend on what a C library refuses by itself.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "an attacker's calls are unsound by nature; none is shipped"
)]

use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::{SocketAddr, UnixStream};

use libc::*;

/// One raw system call; the error number, or 0.
macro_rules! raw {
    ($($argument:expr),*) => {
        if unsafe { syscall($($argument),*) } < 0 { errno() } else { 0 }
    };
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
}

fn of<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

const NONE: *const u8 = std::ptr::null();

fn mount(source: &std::ffi::CStr, at: &std::ffi::CStr, kind: &std::ffi::CStr, flags: c_ulong) -> i32 {
    raw!(SYS_mount, source.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, NONE)
}

fn unshare(flags: c_int) -> i32 {
    // In a child, so that one success does not change what the next action finds.
    in_child(|| raw!(SYS_unshare, flags))
}

fn in_child(action: impl FnOnce() -> i32) -> i32 {
    let pid = unsafe { fork() };
    if pid == 0 {
        unsafe { _exit(action()) };
    }
    let mut status = 0;
    unsafe { waitpid(pid, &raw mut status, 0) };
    if WIFSIGNALED(status) { 1000 + WTERMSIG(status) } else { WEXITSTATUS(status) }
}

fn clone_with(flags: c_int) -> i32 {
    let pid = unsafe { syscall(SYS_clone, (flags | SIGCHLD) as c_ulong, 0, 0, 0, 0) };
    match pid {
        0 => unsafe { _exit(0) },
        pid if pid < 0 => errno(),
        pid => {
            unsafe { waitpid(pid as i32, std::ptr::null_mut(), 0) };
            0
        }
    }
}

fn clone3_user() -> i32 {
    let mut args = [0_u64; 11];
    args[0] = CLONE_NEWUSER as u64;
    args[4] = SIGCHLD as u64;
    let pid = unsafe { syscall(SYS_clone3, args.as_ptr(), 88) };
    if pid == 0 {
        unsafe { _exit(0) };
    }
    if pid < 0 { errno() } else { 0 }
}

fn socket_of(family: c_int, kind: c_int, protocol: c_int) -> i32 {
    let fd = unsafe { socket(family, kind, protocol) };
    if fd < 0 {
        return errno();
    }
    unsafe { close(fd) };
    0
}

fn limit(resource: u32, value: u64) -> i32 {
    let new = rlimit { rlim_cur: value, rlim_max: value };
    raw!(SYS_prlimit64, 0, resource, &raw const new, NONE)
}

fn vm_read(pid: i32) -> i32 {
    let mut byte = 0_u8;
    let local = iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = iovec { iov_base: (&raw const byte).cast_mut().cast(), iov_len: 1 };
    raw!(SYS_process_vm_readv, pid, &raw const local, 1, &raw const remote, 1, 0)
}

/// A permissive filter with the flag that asks for a listener.
fn seccomp_listener() -> i32 {
    let allow = [sock_filter { code: 6, jt: 0, jf: 0, k: SECCOMP_RET_ALLOW }];
    let program = sock_fprog { len: 1, filter: allow.as_ptr().cast_mut() };
    raw!(SYS_seccomp, 1, SECCOMP_FILTER_FLAG_NEW_LISTENER, &raw const program)
}

/// A permissive filter does not take the strict one away: mount must still fail afterwards.
fn seccomp_loosen() -> i32 {
    let allow = [sock_filter { code: 6, jt: 0, jf: 0, k: SECCOMP_RET_ALLOW }];
    let program = sock_fprog { len: 1, filter: allow.as_ptr().cast_mut() };
    raw!(SYS_seccomp, 1, 0, &raw const program);
    unshare(CLONE_NEWUSER)
}

fn type_into_terminal() -> i32 {
    let byte = b'x';
    raw!(SYS_ioctl, 0, TIOCSTI, &raw const byte)
}

fn files(action: &str) -> Option<i32> {
    let (kind, path) = action.split_once(':')?;
    let path_c = std::ffi::CString::new(path).ok()?;
    let open = || std::fs::File::options().write(true).open(path);
    Some(match kind {
        "read" => of(std::fs::File::open(path).and_then(|mut f| std::io::Read::read(&mut f, &mut [0; 1]))),
        "list" => of(std::fs::read_dir(path)),
        "write" => of(open()),
        "create" => of(std::fs::write(path, b"x")),
        "truncate" => of(std::fs::File::options().write(true).truncate(true).open(path)),
        "unlink" => of(std::fs::remove_file(path)),
        "hardlink" => {
            of(std::fs::hard_link(path, "stolen").inspect(|()| drop(std::fs::remove_file("stolen"))))
        }
        "mknod-block" => {
            let result = raw!(SYS_mknodat, AT_FDCWD, path_c.as_ptr(), S_IFBLK | 0o600, makedev(7, 0));
            let _ = std::fs::remove_file(path);
            result
        }
        "mknod-char" => {
            let result = raw!(SYS_mknodat, AT_FDCWD, path_c.as_ptr(), S_IFCHR | 0o600, makedev(1, 1));
            let _ = std::fs::remove_file(path);
            result
        }
        "connect-unix" => of(UnixStream::connect(path)),
        "connect-abstract" => {
            use std::os::linux::net::SocketAddrExt as _;
            of(SocketAddr::from_abstract_name(path).and_then(|name| UnixStream::connect_addr(&name)))
        }
        "connect-tcp" => of(TcpStream::connect(path)),
        "signal" => raw!(SYS_kill, path.parse::<i32>().ok()?, 0),
        "ptrace" => raw!(SYS_ptrace, PTRACE_SEIZE, path.parse::<i32>().ok()?, 0, 0),
        "vm-read" => vm_read(path.parse().ok()?),
        // Touched page by page, since untouched memory costs nothing.
        "eat-mib" => {
            let mut eaten = vec![0_u8; path.parse::<usize>().ok()? << 20];
            eaten.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            i32::from(std::hint::black_box(eaten).is_empty())
        }
        "namespace" => unshare(path.parse().ok()?),
        "clone" => clone_with(path.parse().ok()?),
        _ => return None,
    })
}

fn kernel(action: &str) -> Option<i32> {
    Some(match action {
        "mount-tmpfs" => mount(c"tmpfs", c"/tmp", c"tmpfs", 0),
        "bind" => mount(c"/usr", c"/tmp", c"", MS_BIND),
        "remount-usr" => mount(c"", c"/usr", c"", MS_REMOUNT | MS_BIND),
        "umount-proc" => raw!(SYS_umount2, c"/proc".as_ptr(), MNT_DETACH),
        "open-tree" => raw!(SYS_open_tree, AT_FDCWD, c"/usr".as_ptr(), 1),
        "fsopen" => raw!(SYS_fsopen, c"tmpfs".as_ptr(), 0),
        "fspick" => raw!(SYS_fspick, AT_FDCWD, c"/".as_ptr(), 0),
        "fsmount" => raw!(SYS_fsmount, -1, 0, 0),
        "fsconfig" => raw!(SYS_fsconfig, -1, 0, NONE, NONE, 0),
        "move-mount" => raw!(SYS_move_mount, AT_FDCWD, c"/tmp".as_ptr(), AT_FDCWD, c"/usr".as_ptr(), 0),
        "mount-setattr" => {
            let attr = [0_u64, 1, 0, 0];
            raw!(SYS_mount_setattr, AT_FDCWD, c"/usr".as_ptr(), 0, &raw const attr, 32)
        }
        "pivot-root" => raw!(SYS_pivot_root, c"/tmp".as_ptr(), c"/tmp".as_ptr()),
        "chroot" => in_child(|| raw!(SYS_chroot, c"/tmp".as_ptr())),
        "clone3-user" => clone3_user(),
        "setns" => {
            let Ok(own) = std::fs::File::open("/proc/self/ns/uts") else { return Some(errno()) };
            raw!(SYS_setns, own.as_raw_fd(), 0)
        }
        "kcmp" => raw!(SYS_kcmp, getpid_(), getpid_(), 0, 0, 0),
        "pidfd-getfd" => raw!(SYS_pidfd_getfd, -1, 0, 0),
        "file-handle" => raw!(SYS_open_by_handle_at, AT_FDCWD, [8_u32, 1, 2, 0].as_ptr(), O_RDONLY),
        "bpf" => raw!(SYS_bpf, 0, [1_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0].as_ptr(), 40),
        "perf" => raw!(SYS_perf_event_open, [1_u32, 128].as_ptr(), 0, -1, -1, 0),
        "userfaultfd" => raw!(SYS_userfaultfd, 1),
        "io-uring" => raw!(SYS_io_uring_setup, 1, [0_u32; 30].as_ptr()),
        "io-uring-enter" => raw!(SYS_io_uring_enter, -1, 0, 0, 0, NONE, 0),
        "io-uring-register" => raw!(SYS_io_uring_register, -1, 0, NONE, 0),
        "keyctl" => raw!(SYS_keyctl, 0, -3, 0),
        "add-key" => raw!(SYS_add_key, c"user".as_ptr(), c"k".as_ptr(), c"v".as_ptr(), 1, -2),
        "request-key" => raw!(SYS_request_key, c"user".as_ptr(), c"k".as_ptr(), NONE, -2),
        "fanotify" => raw!(SYS_fanotify_init, 0x200, 0),
        "vmsplice" => raw!(SYS_vmsplice, -1, NONE, 0, 0),
        "init-module" => raw!(SYS_init_module, NONE, 0, c"".as_ptr()),
        "finit-module" => raw!(SYS_finit_module, -1, c"".as_ptr(), 0),
        "delete-module" => raw!(SYS_delete_module, c"none".as_ptr(), 0),
        "kexec" => raw!(SYS_kexec_load, 0, 0, NONE, 0),
        "reboot" => raw!(SYS_reboot, 0, 0, 0, NONE),
        "swapon" => raw!(SYS_swapon, c"/none".as_ptr(), 0),
        "swapoff" => raw!(SYS_swapoff, c"/none".as_ptr()),
        "acct" => raw!(SYS_acct, c"/none".as_ptr()),
        "quotactl" => raw!(SYS_quotactl, 0, NONE, 0, NONE),
        "syslog" => raw!(SYS_syslog, 3, NONE, 0),
        "clock-settime" => raw!(SYS_clock_settime, CLOCK_REALTIME, NONE),
        "settimeofday" => raw!(SYS_settimeofday, [-1_i64, -1].as_ptr(), NONE),
        "adjtimex" => raw!(SYS_adjtimex, [1_u64; 32].as_ptr()),
        "sethostname" => raw!(SYS_sethostname, c"evil".as_ptr(), 4),
        "setdomainname" => raw!(SYS_setdomainname, c"evil".as_ptr(), 4),
        "mbind" => raw!(SYS_mbind, NONE, 0, 0, NONE, 0, 0),
        "personality" => in_child(|| raw!(SYS_personality, 0x0040_0000)),
        #[cfg(target_arch = "x86_64")]
        "iopl" => raw!(SYS_iopl, 3),
        #[cfg(target_arch = "x86_64")]
        "modify-ldt" => raw!(SYS_modify_ldt, 0, NONE, 0),
        #[cfg(target_arch = "x86_64")]
        "x32" => in_child(|| raw!(0x4000_0000 + SYS_getpid)),
        "unknown-call" => raw!(900),
        _ => return None,
    })
}

fn getpid_() -> i32 {
    std::process::id().cast_signed()
}

fn rights(action: &str) -> Option<i32> {
    Some(match action {
        "setuid-0" => in_child(|| raw!(SYS_setuid, 0)),
        "setgid-0" => in_child(|| raw!(SYS_setgid, 0)),
        "setgroups" => in_child(|| raw!(SYS_setgroups, 1, [0_u32].as_ptr())),
        "capset" => {
            let header = [0x2008_0522_u32, 0];
            let all = [u32::MAX; 6];
            raw!(SYS_capset, header.as_ptr(), all.as_ptr())
        }
        "ambient" => raw!(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 7, 0, 0),
        "securebits" => raw!(SYS_prctl, PR_SET_SECUREBITS, 0, 0, 0, 0),
        "mm" => raw!(SYS_prctl, PR_SET_MM, PR_SET_MM_BRK, 0x1000, 0, 0),
        "seccomp-listener" => seccomp_listener(),
        "seccomp-loosen" => seccomp_loosen(),
        "lower-core" => in_child(|| limit(RLIMIT_CORE, 0)),
        "raise-nofile" => in_child(|| limit(RLIMIT_NOFILE, 1 << 20)),
        "raise-nproc" => in_child(|| limit(RLIMIT_NPROC, 1 << 20)),
        "raise-memlock" => in_child(|| limit(RLIMIT_MEMLOCK, 1 << 40)),
        "real-time" => {
            let param = sched_param { sched_priority: 50 };
            in_child(|| raw!(SYS_sched_setscheduler, 0, SCHED_FIFO, &raw const param))
        }
        "nice" => in_child(|| raw!(SYS_setpriority, PRIO_PROCESS, 0, -20)),
        "io-real-time" => in_child(|| raw!(SYS_ioprio_set, 1, 0, 1 << 13)),
        "type-into-terminal" => type_into_terminal(),
        "unshare-files" => in_child(|| raw!(SYS_unshare, CLONE_FILES)),
        _ => return None,
    })
}

fn sockets(action: &str) -> Option<i32> {
    Some(match action {
        "unix" => socket_of(AF_UNIX, SOCK_STREAM, 0),
        "tcp" => socket_of(AF_INET, SOCK_STREAM, 0),
        "tcp6" => socket_of(AF_INET6, SOCK_STREAM, 0),
        "udp" => socket_of(AF_INET, SOCK_DGRAM, 0),
        "udp6" => socket_of(AF_INET6, SOCK_DGRAM, 0),
        "udplite" => socket_of(AF_INET, SOCK_DGRAM, 136),
        "ping" => socket_of(AF_INET, SOCK_DGRAM, IPPROTO_ICMP),
        "raw" => socket_of(AF_INET, SOCK_RAW, IPPROTO_ICMP),
        "sctp" => socket_of(AF_INET, SOCK_STREAM, 132),
        "mptcp" => socket_of(AF_INET, SOCK_STREAM, 262),
        "dccp" => socket_of(AF_INET, 6, 33),
        "netlink" => socket_of(AF_NETLINK, SOCK_RAW, 0),
        "packet" => socket_of(AF_PACKET, SOCK_RAW, 0),
        "vsock" => socket_of(AF_VSOCK, SOCK_STREAM, 0),
        "alg" => socket_of(AF_ALG, SOCK_SEQPACKET, 0),
        "bluetooth" => socket_of(AF_BLUETOOTH, SOCK_RAW, 1),
        "key" => socket_of(15, SOCK_RAW, 2),
        "tipc" => socket_of(30, SOCK_STREAM, 0),
        "xdp" => socket_of(44, SOCK_RAW, 0),
        "smc" => socket_of(43, SOCK_STREAM, 0),
        "rds" => socket_of(21, SOCK_SEQPACKET, 0),
        "qipcrtr" => socket_of(42, SOCK_DGRAM, 0),
        "can" => socket_of(29, SOCK_RAW, 1),
        _ => return None,
    })
}

fn isolate() {
    let (uid, gid) = unsafe { (geteuid(), getegid()) };
    let user = if uid == 0 { 0 } else { CLONE_NEWUSER };
    assert_eq!(raw!(SYS_unshare, user | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC), 0, "isolate");
    if uid != 0 {
        // An unmapped user may not make a further user namespace.
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {uid} 1")),
            ("gid_map", format!("0 {gid} 1")),
        ] {
            assert_eq!(of(std::fs::write(format!("/proc/self/{file}"), text)), 0, "{file}");
        }
    }
    assert_eq!(mount(c"", c"/", c"", MS_REC | MS_PRIVATE), 0, "private");
}

fn main() {
    for action in std::env::args().skip(1) {
        if action == "--isolate" {
            isolate();
            continue;
        }
        let found = kernel(&action).or_else(|| rights(&action)).or_else(|| sockets(&action));
        let found = found.or_else(|| files(&action));
        let number = found.unwrap_or(-2);
        let _ = writeln!(std::io::stdout(), "{action} {number}");
    }
}

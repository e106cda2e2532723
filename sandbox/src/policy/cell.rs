//! What the command and everything it starts may ask of the kernel.
//!
//! Wide on purpose: an agent runs compilers, package managers, interpreters and servers. What is missing is what no
//! such program needs and an attacker wants. Calls that are neither here nor below answer `ENOSYS`, which programs
//! take for an older kernel and work around; `EPERM` is for calls whose refusal they should see.

use libc::*;

use super::{Answer, Condition, Rule, Table};

/// `libc` names it on x86_64 only; the number is the same everywhere.
const FCHMODAT2: i64 = 452;

/// Allowed on both architectures, grouped by subject.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Files: open, read, write, place.
    SYS_openat, SYS_openat2, SYS_close, SYS_close_range, SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64,
    SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_lseek, SYS_ftruncate, SYS_truncate,
    SYS_fallocate, SYS_fadvise64, SYS_readahead, SYS_copy_file_range, SYS_sendfile, SYS_splice, SYS_tee,
    SYS_dup, SYS_dup3, SYS_fcntl, SYS_flock, SYS_pipe2,
    // Files: sync.
    SYS_fsync, SYS_fdatasync, SYS_sync, SYS_syncfs, SYS_sync_file_range, SYS_msync,
    // Files: names and attributes.
    SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir,
    SYS_mkdirat, SYS_mknodat, SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_linkat, SYS_symlinkat, SYS_readlinkat,
    SYS_faccessat, SYS_faccessat2, SYS_fchmod, SYS_fchmodat, FCHMODAT2, SYS_fchown, SYS_fchownat, SYS_utimensat,
    SYS_umask, SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr, SYS_listxattr, SYS_llistxattr, SYS_flistxattr,
    SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr,
    // Waiting for descriptors, timers as descriptors, watching files.
    SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2,
    SYS_signalfd4, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_inotify_init1,
    SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_memfd_create,
    // Kernel AIO of the old kind; databases use it. io_uring is not allowed.
    SYS_io_setup, SYS_io_destroy, SYS_io_submit, SYS_io_cancel, SYS_io_getevents,
    // Memory. JIT compilers need writable and executable mappings.
    SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk, SYS_mincore, SYS_mlock, SYS_mlock2,
    SYS_munlock, SYS_mlockall, SYS_munlockall, SYS_membarrier, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect,
    SYS_get_mempolicy, SYS_mseal, SYS_process_madvise, SYS_process_mrelease,
    // System V and POSIX objects: in an own ipc namespace.
    SYS_shmget, SYS_shmat, SYS_shmdt, SYS_shmctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_semctl, SYS_msgget,
    SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink, SYS_mq_timedsend, SYS_mq_timedreceive,
    SYS_mq_notify, SYS_mq_getsetattr,
    // Processes and threads. clone and unshare are below.
    SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_getpid, SYS_getppid, SYS_gettid,
    SYS_getpgid, SYS_setpgid, SYS_getsid, SYS_setsid, SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list,
    SYS_rseq, SYS_futex, SYS_futex_waitv, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_prctl,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_getparam, SYS_sched_setparam,
    SYS_sched_getscheduler, SYS_sched_setscheduler, SYS_sched_getattr, SYS_sched_setattr, SYS_sched_get_priority_max,
    SYS_sched_get_priority_min, SYS_sched_rr_get_interval, SYS_getpriority, SYS_setpriority, SYS_ioprio_get,
    SYS_ioprio_set, SYS_getcpu, SYS_getrusage, SYS_times, SYS_getrlimit,
    // Signals.
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_sigaltstack, SYS_kill, SYS_tkill, SYS_tgkill,
    SYS_restart_syscall,
    // Time: reading and sleeping.
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_timer_create,
    SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete, SYS_getitimer, SYS_setitimer,
    // Ids: one uid is mapped and no capability is left, so setting leads nowhere new.
    SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_setuid,
    SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups,
    SYS_capget, SYS_capset,
    // Sockets, once made. socket and socketpair are below.
    SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_getsockname, SYS_getpeername, SYS_sendto,
    SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_setsockopt, SYS_getsockopt, SYS_shutdown,
    // About the machine.
    SYS_uname, SYS_sysinfo, SYS_getrandom,
    // Programs may lock themselves further.
    SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self,
];

/// Old forms of the calls above that only x86_64 has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[i64] = &[
    SYS_open, SYS_creat, SYS_stat, SYS_lstat, SYS_access, SYS_pipe, SYS_dup2, SYS_poll, SYS_select, SYS_getdents,
    SYS_rename, SYS_mkdir, SYS_rmdir, SYS_link, SYS_unlink, SYS_symlink, SYS_readlink, SYS_chmod, SYS_chown,
    SYS_lchown, SYS_mknod, SYS_utime, SYS_utimes, SYS_futimesat, SYS_epoll_create, SYS_epoll_wait, SYS_eventfd,
    SYS_signalfd, SYS_inotify_init, SYS_alarm, SYS_pause, SYS_time, SYS_fork, SYS_vfork, SYS_getpgrp,
    SYS_arch_prctl, SYS_remap_file_pages,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[i64] = &[];

/// Refused, each group with what it would give an attacker.
#[rustfmt::skip]
const REFUSED: &[i64] = &[
    // Change the tree of mounts, or the root.
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig,
    SYS_fsmount, SYS_fspick, SYS_mount_setattr,
    // Enter another namespace.
    SYS_setns,
    // Look into or drive other processes.
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd,
    // Reach an inode past every path (the "shocker" way out of containers).
    SYS_open_by_handle_at, SYS_name_to_handle_at,
    // Large kernel surfaces with a history, of no use to tools.
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_vmsplice, SYS_fanotify_init, SYS_fanotify_mark,
    // Keyrings reach beyond namespaces.
    SYS_add_key, SYS_request_key, SYS_keyctl,
    // The kernel itself.
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot, SYS_swapon,
    SYS_swapoff, SYS_acct, SYS_quotactl, SYS_quotactl_fd, SYS_syslog, SYS_vhangup, SYS_nfsservctl,
    // The clock and the host's name.
    SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_sethostname, SYS_setdomainname,
    // Placement of memory on nodes, also of other processes.
    SYS_mbind, SYS_set_mempolicy, SYS_migrate_pages, SYS_move_pages, SYS_set_mempolicy_home_node,
    SYS_lookup_dcookie,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const REFUSED_HERE: &[i64] = &[
    // Ports, segments, and calls that are stubs by now.
    SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_kexec_file_load, SYS_uselib, SYS_ustat, SYS_sysfs, SYS__sysctl,
];
#[cfg(target_arch = "aarch64")]
const REFUSED_HERE: &[i64] = &[];

const NEW_NAMESPACES: u32 = (CLONE_NEWUSER
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_NEWIPC
    | CLONE_NEWUTS
    | CLONE_NEWCGROUP)
    .cast_unsigned();
/// The time namespace's flag; in `clone` that bit is part of the exit signal.
const NEW_TIME: u32 = 0x80;

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

pub(crate) fn table() -> Table {
    let mut table: Table = Vec::with_capacity(400);
    let allowed = ALLOWED.iter().chain(ALLOWED_HERE);
    table.extend(allowed.map(|number| (*number, Answer::Allow)));
    let mut refused: Vec<i64> = REFUSED.iter().chain(REFUSED_HERE).copied().collect();
    refused.sort_unstable();
    refused.dedup();
    table.extend(refused.into_iter().map(|number| (number, Answer::Error(EPERM))));
    // io_uring would carry out other calls past this filter. Libraries probe for it and expect ENOSYS.
    for number in [SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register] {
        table.push((number, Answer::Error(ENOSYS)));
    }
    // Its flags lie in memory, where no filter can see them. ENOSYS makes libraries fall back to clone; Claude Code
    // crashes on EPERM.
    table.push((SYS_clone3, Answer::Error(ENOSYS)));
    table.extend(looks());
    table
}

/// Calls that depend on an argument.
fn looks() -> Table {
    let low = |argument, value| Condition::Low { argument, mask: u32::MAX, value };
    let any_of = |argument, bits| Condition::AnyOf { argument, bits };
    let refuse = |conditions: Vec<Condition>, errno| Rule { conditions, answer: Answer::Error(errno) };
    let look = |rules| Answer::Look(rules, Box::new(Answer::Allow));
    let core = RLIMIT_CORE;
    vec![
        (SYS_clone, look(vec![refuse(vec![any_of(0, NEW_NAMESPACES)], EPERM)])),
        (SYS_unshare, look(vec![refuse(vec![any_of(0, NEW_NAMESPACES | NEW_TIME)], EPERM)])),
        (SYS_socket, socket()),
        (
            SYS_socketpair,
            Answer::Look(
                vec![Rule { conditions: vec![low(0, AF_UNIX.cast_unsigned())], answer: Answer::Allow }],
                Box::new(Answer::Error(EAFNOSUPPORT)),
            ),
        ),
        // Typing into a terminal from below, in two ways.
        (SYS_ioctl, look([TIOCSTI, TIOCLINUX].map(|request| refuse(vec![low(1, request)], EPERM)).to_vec())),
        // The core limit of exactly 1 keeps a core_pattern pipe handler on the host from starting; 0 would not.
        // EINVAL and not EPERM: gpg ends itself on any other refusal.
        (SYS_prlimit64, look(vec![refuse(vec![low(1, core), Condition::NotNull { argument: 2 }], EINVAL)])),
        (SYS_setrlimit, look(vec![refuse(vec![low(0, core)], EINVAL)])),
        // Filters of its own may only tighten; a listener would let a process answer for another.
        (SYS_seccomp, look(vec![refuse(vec![any_of(1, SECCOMP_FILTER_FLAG_NEW_LISTENER as u32)], EPERM)])),
        // Execution domains: the usual Linux ones, and the query.
        (
            SYS_personality,
            Answer::Look(
                [0, 0x0008, 0x0002_0000, 0x0002_0008, u32::MAX]
                    .map(|domain| Rule { conditions: vec![low(0, domain)], answer: Answer::Allow })
                    .to_vec(),
                Box::new(Answer::Error(EPERM)),
            ),
        ),
    ]
}

/// Unix sockets of every kind; TCP; nothing else.
fn socket() -> Answer {
    /// The type without `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
    const KIND: u32 = 0xf;
    let low =
        |argument, value: i32| Condition::Low { argument, mask: u32::MAX, value: value.cast_unsigned() };
    let kind = Condition::Low { argument: 1, mask: KIND, value: SOCK_STREAM.cast_unsigned() };
    let allow = |conditions| Rule { conditions, answer: Answer::Allow };
    let mut rules = vec![allow(vec![low(0, AF_UNIX)])];
    for family in [AF_INET, AF_INET6] {
        for protocol in [0, IPPROTO_TCP] {
            rules.push(allow(vec![low(0, family), kind, low(2, protocol)]));
        }
        rules.push(Rule { conditions: vec![low(0, family)], answer: Answer::Error(EPERM) });
    }
    Answer::Look(rules, Box::new(Answer::Error(EAFNOSUPPORT)))
}

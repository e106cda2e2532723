//! Privileges: none held, none to be had, and the kernel surfaces that could give some are closed.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use harness::{Control, Env};
use libc::{EINVAL, ENOSYS, EPERM};
use skep_sandbox::End;

#[test]
fn all_capability_sets_are_empty_and_stay_empty() {
    let env = Env::new();
    let text = env.sh_ok("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -s '\\t ' ' '");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(text.contains(&format!("{set}: 0000000000000000\n")), "{text}");
    }
    assert!(text.contains("NoNewPrivs: 1\n") && text.contains("Seccomp: 2\n"), "{text}");
    env.denied(Control::NotTried, &[EPERM], &["capset", "ambient", "securebits", "mm"]);
}

#[test]
fn no_other_user_can_be_become() {
    let env = Env::new();
    env.denied(Control::WorksForRoot, &[EPERM, EINVAL], &["setuid-0", "setgid-0", "setgroups"]);
    let text = env.sh_ok("for p in su mount umount passwd newgrp chsh; do command -v $p >/dev/null && (cp $(command -v $p) ./x; ls -l $(command -v $p) | cut -c1-10); done; id -u; true");
    assert!(text.ends_with("1000\n"), "{text}");
    assert_ne!(env.sh("su -c id </dev/null").status.end, End::Exited(0));
}

#[test]
fn dangerous_kernel_surfaces_are_closed() {
    let env = Env::new();
    env.denied(Control::WorksForRoot, &[EPERM], &["bpf", "add-key", "keyctl", "fanotify", "kcmp"]);
    env.denied(
        Control::NotTried,
        &[EPERM],
        &[
            "perf",
            "userfaultfd",
            "request-key",
            "vmsplice",
            "init-module",
            "finit-module",
            "delete-module",
            "kexec",
            "reboot",
            "swapon",
            "swapoff",
            "acct",
            "quotactl",
            "syslog",
            "clock-settime",
            "settimeofday",
            "adjtimex",
            "file-handle",
            "mbind",
            "pidfd-getfd",
        ],
    );
    if cfg!(target_arch = "x86_64") {
        env.denied(Control::NotTried, &[EPERM], &["modify-ldt", "iopl"]);
    }
    let rings = ["io-uring", "io-uring-enter", "io-uring-register"];
    env.denied(Control::NotTried, &[ENOSYS], &rings);
    env.denied(Control::NotTried, &[ENOSYS], &["unknown-call"]);
}

#[test]
fn names_and_execution_domains_cannot_be_changed() {
    let env = Env::new();
    env.denied(Control::Works, &[EPERM], &["sethostname", "setdomainname", "personality"]);
    assert_eq!(env.sh_ok("uname -n"), "bee\n");
}

#[test]
fn filters_of_its_own_cannot_loosen_anything() {
    let env = Env::new();
    env.denied(Control::WorksForRoot, &[EPERM], &["seccomp-listener", "seccomp-loosen"]);
}

#[test]
fn sigsys_ends_the_other_calling_convention() {
    if cfg!(target_arch = "x86_64") {
        let env = Env::new();
        assert_eq!(env.probe(&["x32"])["x32"], 1000 + libc::SIGSYS);
    }
}

#[test]
fn what_is_written_and_executed_is_held_by_the_same_walls() {
    let env = Env::new();
    let text = env.sh_ok(
        "cp /opt/skep/probe ./mine && chmod +x mine && ./mine setuid-0 mount-tmpfs netlink; \
         python3 -c 'import os;f=os.memfd_create(\"x\");os.write(f,open(\"/opt/skep/probe\",\"rb\").read());\
         os.execve(f,[\"x\",\"setuid-0\",\"mount-tmpfs\",\"netlink\"],{})'",
    );
    for action in ["setuid-0 ", "mount-tmpfs ", "netlink "] {
        assert_eq!(text.lines().filter(|l| l.starts_with(action) && !l.ends_with(" 0")).count(), 2, "{text}");
    }
}

#[test]
fn ordinary_freedoms_remain() {
    let env = Env::new();
    for (action, number) in env.probe(&["unshare-files", "unix", "tcp", "tcp6"]) {
        assert_eq!(number, 0, "{action}");
    }
}

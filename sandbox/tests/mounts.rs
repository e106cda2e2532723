//! Nothing in a cell can change what is mounted, by the old calls or the new, in place or in a nested namespace.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use harness::{Control, Env};
use libc::{ENOSPC, ENOSYS, EPERM};

#[test]
fn mount_calls_are_refused() {
    let env = Env::new();
    env.denied(Control::Works, &[EPERM], &["fsopen", "open-tree", "mount-tmpfs"]);
    env.denied(
        Control::NotTried,
        &[EPERM],
        &[
            "bind",
            "remount-usr",
            "umount-proc",
            "fspick",
            "fsmount",
            "fsconfig",
            "move-mount",
            "mount-setattr",
            "pivot-root",
            "chroot",
        ],
    );
}

#[test]
fn no_namespace_can_be_made_or_entered() {
    let env = Env::new();
    let user = format!("namespace:{}", libc::CLONE_NEWUSER);
    let clone = format!("clone:{}", libc::CLONE_NEWUSER);
    env.denied(Control::Works, &[EPERM, ENOSPC], &[&user, &clone]);
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
        0x80,
    ] {
        let nested = format!("namespace:{}", flag | libc::CLONE_NEWUSER);
        env.denied(Control::NotTried, &[EPERM, ENOSPC], &[&nested, &format!("namespace:{flag}")]);
    }
    env.denied(Control::Works, &[ENOSYS], &["clone3-user"]);
    env.denied(Control::NotTried, &[EPERM], &["setns"]);
}

#[test]
fn tools_that_mount_fail_and_leave_usr_read_only() {
    let env = Env::new();
    let text = env.sh_ok(
        "unshare -Ur true 2>/dev/null && echo nested; mount -t tmpfs t /tmp 2>/dev/null && echo mounted; \
         mount -o remount,rw,bind /usr 2>/dev/null && echo remounted; umount /proc 2>/dev/null && echo unmounted; \
         bwrap --ro-bind / / true 2>/dev/null && echo bubblewrapped; echo done",
    );
    assert_eq!(text, "done\n");
}

#[test]
fn every_mount_is_nosuid_and_only_the_agents_trees_are_writable() {
    let env = Env::new();
    let text = env.sh_ok("cat /proc/self/mountinfo");
    let mut writable = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (point, options) = (fields[4], fields[5]);
        let has = |option: &str| options.split(',').any(|each| each == option);
        assert!(has("nosuid"), "{line}");
        if !point.starts_with("/dev/") || point == "/dev/shm" {
            assert!(has("nodev"), "{line}");
        }
        if has("rw") {
            writable.push(point);
        }
    }
    writable.sort_unstable();
    assert_eq!(writable, ["/dev/shm", "/home/agent", "/proc", "/tmp", "/workspace"]);
    assert!(!text.contains(" /sys") && !text.contains("cgroup"), "{text}");
}

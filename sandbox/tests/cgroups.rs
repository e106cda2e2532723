//! Cgroups: limits that hold, kills that are complete, leaves that go away. Needs root and a cgroup version 2 tree, or
//! `SKEP_TEST_CGROUP` with a delegated one; each limit needs its controller. What is missing is said, not passed over.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use harness::{Env, is_root, skip, wait};
use skep_sandbox::{End, Tier};

/// One subtree, one test at a time: a new helper clears what an earlier one left.
static TURN: Mutex<()> = Mutex::new(());

struct Subtree(PathBuf);

impl Drop for Subtree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn subtree() -> Option<Subtree> {
    let roots = match std::env::var_os("SKEP_TEST_CGROUP") {
        Some(given) => vec![PathBuf::from(given)],
        None if is_root() => vec!["/sys/fs/cgroup".into(), "/sys/fs/cgroup/unified".into()],
        None => Vec::new(),
    };
    let Some(root) = roots.into_iter().find(|root| root.join("cgroup.procs").exists()) else {
        skip("no cgroup version 2 tree that this user may use");
        return None;
    };
    for name in ["memory", "pids", "cpu"] {
        let _ = std::fs::write(root.join("cgroup.subtree_control"), format!("+{name}"));
    }
    let path = root.join(format!("skep-test-{}", std::process::id()));
    std::fs::create_dir(&path).expect("a cgroup");
    Some(Subtree(path))
}

fn env(subtree: &Subtree) -> Env {
    let env = Env::with(|config| config.cgroup = Some(subtree.0.clone()));
    assert_eq!(env.launcher.capabilities().cgroup_problem, None);
    env
}

fn gone(path: &Path) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    while path.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    !path.exists()
}

#[test]
fn a_cell_lives_in_its_own_leaf_and_takes_it_along() {
    let _turn = TURN.lock();
    let Some(subtree) = subtree() else { return };
    let env = env(&subtree);
    let (cell, _reader) = env.start(env.parts(&["/bin/sh", "-c", "sleep 60 & sleep 60"]));
    std::thread::sleep(Duration::from_millis(100));
    let leaf = cell.cgroup().expect("a leaf").to_owned();
    let held = std::fs::read_to_string(leaf.join("cgroup.procs")).expect("processes");
    assert_eq!(held.lines().count(), 4, "reaper, shell and two sleeps: {held}");
    assert!(held.lines().any(|line| line == cell.pid().to_string()));
    assert!(cell.report().cgroup.as_ref().is_some_and(|limits| limits.kill));
    assert!(cell.memory().is_some_and(|bytes| bytes > 100_000));
    cell.kill().expect("kill");
    assert!(gone(&leaf), "the leaf stays");
    cell.kill().expect("killing again is no error");
}

#[test]
fn a_new_helper_kills_and_removes_what_an_old_one_left() {
    let _turn = TURN.lock();
    let Some(subtree) = subtree() else { return };
    let stale = subtree.0.join("cell-77");
    std::fs::create_dir(&stale).expect("a stale leaf");
    #[expect(clippy::disallowed_methods, reason = "a process left over from another time")]
    let mut left = std::process::Command::new("/bin/sleep").arg("300").spawn().expect("sleep");
    std::fs::write(stale.join("cgroup.procs"), left.id().to_string()).expect("moved");
    let _env = env(&subtree);
    assert!(!left.wait().expect("ended").success(), "the left-over process was killed");
    assert!(!stale.exists());
}

#[test]
fn the_process_limit_holds_the_whole_cell() {
    let _turn = TURN.lock();
    let Some(subtree) = subtree() else { return };
    let env = env(&subtree);
    if !env.launcher.capabilities().has_controller("pids") {
        return skip("no pids controller");
    }
    let mut parts = env.parts(&["/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait"]);
    parts.limits.pids = 6;
    let (cell, _reader) = env.start(parts);
    assert_eq!(cell.report().cgroup.as_ref().and_then(|limits| limits.pids_max), Some(6));
}

#[test]
fn too_much_memory_ends_the_cell_and_is_told() {
    let _turn = TURN.lock();
    let Some(subtree) = subtree() else { return };
    let env = env(&subtree);
    if !env.launcher.capabilities().has_controller("memory") {
        assert!(env.launcher.tier() >= Tier::T2);
        return skip("no memory controller");
    }
    let mut parts = env.parts(&["/opt/skep/probe", "eat-mib:300"]);
    parts.limits.memory_bytes = Some(64 << 20);
    let (mut cell, _reader) = env.start(parts);
    assert_eq!(cell.report().cgroup.as_ref().and_then(|limits| limits.memory_max), Some(64 << 20));
    assert_eq!(cell.report().data_limit, None);
    let status = wait(&mut cell);
    assert_eq!(status.end, End::Signaled(libc::SIGKILL));
    assert!(status.out_of_memory);
    assert_eq!(env.sh_ok("echo fine"), "fine\n");
}

#[test]
fn the_processor_share_and_ceiling_are_in_force() {
    let _turn = TURN.lock();
    let Some(subtree) = subtree() else { return };
    let env = env(&subtree);
    if !env.launcher.capabilities().has_controller("cpu") {
        return skip("no cpu controller");
    }
    let mut parts = env.parts(&["/bin/sleep", "60"]);
    (parts.limits.cpu_weight, parts.limits.cpu_max_percent) = (50, Some(150));
    let (cell, _reader) = env.start(parts);
    let limits = cell.report().cgroup.clone().expect("limits");
    assert_eq!((limits.cpu_weight, limits.cpu_max_percent), (Some(50), Some(150)));
}

//! Limits: one cell's hunger is its own problem.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Control, Env};
use libc::{EINVAL, EPERM};
use skep_sandbox::{End, Limits};

fn limited(env: &Env, script: &str, change: impl FnOnce(&mut Limits)) -> harness::Output {
    let mut parts = env.parts(&["/bin/sh", "-c", script]);
    change(&mut parts.limits);
    env.run_parts(parts)
}

#[test]
fn a_fork_bomb_stops_at_the_limit_while_another_cell_works() {
    let env = Env::new();
    let bomb = "i=0; while [ $i -lt 300 ]; do sleep 30 & i=$((i+1)); done; wait";
    let mut parts = env.parts(&["/bin/bash", "-c", bomb]);
    parts.limits.pids = 40;
    let (bomb, _reader) = env.start(parts);
    std::thread::sleep(Duration::from_millis(300));
    let count = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", bomb.command_pid()))
        .expect("children");
    assert!(count.split_whitespace().count() < 60, "{count}");
    let started = Instant::now();
    assert_eq!(env.sh_ok("for i in 1 2 3; do true | cat; done; echo fine"), "fine\n");
    assert!(started.elapsed() < Duration::from_secs(3));
    let output =
        limited(&env, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait", |l| l.pids = 6);
    assert_ne!(output.status.end, End::Exited(0), "{}", output.text);
}

#[test]
fn memory_files_and_descriptors_have_ends() {
    let env = Env::new();
    let hog = "python3 -c 'b=bytearray(400<<20)'; echo $?";
    assert!(!limited(&env, hog, |l| l.data_bytes = 128 << 20).text.ends_with("\n0\n"));
    assert_eq!(limited(&env, hog, |_| {}).text, "0\n", "the control: the default limit is enough");
    let file = "head -c 2000000 /dev/zero > big; stat -c %s big";
    assert!(limited(&env, file, |l| l.file_size = Some(1 << 20)).text.contains("1048576"));
    assert_eq!(limited(&env, "ulimit -n", |l| l.open_files = 64).text, "64\n");
}

#[test]
fn no_limit_can_be_raised() {
    let env = Env::new();
    env.denied(Control::NotTried, &[EPERM], &["raise-nofile", "raise-nproc", "raise-memlock", "real-time"]);
    env.denied(Control::NotTried, &[EPERM, libc::EACCES], &["nice", "io-real-time"]);
}

#[test]
fn the_core_limit_that_keeps_host_handlers_away_stays_exactly_one() {
    let env = Env::new();
    env.denied(Control::Works, &[EINVAL], &["lower-core"]);
    assert_eq!(
        env.sh_ok("grep -i 'core file' /proc/self/limits | tr -s ' '"),
        "Max core file size 1 1 bytes \n"
    );
}

#[test]
fn agents_are_the_first_victims_of_memory_pressure() {
    let env = Env::new();
    assert_eq!(env.sh_ok("cat /proc/self/oom_score_adj"), "500\n");
    assert_ne!(env.sh("echo -1000 > /proc/self/oom_score_adj").status.end, End::Exited(0));
}

#[test]
fn system_v_and_posix_objects_are_private() {
    let env = Env::new();
    assert!(env.sh_ok("ipcmk -M 4096 >/dev/null && ipcs -m | grep -c 0x").trim() == "1");
    assert_eq!(env.sh_ok("ipcs -m | grep -c 0x || true").trim(), "0", "a second cell sees none of it");
}

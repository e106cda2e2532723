//! Processes: nobody else's can be seen, signalled or read, and nothing outlives its cell.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use harness::{Control, Env, wait};
use libc::{EACCES, ENOENT, EPERM, ESRCH};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_sandbox::{End, Signal};

/// True if the pidfd becomes readable within a second.
fn dies(cell: &skep_sandbox::Cell) -> bool {
    let mut watch = [PollFd::new(cell.pidfd(), PollFlags::POLLIN)];
    matches!(poll(&mut watch, PollTimeout::from(1000_u16)), Ok(1))
}

#[test]
fn host_processes_are_neither_seen_nor_reached() {
    let env = Env::new();
    let ours = format!("signal:{}", std::process::id());
    env.denied(Control::Works, &[ESRCH], &[&ours]);
    let seen = env.sh_ok("ls /proc | grep -c '^[0-9]'");
    assert!(seen.trim().parse::<u32>().expect("a count") <= 4, "{seen}");
}

#[test]
fn the_reaper_cannot_be_traced_or_read() {
    let env = Env::new();
    env.denied(Control::NotTried, &[EPERM], &["ptrace:1", "vm-read:1", "kcmp", "pidfd-getfd"]);
    let read = [
        "read:/proc/1/mem",
        "read:/proc/1/environ",
        "read:/proc/1/maps",
        "list:/proc/1/fd",
        "list:/proc/1/root/",
    ];
    env.denied(Control::NotTried, &[ENOENT, EACCES, EPERM], &read);
}

#[test]
fn siblings_cannot_be_traced() {
    let env = Env::new();
    let text = env.sh_ok("sleep 5 & p=$!; /opt/skep/probe ptrace:$p vm-read:$p; kill $p");
    assert!(text.lines().all(|line| line.ends_with(" 1")), "{text}");
}

#[test]
fn the_exit_code_or_signal_comes_back() {
    let env = Env::new();
    assert_eq!(env.sh("exit 7").status.end, End::Exited(7));
    assert_eq!(env.sh("kill -9 $$").status.end, End::Signaled(9));
}

#[test]
fn a_request_to_stop_reaches_the_command() {
    let env = Env::new();
    let script = "trap 'echo stopping; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let (mut cell, reader) = env.start(env.parts(&["/bin/sh", "-c", script]));
    let mut lines = BufReader::new(reader).lines().map(|line| line.expect("text"));
    assert_eq!(lines.next().as_deref(), Some("up"));
    cell.signal(Signal::SIGTERM).expect("signal");
    assert_eq!(lines.next().as_deref(), Some("stopping"));
    assert_eq!(wait(&mut cell).end, End::Exited(3));
}

#[test]
fn orphans_are_reaped_and_die_with_the_command() {
    let env = Env::new();
    let script = "for i in 1 2 3 4 5; do (setsid sh -c 'true' &) ; done; sleep 0.3; ps -e -o stat= | grep -c Z; \
                  (setsid sh -c 'trap \"\" TERM HUP; sleep 300' >/dev/null 2>&1 &); exit 0";
    let started = Instant::now();
    let output = env.sh(script);
    assert_eq!((output.text.as_str(), output.status.end), ("0\n", End::Exited(0)));
    assert!(started.elapsed() < Duration::from_secs(5), "the daemonised sleep kept the cell alive");
}

#[test]
fn killing_a_cell_kills_a_hostile_tree_at_once() {
    let env = Env::new();
    let script = "i=0; while [ $i -lt 200 ]; do setsid sh -c 'trap \"\" TERM HUP INT; sleep 300 & wait' & i=$((i+1)); done; echo up; wait";
    let mut parts = env.parts(&["/bin/sh", "-c", script]);
    parts.limits.pids = 1000;
    let (cell, reader) = env.start(parts);
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).expect("line");
    assert_eq!(line, "up\n");
    std::thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    cell.kill().expect("kill");
    assert!(dies(&cell), "still alive after a second");
    let took = started.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    cell.kill().expect("killing again is no error");
}

#[test]
fn dropping_the_handle_kills_the_cell() {
    let env = Env::new();
    let (cell, _reader) = env.start(env.parts(&["/bin/sleep", "300"]));
    let copy = cell.pidfd().as_fd().try_clone_to_owned().expect("copy");
    let mut watch = [PollFd::new(copy.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut watch, PollTimeout::ZERO), Ok(0), "it lives");
    drop(cell);
    let mut watch = [PollFd::new(copy.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut watch, PollTimeout::from(1000_u16)), Ok(1));
}

#[test]
fn cells_die_with_the_helper_and_with_the_launcher() {
    for kill_helper in [true, false] {
        let env = Env::new();
        let (cell, _reader) = env.start(env.parts(&["/bin/sleep", "300"]));
        let Env { launcher, root: _root, .. } = env;
        if kill_helper {
            let helper = nix::unistd::Pid::from_raw(launcher.helper_pid().cast_signed());
            nix::sys::signal::kill(helper, Signal::SIGKILL).expect("kill");
            let mut watch = [PollFd::new(launcher.death_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut watch, PollTimeout::from(1000_u16)), Ok(1));
        } else {
            drop(launcher);
        }
        assert!(dies(&cell), "helper killed: {kill_helper}");
    }
}

#[test]
fn a_cell_knows_its_memory() {
    let env = Env::new();
    let (cell, _reader) = env.start(env.parts(&["/bin/sleep", "300"]));
    let deadline = Instant::now() + Duration::from_secs(5);
    // Just after exec nothing of the program is in memory yet.
    while cell.memory().expect("readable") < 100_000 {
        assert!(Instant::now() < deadline, "{:?}", cell.memory());
    }
    assert!(cell.memory().is_some_and(|bytes| bytes < 100_000_000));
}

#[test]
fn a_signal_to_the_whole_service_does_not_end_the_helper_before_the_daemon() {
    let env = Env::new();
    let helper = nix::unistd::Pid::from_raw(env.launcher.helper_pid().cast_signed());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        nix::sys::signal::kill(helper, signal).expect("signal");
    }
    let output = env.sh("grep -E 'Sig(Ign|Blk)' /proc/self/status | tr -d '\\t'; kill -TERM $$; echo never");
    assert_eq!(output.text, "SigBlk:0000000000000000\nSigIgn:0000000000000000\n");
    assert_eq!(output.status.end, End::Signaled(15));
}

//! Ends and beginnings: a daemon that is stopped, killed, started twice, or started on a state that is not as it left it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use support::processes::{alive, descendants, name};
use support::{Exit, World, eventually, slow_reply, text_reply};

/// Streams for about `seconds`; the last word names the prompt.
fn streaming(seconds: usize) -> serde_json::Value {
    let text = format!("{}pong {{{{last}}}}", "Some words before it comes. ".repeat(4 * seconds));
    slow_reply("slowly", &text, 110)
}

fn cells(w: &World) -> usize {
    let agents = w.daemon.overview()["agents"].clone();
    agents.as_array().unwrap().iter().map(|agent| agent["cells"].as_array().map_or(0, Vec::len)).sum()
}

/// Runs a second `skep daemon` on the state of `w` to its end.
fn daemon_once(w: &World) -> Output {
    w.daemon.skep(&["daemon"], "")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_turn_that_ends_within_the_deadline_is_finished_before_the_daemon_ends() {
    let mut w = World::start(json!([streaming(3)]));
    w.phone.says("slowly 1x");
    w.phone.sees("Some words");
    let below = descendants(w.daemon.pid());
    assert!(below.iter().any(|pid| name(*pid).starts_with("claude")), "Claude runs");
    let asked = Instant::now();
    assert_eq!(w.daemon.stop(), Exit::Code(0));
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    let answers = w.phone.answers();
    assert!(
        answers.len() == 1 && answers[0].ends_with("pong slowly 1x"),
        "delivered before the end: {answers:?}"
    );
    assert_eq!(alive(&below), Vec::<u32>::new(), "nothing is left running");
    w.daemon.launch();
    w.phone.says("next");
    w.phone.sees("echo: next");
    assert_eq!(w.phone.answers().len(), 2, "{}", w.phone.screen());
    let again = w.model.requests().iter().any(|request| request.to_string().contains("Note from Skep"));
    assert!(!again, "the finished turn is not asked for again");
}

#[test]
fn a_turn_longer_than_the_deadline_is_resumed_once_and_says_so() {
    let mut w = World::start(json!([
        {"when": {"typed": "slowly", "not_body": "Note from Skep"}, "times": "always", "reply": {"content": [
            {"type": "text", "text": "Some words before it comes. ".repeat(200), "delta_ms": 150}]}},
        text_reply("Note from Skep", "the whole answer"),
    ]));
    w.phone.says("slowly 1x");
    w.phone.sees("Some words");
    let below = descendants(w.daemon.pid());
    let asked = Instant::now();
    assert_eq!(w.daemon.stop(), Exit::Code(0));
    assert!(asked.elapsed() < Duration::from_secs(16), "{:?}", asked.elapsed());
    assert_eq!(alive(&below), Vec::<u32>::new(), "nothing is left running");
    w.daemon.launch();
    w.phone.sees("Resumed after an interruption.*the whole answer");
    w.phone.says("next");
    w.phone.sees("echo: next");
    let answers = w.phone.answers();
    assert_eq!(answers.len(), 2, "one message for the resumed run: {answers:#?}");
    assert_eq!(answers[0].matches("the whole answer").count(), 1);
    let runs = w.daemon.overview()["runs"].clone();
    assert_eq!(runs.as_array().unwrap().iter().filter(|run| run["state"] == "finished").count(), 2, "{runs}");
}

#[test]
fn a_waiting_queue_survives_a_restart_in_its_order() {
    let mut w = World::start(json!([
        {"when": {"typed": "slowly", "not_body": "Note from Skep"}, "times": "always", "reply": {"content": [
            {"type": "text", "text": "Some words before it comes. ".repeat(200), "delta_ms": 150}]}},
        text_reply("Note from Skep", "the whole answer"),
    ]));
    w.phone.says("slowly 0x");
    w.phone.sees("Some words");
    for n in 1..=5 {
        w.phone.says(&format!("waiting {n}x"));
    }
    eventually("five wait", 20, || (w.daemon.overview()["queue"]["queued"] == 5).then_some(()));
    w.daemon.kill();
    w.daemon.launch();
    w.phone.sees("echo: waiting 5x");
    let order: Vec<String> =
        w.phone.answers().into_iter().filter(|a| a.contains("echo") || a.contains("whole")).collect();
    let numbers: Vec<usize> = (1..=5)
        .map(|n| order.iter().position(|a| a.ends_with(&format!("echo: waiting {n}x"))).expect("answered"))
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5], "each once, in order, behind the resumed one: {order:#?}");
    assert_eq!(order.len(), 6, "{order:#?}");
    let lines = w.phone.answers().iter().filter(|a| a.contains("In line")).count();
    assert_eq!(lines, 5, "a restart does not say again that a message waits\n{}", w.phone.screen());
}

#[test]
fn an_idle_daemon_ends_at_once_and_leaves_nothing() {
    let mut w = World::start(json!([]));
    w.phone.says("hello");
    w.phone.sees("echo: hello");
    assert_eq!(cells(&w), 1, "the cell waits for more");
    let below = descendants(w.daemon.pid());
    assert!(below.len() >= 3, "helper, first process of the cell, Claude: {below:?}");
    let asked = Instant::now();
    assert_eq!(w.daemon.stop(), Exit::Code(0));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(alive(&below), Vec::<u32>::new());
    let gone = w.daemon.skep(&["status"], "");
    assert_eq!(gone.status.code(), Some(69));
    assert!(
        said(&gone).contains("is not running") && said(&gone).contains("skep daemon --state"),
        "{}",
        said(&gone)
    );
}

#[test]
fn a_stop_at_any_moment_of_a_start_is_quick_and_loses_nothing() {
    let mut w = World::prepare(json!([]));
    w.without_flood_limits();
    let moments = [0, 40, 80, 120, 200, 300, 450];
    for delay in moments {
        w.daemon.launch();
        w.phone.says(&format!("moment {delay}x"));
        sleep(Duration::from_millis(delay));
        let asked = Instant::now();
        assert_eq!(w.daemon.stop(), Exit::Code(0));
        assert!(asked.elapsed() < Duration::from_secs(3), "{delay} ms: {:?}", asked.elapsed());
    }
    w.daemon.launch();
    for delay in moments {
        w.phone.sees(&format!("moment {delay}x"));
    }
    w.phone.says("the end");
    w.phone.sees("echo: the end");
    for delay in moments {
        let count = w.phone.answers().iter().filter(|a| a.ends_with(&format!("moment {delay}x"))).count();
        assert_eq!(count, 1, "{delay}\n{}", w.phone.screen());
    }
}

#[test]
fn a_killed_daemon_leaves_no_cell_alive() {
    let mut w = World::start(json!([streaming(20)]));
    w.phone.says("slowly 1x");
    w.phone.sees("Some words");
    let below = descendants(w.daemon.pid());
    assert!(below.iter().any(|pid| name(*pid).starts_with("claude")), "Claude runs");
    w.daemon.kill();
    let killed = Instant::now();
    eventually("everything below the daemon ends", 5, || alive(&below).is_empty().then_some(()));
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_the_first_goes_on() {
    let w = World::start(json!([]));
    let second = daemon_once(&w);
    assert!(!second.status.success());
    let told = said(&second);
    assert!(told.contains("another skep daemon is running") && told.contains("stop it first"), "{told}");
    w.phone.says("still there");
    w.phone.sees("echo: still there");
}

#[test]
fn a_database_of_a_newer_version_or_without_sense_is_refused_and_kept() {
    let w = World::prepare(json!([]));
    let database = w.daemon.state().join("skep.db");
    let newer = Command::new("python3")
        .args(["-c", "import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version=99')"])
        .arg(&database)
        .status();
    assert!(newer.unwrap().success());
    let cases = [
        (None, ["has format 99", "install the newer Skep"]),
        (Some(vec![b'x'; 8192]), ["cannot open the database", "not a database"]),
    ];
    for (content, expected) in cases {
        if let Some(content) = content {
            fs::write(&database, content).unwrap();
        }
        let before = fs::read(&database).unwrap();
        let refused = daemon_once(&w);
        assert_eq!(refused.status.code(), Some(70));
        let told = said(&refused);
        let last = told.lines().last().unwrap();
        assert!(expected.iter().all(|part| last.contains(part)), "{told}");
        assert!(last.contains("skep.db"), "the file is named: {last}");
        assert_eq!(fs::read(&database).unwrap(), before, "the file is untouched");
    }
}

#[test]
fn a_conversation_whose_transcript_is_gone_begins_afresh_and_says_so() {
    let mut w = World::start(json!([]));
    w.phone.says("remember plum");
    w.phone.sees("echo: remember plum");
    w.daemon.stop();
    fs::remove_dir_all(w.daemon.state().join("agents/general/home/.claude/projects")).unwrap();
    w.daemon.launch();
    w.phone.says("which fruit");
    w.phone.sees("could not be resumed; this is a fresh one.*echo: which fruit");
    w.phone.says("and now");
    w.phone.sees("echo: and now");
    let answers = w.phone.answers();
    assert!(!answers.last().unwrap().contains("could not be resumed"), "it is said once: {answers:?}");
}

#[test]
fn a_claude_that_is_missing_or_ends_at_once_is_told_with_its_fix() {
    let mut w = World::prepare(json!([]));
    let stub = w.daemon.state().join("stub");
    fs::write(&stub, "#!/bin/sh\necho 'this machine is too old' >&2\nexit 3\n").unwrap();
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    let with_program = |program: &Path| {
        let own = support::claude().display().to_string();
        w.daemon.settings().replace(&own, &program.display().to_string())
    };
    let (missing, broken) = (with_program(Path::new("/opt/nobody/claude")), with_program(&stub));
    w.daemon.write_settings(&missing);
    w.daemon.launch();
    w.phone.says("hello");
    w.phone.sees("⚠️.*/opt/nobody/claude");
    w.daemon.stop();
    w.daemon.write_settings(&broken);
    w.daemon.launch();
    w.phone.says("hello again");
    w.phone.sees("⚠️.*this machine is too old");
    assert!(w.daemon.is_running());
    w.daemon.stop();
    let good = w.daemon.settings().to_owned();
    w.daemon.write_settings(&good);
    w.daemon.launch();
    w.phone.says("once more");
    w.phone.sees("echo: once more");
}

#[test]
fn a_claude_that_hangs_at_its_start_is_given_up_in_time_and_told() {
    let mut w = World::prepare(json!([]));
    let stub = w.daemon.state().join("stub");
    fs::write(&stub, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    let own = support::claude().display().to_string();
    w.daemon.write_settings(&w.daemon.settings().replace(&own, &stub.display().to_string()));
    w.daemon.launch();
    w.phone.says("hello");
    w.phone.sees("⚠️ Claude did not start in time");
    assert_eq!(cells(&w), 0, "the cell is ended");
    assert_eq!(w.daemon.stop(), Exit::Code(0));
}

/// A state directory on a disk of its own that can be filled; `None` where nothing may be mounted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn below(w: &World) -> Option<Self> {
        let state = w.daemon.state().to_owned();
        // The credentials and settings move onto the small disk with the rest of the state.
        let kept = state.parent().unwrap().join("kept");
        let script =
            "cp -a \"$1\" \"$2\"; mount -t tmpfs -o size=24m,mode=0755 tmpfs \"$1\"; cp -a \"$2/.\" \"$1\"";
        let mounted = Command::new("sh").args(["-ec", script, "sh"]).args([&state, &kept]).output().unwrap();
        if mounted.status.success() {
            return Some(Self(state));
        }
        println!("skipped: a small disk cannot be mounted here: {}", said(&mounted));
        None
    }

    fn fill(&self) {
        let script = "cat /dev/zero > \"$1\"";
        let filled = Command::new("sh").args(["-c", script, "sh"]).arg(self.0.join("ballast")).output();
        assert!(!filled.unwrap().status.success(), "the disk is full");
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// How often the owner sees the echo of `text`.
fn echoes(w: &World, text: &str) -> usize {
    w.phone.answers().iter().filter(|answer| answer.contains(&format!("echo: {text}"))).count()
}

#[test]
fn a_full_disk_loses_nothing() {
    let mut w = World::prepare(json!([]));
    let Some(disk) = SmallDisk::below(&w) else { return };
    w.daemon.launch();
    w.phone.says("before");
    w.phone.sees("echo: before");
    disk.fill();
    w.phone.says("while full 1x");
    w.phone.says("while full 2x");
    eventually("the daemon notices", 10, || w.daemon.log().contains("full").then_some(()));
    sleep(Duration::from_secs(2));
    assert!(w.daemon.is_running(), "it stays up:\n{}", w.daemon.log());
    assert_eq!(echoes(&w, "while full"), 0, "{}", w.phone.screen());
    disk.free();
    w.phone.sees("while full 1x");
    w.phone.sees("while full 2x");
    assert_eq!((echoes(&w, "while full 1x"), echoes(&w, "while full 2x")), (1, 1), "{}", w.phone.screen());
    assert_eq!(w.daemon.stop(), Exit::Code(0));
}

#[test]
fn a_disk_that_fills_during_a_turn_delays_its_answer_and_the_daemon_stops_and_starts_all_the_same() {
    let mut w = World::prepare(json!([streaming(2)]));
    let Some(disk) = SmallDisk::below(&w) else { return };
    w.daemon.launch();
    w.phone.says("slowly 1x");
    w.phone.sees("Some words");
    disk.fill();
    sleep(Duration::from_secs(3));
    assert!(w.daemon.is_running(), "it stays up:\n{}", w.daemon.log());
    let asked = Instant::now();
    assert_eq!(w.daemon.stop(), Exit::Code(0));
    assert!(asked.elapsed() < Duration::from_secs(16), "{:?}", asked.elapsed());
    w.daemon.launch();
    sleep(Duration::from_secs(1));
    assert!(w.daemon.is_running(), "it stays up:\n{}", w.daemon.log());
    disk.free();
    w.phone.sees("slowly 1x");
    w.phone.says("next");
    w.phone.sees("echo: next");
    assert!(w.phone.answers().iter().any(|a| a.ends_with("slowly 1x")), "{}", w.phone.screen());
}

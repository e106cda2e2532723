//! Durability, attacked: SIGKILL of the daemon at every named step of a message's path, of the helper and of Claude, and at
//! random moments. No accepted message may stay unanswered, and none may be answered twice without saying so.
//!
//! `make test` runs every named step once and a few random moments; `make crash` runs 200 (set `SKEP_RANDOM_KILLS`).
//! Needs the feature `failpoints`.

#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skep::failpoint::STEPS;
use support::{Daemon, Exit, Model, Phone};

struct World {
    phone: Phone,
    _model: Model,
    daemon: Daemon,
    _dir: tempfile::TempDir,
}

/// Long enough to stream when asked `slowly`, else at once. Every answer names its prompt.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let phone = Phone::start();
    let text = format!("{}pong {{{{last}}}}", "Some words before it comes. ".repeat(8));
    let slowly = json!([{"type": "text", "text": text, "delta_ms": 90, "chunk_chars": 14}]);
    let rules = json!([
        {"when": {"typed": "slowly"}, "times": "always", "reply": {"content": slowly}},
        {"when": {"typed": "ping"}, "times": "always", "reply": {"text": "pong {{last}}"}},
    ]);
    let model = Model::start(dir.path(), json!({"rules": rules, "fallback": {"text": "echo: {{last}}"}}));
    // Real limits hold back a campaign of hundreds of messages; their own tests are elsewhere.
    phone.post("config", json!({"flood": {"private": {"rate": 1000.0, "burst": 1000, "per_minute": null}}}));
    let daemon = Daemon::prepare(&phone, &model);
    World { phone, _model: model, daemon, _dir: dir }
}

/// How often the owner sees an answer to `prompt`, and how many of these do not say that they may be a repeat.
fn answers(messages: &[Value], prompt: &str) -> (usize, usize) {
    let pong = format!("pong {prompt}");
    let ends =
        |text: &str| text.ends_with(&pong) || (text.contains("[Note from Skep") && text.ends_with(prompt));
    let texts = messages.iter().filter(|m| m["by_bot"] == json!(true)).filter_map(|m| m["text"].as_str());
    let found: Vec<&str> = texts.filter(|text| ends(text)).collect();
    let marked = |text: &str| text.contains("Sent again") || text.contains("Resumed after an interruption");
    (found.len(), found.iter().filter(|text| !marked(text)).count())
}

/// Whether the owner was told that this prompt is given up: an ending too, counted apart.
fn given_up(messages: &[Value], prompt: &str) -> bool {
    let asked = messages.iter().find(|m| m["by_bot"] != json!(true) && m["text"] == prompt);
    let told = |m: &&Value| {
        m["reply_to"] == asked.unwrap()["message_id"] && m["text"].to_string().contains("given up")
    };
    asked.is_some() && messages.iter().any(|m| told(&m))
}

fn wait_answered(w: &World, prompt: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let messages = w.phone.messages();
        if answers(&messages, prompt).0 > 0 || given_up(&messages, prompt) {
            break;
        }
        assert!(Instant::now() < end, "{prompt} is not answered:\n{}\n{}", w.phone.screen(), w.daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    // A second answer would follow closely.
    std::thread::sleep(Duration::from_millis(300));
    let (count, unmarked) = answers(&w.phone.messages(), prompt);
    assert!(unmarked <= 1, "{prompt}: {count} answers, {unmarked} unmarked:\n{}", w.phone.screen());
}

#[test]
fn a_message_survives_a_kill_at_every_named_step() {
    let mut w = world();
    let mut killed = 0;
    for (n, step) in STEPS.iter().enumerate() {
        // The draft's steps need an answer that streams.
        let prompt = if step.starts_with("draft") { format!("slowly ping {n}") } else { format!("ping {n}") };
        w.daemon.set_env("SKEP_KILL_AT", step);
        w.daemon.launch();
        w.phone.says(&prompt);
        match w.daemon.wait(60) {
            Exit::Signal(9) => killed += 1,
            other => panic!("{step}: {other:?}\n{}", w.daemon.log()),
        }
        w.daemon.clear_env();
        w.daemon.launch();
        wait_answered(&w, &prompt);
        assert_eq!(w.daemon.stop(), Exit::Code(0), "{step}");
    }
    println!("named steps: {killed} kills, {} messages, 0 lost, 0 answered twice unmarked", STEPS.len());
    assert_eq!(killed, STEPS.len());
}

#[test]
fn the_helper_and_claude_can_be_killed_at_any_state_of_a_run() {
    let mut w = world();
    w.daemon.launch();
    // Claude while it streams: the daemon picks the run up by itself.
    w.phone.says("slowly ping 1");
    w.phone.sees("Some words");
    kill(claude_pid(&w.daemon).expect("Claude runs"));
    wait_answered(&w, "slowly ping 1");
    assert!(w.daemon.is_running(), "the death of a child is an event");
    // Claude while it is idle.
    kill(claude_pid(&w.daemon).expect("Claude waits"));
    w.phone.says("ping 2");
    wait_answered(&w, "ping 2");
    // The helper while a run streams: the daemon ends and its service manager starts it again.
    w.phone.says("slowly ping 3");
    w.phone.sees("Some words before it comes. Some");
    kill(helper_pid(&w.daemon).expect("the helper runs"));
    assert_ne!(w.daemon.wait(30), Exit::Code(0));
    w.daemon.launch();
    wait_answered(&w, "slowly ping 3");
    assert_eq!(w.daemon.stop(), Exit::Code(0));
}

#[test]
fn messages_survive_kills_at_random_moments() {
    let rounds: u64 = std::env::var("SKEP_RANDOM_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let seed: u64 = std::env::var("SKEP_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
    });
    println!("SKEP_SEED={seed}");
    let mut random = Random(seed);
    let mut w = world();
    w.daemon.launch();
    let (mut daemons, mut helpers, mut claudes) = (0, 0, 0);
    let mut prompts = Vec::new();
    for round in 0..rounds {
        let slowly = if random.below(3) == 0 { "slowly " } else { "" };
        let prompt = format!("{slowly}ping r{round}x");
        w.phone.says(&prompt);
        prompts.push(prompt);
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        match random.below(4) {
            0 => helpers += u64::from(helper_pid(&w.daemon).is_some_and(kill)),
            1 => claudes += u64::from(claude_pid(&w.daemon).is_some_and(kill)),
            _ => {
                daemons += 1;
                w.daemon.kill();
                w.daemon.launch();
            }
        }
        // A daemon whose helper died ends by itself.
        let end = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end {
            if !w.daemon.is_running() {
                w.daemon.wait(1);
                w.daemon.launch();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Mostly one blow for a message; sometimes they pile up.
        if random.below(4) != 0 {
            wait_answered(&w, prompts.last().unwrap());
        }
    }
    for prompt in &prompts {
        wait_answered(&w, prompt);
    }
    let messages = w.phone.messages();
    let repeated = prompts.iter().filter(|p| answers(&messages, p).0 > 1).count();
    let given_up = prompts.iter().filter(|p| given_up(&messages, p)).count();
    println!(
        "random moments: {daemons} kills of the daemon, {helpers} of the helper, {claudes} of Claude; {} messages, \
         0 lost, 0 answered twice unmarked, {repeated} answered again and marked, {given_up} given up and told",
        prompts.len()
    );
    assert_eq!(w.daemon.stop(), Exit::Code(0));
}

/// SIGKILL; whether the process was there.
fn kill(pid: u32) -> bool {
    Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn helper_pid(daemon: &Daemon) -> Option<u32> {
    children(daemon.pid()).into_iter().find(|pid| name(*pid).starts_with("skep-sandbox"))
}

/// The `claude` below the first process of a cell.
fn claude_pid(daemon: &Daemon) -> Option<u32> {
    let reapers = children(helper_pid(daemon)?);
    reapers.into_iter().flat_map(children).find(|pid| name(*pid).starts_with("claude"))
}

fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// xorshift64*: the campaign can be repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

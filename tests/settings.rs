//! Settings and secrets that are wrong, missing or absurd: `skep check` and `skep daemon` say what to do about them, with
//! the exit code 78 that keeps systemd from trying again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use support::World;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn credential(w: &World, name: &str) -> PathBuf {
    w.daemon.state().join("credentials").join(name)
}

/// What both ways to read the settings say about them: the exit code and the text on standard error.
fn judged(w: &World) -> [(Option<i32>, String); 2] {
    ["check", "daemon"].map(|command| {
        let output = w.daemon.skep(&[command], "");
        (output.status.code(), said(&output))
    })
}

#[test]
fn every_mistake_is_reported_at_once_by_check_and_daemon_in_the_same_words() {
    let w = World::prepare(json!([]));
    w.daemon.write_settings(
        "[telegram]\nowners = \"me\"\ntoken = \"123:abc\"\n\n[agents.general]\nmodle = \"opus\"\nidle = \"soon\"\n",
    );
    let [check, daemon] = judged(&w);
    assert_eq!((check.0, daemon.0), (Some(78), Some(78)), "{}", daemon.1);
    assert_eq!(check.1, daemon.1);
    for (line, part) in
        [(2, "owners"), (3, "telegram-token"), (6, "did you mean \"model\""), (7, "not a duration")]
    {
        let place = format!("skep.toml:{line}:");
        assert!(
            check.1.lines().any(|l| l.contains(&place) && l.contains(part)),
            "{line} {part}:\n{}",
            check.1
        );
    }
    assert_eq!(check.1.lines().count(), 4, "no line is said twice:\n{}", check.1);
    assert!(!check.1.contains("123:abc"), "a secret in the wrong place is not repeated");
    let output = w.daemon.skep(&["check", "--json"], "");
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), verdict["ok"].as_bool()), (Some(78), Some(false)));
    assert_eq!(verdict["mistakes"].as_array().unwrap().len(), 4);
}

#[test]
fn hostile_and_huge_files_end_in_a_message() {
    let w = World::prepare(json!([]));
    let file = w.daemon.state().join("skep.toml");
    let deep = format!("x = {}{}\n", "[".repeat(20_000), "]".repeat(20_000));
    let many = (0..5_000).fold(String::new(), |text, n| text + &format!("key_{n} = {n}\n"));
    let long = format!("[agents.general]\ndescription = \"{}\"\n", "x".repeat(200_000));
    let cases: [(&str, &[u8]); 8] = [
        ("not UTF-8", b"[telegram]\nowners = [1]\n\xff\xfe"),
        ("zeros", &[0; 4096]),
        ("escapes", b"\x1b]0;owned\x07 = 1\n\x1b[2J"),
        ("deep", deep.as_bytes()),
        ("many", many.as_bytes()),
        ("long", long.as_bytes()),
        ("too large", &[b'#'; 300_000]),
        ("half", b"[agents.general\n"),
    ];
    for (what, content) in cases {
        fs::write(&file, content).unwrap();
        let [check, daemon] = judged(&w);
        assert_eq!((check.0, daemon.0), (Some(78), Some(78)), "{what}: {}", check.1);
        assert_eq!(check.1, daemon.1, "{what}");
        assert!(check.1.contains("skep.toml"), "{what}: the file is named: {}", check.1);
        assert!(check.1.len() < 30_000, "{what}: {} bytes", check.1.len());
        let clean = check.1.chars().all(|c| c == '\n' || !c.is_control());
        assert!(clean, "{what}: nothing reaches the terminal that could steer it: {:?}", check.1);
    }
    fs::remove_file(&file).unwrap();
    let [check, daemon] = judged(&w);
    assert_eq!((check.0, daemon.0), (Some(78), Some(78)));
    assert!(check.1.contains("create it") && check.1 == daemon.1, "{}", check.1);
    fs::create_dir(&file).unwrap();
    assert_eq!(judged(&w).map(|(code, _)| code), [Some(78), Some(78)], "a directory");
}

#[test]
fn a_secret_that_others_could_read_or_that_is_none_is_refused_with_its_remedy() {
    let w = World::prepare(json!([]));
    let token = credential(&w, "telegram-token");
    let refused = |part: &str| {
        let output = w.daemon.skep(&["daemon"], "");
        let told = said(&output);
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert_eq!(told.matches(part).count(), 1, "once: {told}");
        assert!(told.contains("telegram-token"), "{told}");
        assert!(!told.contains("AAFake"), "the secret itself is not shown: {told}");
    };
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    refused("chmod 600");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let good = fs::read(&token).unwrap();
    fs::write(&token, "").unwrap();
    refused("is empty");
    fs::write(&token, [&b"BOT="[..], &good].concat()).unwrap();
    refused("is not a bot token");
    let aside = w.daemon.state().join("aside");
    fs::rename(&token, &aside).unwrap();
    symlink(&aside, &token).unwrap();
    refused("symbolic link");
}

#[test]
fn without_a_bot_token_the_terminal_works() {
    let mut w = World::prepare(json!([]));
    fs::remove_file(credential(&w, "telegram-token")).unwrap();
    w.daemon.launch();
    let output = w.daemon.skep(&["ask", "general", "hello"], "");
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("echo: hello"));
    assert!(w.daemon.log().contains("Telegram stays off"), "{}", w.daemon.log());
    assert_eq!(w.phone.get("calls").as_array().map(Vec::len), Some(0), "nothing is asked of Telegram");
}

#[test]
fn without_a_model_credential_the_owner_is_told_how_to_store_one() {
    let mut w = World::prepare(json!([]));
    fs::remove_file(credential(&w, "anthropic-api-key")).unwrap();
    w.daemon.launch();
    w.phone.says("hello");
    w.phone.sees("⚠️.*credential");
    let answer = w.phone.answers().pop().unwrap();
    assert!(answer.contains("anthropic-api-key") || answer.contains("claude-oauth-token"), "{answer}");
    assert!(w.model.requests().is_empty(), "nothing leaves the machine without a key");
}

#[test]
fn a_key_that_the_api_refuses_is_told_to_the_owner() {
    let mut w = World::prepare(json!([]));
    let rule = json!({"when": {}, "times": "always", "reply":
        {"error": {"status": 401, "type": "authentication_error", "message": "invalid x-api-key"}}});
    w.model.plays(json!({"rules": [rule]}));
    w.daemon.launch();
    w.phone.says("hello");
    w.phone.sees("⚠️.*key");
    assert!(!w.phone.screen().contains("planted"), "the key is not shown");
}

#[test]
fn a_port_in_use_is_named() {
    let w = World::prepare(json!([]));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    w.daemon.write_settings(&w.daemon.settings().replace("127.0.0.1:0", &address));
    let output = w.daemon.skep(&["daemon"], "");
    let told = said(&output);
    assert_eq!(output.status.code(), Some(69), "{told}");
    let last = told.lines().last().unwrap();
    assert!(last.contains(&address) && last.contains("set listen in [status]"), "{last}");
    assert!(last.to_lowercase().contains("in use"), "{last}");
}

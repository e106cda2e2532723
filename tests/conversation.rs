//! The first conversation, whole: the built daemon, the real Claude Code CLI in a real cell, and both stand-ins.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Daemon, Exit, Model, OWNER, Phone, eventually, text_reply};

struct World {
    phone: Phone,
    model: Model,
    daemon: Daemon,
    _dir: tempfile::TempDir,
}

fn world(rules: Value) -> World {
    world_with(rules, |settings| settings)
}

fn world_with(rules: Value, change: impl FnOnce(String) -> String) -> World {
    let dir = tempfile::tempdir().unwrap();
    let phone = Phone::start();
    let model = Model::start(dir.path(), json!({"rules": rules, "fallback": {"text": "echo: {{last}}"}}));
    let mut daemon = Daemon::prepare(&phone, &model);
    daemon.write_settings(&change(daemon.settings().to_owned()));
    daemon.launch();
    World { phone, model, daemon, _dir: dir }
}

/// A reply that takes its time, so that it streams.
fn slow_reply(typed: &str, text: &str, delta_ms: u64) -> Value {
    let block = json!({"type": "text", "text": text, "delta_ms": delta_ms, "chunk_chars": 12});
    json!({"when": {"typed": typed}, "times": "always", "reply": {"content": [block]}})
}

#[test]
fn a_short_answer_takes_one_message_and_one_sign_of_life() {
    let w = world(json!([text_reply("^hello", "Hi, **owner**.")]));
    w.phone.says("hello");
    w.phone.sees("Hi, owner");
    let messages = w.phone.messages();
    let answer = messages.last().unwrap();
    assert_eq!(answer["text"], "Hi, owner.");
    assert_eq!(answer["html"], "Hi, <b>owner</b>.");
    assert_eq!(w.phone.calls("sendMessage").len(), 1);
    assert!(!w.phone.calls("sendChatAction").is_empty(), "typing is shown at once");
    let request = &w.model.requests()[0];
    assert!(
        request.to_string().contains("sk-ant-api03-planted"),
        "the broker puts the real key on: {request}"
    );
}

#[test]
fn a_long_answer_streams_and_ends_complete_and_formatted() {
    let body = "Words that come slowly, one after another, for quite a while. ".repeat(20);
    let text = format!("# Title\n\n{body}\n\n```rust\nfn main() {{}}\n```\n\n- one\n- two");
    let w = world(json!([slow_reply("^tell", &text, 60)]));
    w.phone.says("tell me");
    w.phone.sees("Words that come slowly");
    let early = w.phone.answers().pop().unwrap();
    w.phone.sees("• two");
    let answers = w.phone.answers();
    assert_eq!(answers.len(), 1, "one message, edited: {answers:#?}");
    assert!(early.len() < answers[0].len(), "the first look showed a part: {early}");
    assert!(
        answers[0].starts_with("Title\n\nWords") && answers[0].contains("fn main() {}"),
        "{}",
        answers[0]
    );
    let html = w.phone.messages().pop().unwrap()["html"].to_string();
    assert!(html.contains("<b>Title</b>") && html.contains("language-rust"), "{html}");
    assert!(w.phone.calls("editMessageText").len() >= 2, "it streamed");
    assert!(w.phone.get("warnings").as_array().is_none_or(Vec::is_empty), "{}", w.phone.get("warnings"));
}

#[test]
fn a_tool_runs_in_the_cell_and_cannot_get_out() {
    let probe = "id -u; cat /etc/shadow; ls /root; echo ran > proof.txt; env | grep -c planted";
    let tool =
        json!({"type": "tool_use", "name": "Bash", "input": {"command": probe, "description": "probe"}});
    let w = world(json!([
        {"when": {"tool_result": true}, "times": "always", "reply": {"text": "It said:\n\n```\n{{result}}\n```"}},
        {"when": {"typed": "^probe"}, "reply": {"content": [{"type": "text", "text": "Looking."}, tool]}},
    ]));
    w.phone.says("probe");
    // The whole answer: a streamed part of it would do for the first words.
    w.phone.sees("(?s)It said.*No such file.*\\n0$");
    let answer = w.phone.answers().pop().unwrap();
    assert!(answer.starts_with("Looking."), "the whole turn is kept: {answer}");
    assert!(answer.contains("1000\n") && !answer.contains("root:"), "{answer}");
    assert!(answer.contains("/etc/shadow: No such file"), "{answer}");
    let proof = w.daemon.state().join("agents/general/workspace/proof.txt");
    assert_eq!(std::fs::read_to_string(proof).unwrap(), "ran\n");
}

#[test]
fn two_agents_work_at_once() {
    let w = world(json!([
        slow_reply("slow", "Slow words that take their time to arrive here. ".repeat(50).as_str(), 80),
        text_reply("quick", "Quick answer."),
    ]));
    w.phone.says("slow please");
    w.phone.sees("Slow words");
    w.phone.says("@coder quick please");
    w.phone.sees("Quick answer");
    let first = w.phone.messages().into_iter().find(|m| m["text"].as_str().unwrap().contains("Slow words"));
    let versions = first.unwrap()["versions"].as_u64().unwrap();
    eventually("the slow one goes on", 30, || {
        let messages = w.phone.messages();
        let slow = messages.iter().find(|m| m["text"].as_str().unwrap().contains("Slow words")).unwrap();
        (slow["versions"].as_u64().unwrap() > versions).then_some(())
    });
    assert!(w.daemon.state().join("agents/coder/workspace").is_dir());
}

#[test]
fn ten_messages_wait_in_line_and_are_answered_in_order() {
    let w = world(json!([slow_reply("ping", "pong {{last}}", 30)]));
    for n in 0..10 {
        w.phone.says(&format!("ping {n}"));
    }
    w.phone.sees("pong ping 9");
    let order: Vec<String> = w.phone.answers().into_iter().filter(|a| a.starts_with("pong")).collect();
    let expected: Vec<String> = (0..10).map(|n| format!("pong ping {n}")).collect();
    assert_eq!(order, expected);
    assert!(w.phone.answers().iter().any(|a| a.contains("In line")), "a waiting message says so");
}

#[test]
fn a_waiting_message_can_be_cancelled_by_its_button() {
    let w = world(json!([
        slow_reply("first", &"Still at it. ".repeat(200), 80),
        text_reply("second", "second done")
    ]));
    w.phone.says("first");
    w.phone.sees("Still at it");
    w.phone.says("second");
    w.phone.sees("In line");
    let queued =
        w.phone.messages().into_iter().find(|m| m["text"].as_str().unwrap().contains("In line")).unwrap();
    w.phone
        .post("callbacks", json!({"from_id": OWNER, "message_id": queued["message_id"], "text": "Cancel"}));
    eventually("the run is cancelled", 10, || {
        let runs = w.daemon.overview()["runs"].clone();
        runs.as_array()?.iter().any(|r| r["state"] == "cancelled").then_some(())
    });
    w.phone.says("/stop");
    w.phone.sees("Stopped");
    w.phone.says("third");
    w.phone.sees("echo: third");
    assert!(!w.phone.answers().iter().any(|a| a.contains("second done")));
}

#[test]
fn stop_ends_the_turn_and_keeps_what_was_said() {
    let w = world(json!([slow_reply("count", &"counting on and on. ".repeat(150), 100)]));
    w.phone.says("count");
    w.phone.sees("counting on");
    let asked = Instant::now();
    w.phone.says("/stop");
    w.phone.sees("Stopped");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    let answer = w.phone.answers().pop().unwrap();
    assert!(answer.starts_with("counting on") && answer.ends_with("⏹ Stopped."), "{answer}");
    w.phone.says("/stop");
    w.phone.sees("Nothing is running here");
    w.phone.says("and now");
    w.phone.sees("echo: and now");
}

#[test]
fn an_idle_cell_ends_and_the_conversation_goes_on() {
    let w = world_with(json!([]), |s| {
        s.replace("\"Everyday questions\"", "\"Everyday questions\"\nidle = \"1s\"")
    });
    w.phone.says("remember plum");
    w.phone.sees("echo: remember plum");
    let cells = |w: &World| w.daemon.overview()["agents"][1]["cells"].as_array().map_or(0, Vec::len);
    eventually("the idle cell ends", 20, || (cells(&w) == 0).then_some(()));
    w.phone.says("which fruit");
    w.phone.sees("echo: which fruit");
    let last = w.model.requests().into_iter().rev().find(|r| r.to_string().contains("which fruit")).unwrap();
    assert!(last.to_string().contains("remember plum"), "the session was resumed with its history");
}

#[test]
fn new_forgets_and_agents_can_be_chosen() {
    let w = world(json!([]));
    w.phone.says("remember plum");
    w.phone.sees("echo: remember plum");
    w.phone.says("/new");
    w.phone.sees("has forgotten");
    w.phone.says("which fruit");
    w.phone.sees("echo: which fruit");
    let last = w.model.requests().into_iter().rev().find(|r| r.to_string().contains("which fruit")).unwrap();
    assert!(!last.to_string().contains("remember plum"), "a fresh session");
    w.phone.says("/agents");
    w.phone.sees("@coder Writes code");
    w.phone.says("/agents coder");
    w.phone.sees("coder answers here");
    w.phone.says("hi there");
    w.phone.sees("echo: hi there");
    assert_eq!(w.daemon.overview()["runs"][0]["agent"], "coder");
    w.phone.says("/status");
    w.phone.sees("Cells: ");
    w.phone.says("/help");
    w.phone.sees("begin a fresh one");
}

#[test]
fn strangers_get_silence_and_the_pairing_code_makes_an_owner() {
    let w = world_with(json!([]), |s| s.replace("owners = [42]", "owners = []"));
    let before = w.phone.calls("sendMessage").len();
    w.phone.says("hello?");
    w.phone.says("/start");
    let output = w.daemon.skep(&["pair"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let code =
        text.split_whitespace().find(|w| w.len() == 9 && w.as_bytes()[4] == b'-').expect("a code").to_owned();
    w.phone.says("WRNG-CODE");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(w.phone.calls("sendMessage").len(), before, "silence for a stranger");
    w.phone.says(&code);
    w.phone.sees("Paired");
    w.phone.says("hello again");
    w.phone.sees("echo: hello again");
    w.phone.post("messages", json!({"from_id": 77, "text": code}));
    w.phone.post("messages", json!({"from_id": 77, "text": "let me in"}));
    w.phone.says("still there");
    w.phone.sees("echo: still there");
    assert!(
        !w.phone.calls("sendMessage").iter().any(|c| c["args"].to_string().contains("77")),
        "the code is used up"
    );
    let raw = std::fs::read(w.daemon.state().join("skep.db-wal")).unwrap_or_default();
    assert!(!raw.windows(9).any(|window| window == b"let me in"), "a stranger's words are not kept");
}

#[test]
fn a_reload_takes_effect_and_a_bad_file_keeps_the_old_settings() {
    let w = world(json!([]));
    w.daemon.write_settings("[agents.general]\nmodle = 3\n");
    w.daemon.signal("HUP");
    w.phone.sees("not valid; the old ones stay");
    assert!(w.phone.answers().pop().unwrap().contains("modle"), "the mistake is named");
    w.phone.says("@coder still here?");
    w.phone.sees("echo: still here");
    let more = format!("{}\n[agents.poet]\ndescription = \"Rhymes\"\n", w.daemon.settings());
    w.daemon.write_settings(&more);
    w.daemon.signal("HUP");
    eventually("the new agent is there", 10, || {
        w.daemon.overview()["agents"].as_array()?.iter().any(|a| a["name"] == "poet").then_some(())
    });
    w.phone.says("@poet rhyme");
    w.phone.sees("echo: rhyme");
    w.daemon.write_settings(&more.replace("[telegram]\nowners = [42]", "[telegram]\nowners = []"));
    w.daemon.signal("HUP");
    eventually("the owner is gone", 10, || {
        let before = w.phone.calls("sendMessage").len();
        w.phone.says("anybody?");
        std::thread::sleep(Duration::from_millis(400));
        (w.phone.calls("sendMessage").len() == before).then_some(())
    });
}

#[test]
fn a_new_api_key_is_in_force_after_a_reload() {
    let w = world(json!([]));
    w.phone.says("one");
    w.phone.sees("echo: one");
    std::fs::write(w.daemon.state().join("credentials/anthropic-api-key"), "sk-ant-api03-the-second-key\n")
        .unwrap();
    w.daemon.signal("HUP");
    eventually("the reload is done", 10, || w.daemon.log().contains("settings reloaded").then_some(()));
    w.phone.says("two");
    w.phone.sees("echo: two");
    let requests = w.model.requests();
    let keys: Vec<&str> = requests.iter().filter_map(|r| r["headers"]["x-api-key"].as_str()).collect();
    assert!(keys.first().unwrap().contains("planted"), "{keys:?}");
    assert!(keys.last().unwrap().contains("the-second-key"), "{keys:?}");
}

#[test]
fn an_api_error_is_told_with_its_fix() {
    let error = json!({"error": {"status": 400, "type": "invalid_request_error",
        "message": "Your credit balance is too low to access the Anthropic API."}});
    let w = world(json!([{"when": {"typed": "broke"}, "times": "always", "reply": error}]));
    w.phone.says("broke");
    w.phone.sees("⚠️");
    let answer = w.phone.answers().pop().unwrap();
    assert!(answer.to_lowercase().contains("credit"), "{answer}");
    w.phone.says("works");
    w.phone.sees("echo: works");
}

#[test]
fn a_terminal_asks_chats_and_lists() {
    let w = world(json!([slow_reply("stream", "one two three four five", 20)]));
    let output = w.daemon.skep(&["ask", "general", "hello"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("echo: hello"));
    let output = w.daemon.skep(&["chat"], "stream it\n/status\nsecond\n");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    for expected in ["one two three four five", "Cells: ", "echo: second"] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    let output = w.daemon.skep(&["runs", "--json"], "");
    let runs: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(runs[0]["prompt"], "second");
    assert_eq!(runs[0]["state"], "finished");
    let output = w.daemon.skep(&["ask", "nobody", "hello"], "");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no agent nobody"));
}

#[test]
fn a_command_of_the_owner_runs_in_the_agents_cell() {
    let w = world(json!([]));
    let output = w.daemon.skep(&["exec", "general", "--", "sh", "-c", "cat; id -u; exit 7"], "typed\n");
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "typed\n1000\n");
    let mut w = w;
    assert_eq!(w.daemon.stop(), Exit::Code(0));
    let output = w.daemon.skep(&["exec", "general", "--", "sh", "-c", "pwd; echo oops >&2; exit 3"], "");
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/workspace\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("oops"));
}

#[test]
fn the_credential_is_nowhere_but_in_the_daemon() {
    let w = world(json!([slow_reply("stay", &"staying for a while. ".repeat(150), 100)]));
    w.phone.says("stay");
    w.phone.sees("staying");
    let overview = w.daemon.overview();
    let cell = overview["agents"].as_array().unwrap().iter().find_map(|a| a["cells"].get(0)).unwrap().clone();
    let mut looked = 0;
    for pid in descendants(cell["pid"].as_u64().unwrap()) {
        for file in ["environ", "cmdline", "mountinfo"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            looked += usize::from(!text.is_empty());
            assert!(!contains(&text, b"planted"), "/proc/{pid}/{file}");
        }
    }
    assert!(looked >= 3, "the cell's processes were really read");
    let argv = std::fs::read(format!("/proc/{}/cmdline", w.daemon.pid())).unwrap();
    assert!(!contains(&argv, b"planted"));
    w.phone.says("/stop");
    w.phone.sees("Stopped");
    let token = w.phone.token().split(':').nth(1).unwrap().to_owned();
    assert!(!w.daemon.log().contains("planted") && !w.daemon.log().contains(&token), "the log");
    for file in walk(w.daemon.state()) {
        if file.parent().unwrap().ends_with("credentials") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(
            !contains(&bytes, b"never-to-be-seen") && !contains(&bytes, token.as_bytes()),
            "{}",
            file.display()
        );
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn descendants(root: u64) -> Vec<u64> {
    let mut all = vec![root];
    let mut next = 0;
    while next < all.len() {
        let pid = all[next];
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|c| c.parse::<u64>().ok()));
        next += 1;
    }
    all
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(walk(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

//! Telegram at its worst, judged on the owner's screen: every message is answered or refused in words, none is lost, and
//! what is shown twice says so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{OWNER, World, eventually, slow_reply};

/// Streams for about three seconds; the last word names the prompt.
fn streaming() -> Value {
    let text = format!("{}end of {{{{last}}}}", "Some words before it comes. ".repeat(12));
    slow_reply("stream", &text, 90)
}

/// The bot's messages that hold `text`, and how many of them do not say that they may be a repeat.
fn seen(w: &World, text: &str) -> (usize, usize) {
    let found: Vec<String> = w.phone.answers().into_iter().filter(|answer| answer.contains(text)).collect();
    (found.len(), found.iter().filter(|answer| !answer.contains("Sent again")).count())
}

fn clear_faults(w: &World) {
    w.phone.delete("faults");
}

fn network(w: &World, mode: &str) {
    w.phone.post("network", json!({"mode": mode}));
}

/// Waits until nothing waits in the daemon: inbox, runs, outbox.
fn settled(w: &World) {
    eventually("everything is delivered", 40, || {
        let queue = w.daemon.overview()["queue"].clone();
        ["inbox", "queued", "running", "outbox"].iter().all(|part| queue[part] == 0).then_some(())
    });
}

#[test]
fn a_send_that_breaks_is_repeated_until_confirmed_and_a_repeat_says_so() {
    let w = World::start(json!([]));
    let lost = [("drop", true), ("reset", true), ("truncate", true), ("garbage", true)];
    let never = [("drop", false), ("status", false)];
    for (n, (kind, perform)) in lost.into_iter().chain(never).enumerate() {
        w.phone.fault(json!({"method": "sendMessage", "kind": kind, "perform": perform}));
        let answer = format!("echo: message {n}x");
        w.phone.says(&format!("message {n}x"));
        w.phone.sees(&format!("Sent again.*{answer}"));
        let copies = if perform { (2, 1) } else { (1, 0) };
        assert_eq!(seen(&w, &answer), copies, "{kind}, performed: {perform}\n{}", w.phone.screen());
    }
    settled(&w);
    let answers = w.phone.answers();
    assert_eq!(answers.len(), 4 * 2 + 2, "{answers:#?}");
}

#[test]
fn a_stream_whose_edits_break_ends_complete_in_one_message() {
    let w = World::start(json!([streaming()]));
    for (kind, perform) in [("drop", true), ("truncate", true), ("status", false)] {
        w.phone.fault(json!({"method": "editMessageText", "kind": kind, "perform": perform}));
        let prompt = format!("stream {kind}");
        w.phone.says(&prompt);
        w.phone.sees(&format!("end of {prompt}"));
        assert_eq!(w.phone.get("faults")[0]["hits"], json!(1), "{kind} was met");
        clear_faults(&w);
    }
    settled(&w);
    let answers = w.phone.answers();
    assert_eq!(answers.len(), 3, "{answers:#?}");
    assert!(answers.iter().all(|answer| !answer.contains("Sent again")), "an edit is never a double");
}

#[test]
fn a_stream_whose_first_message_is_lost_is_complete_once_unmarked() {
    let w = World::start(json!([streaming()]));
    w.phone.fault(json!({"method": "sendMessage", "kind": "drop", "perform": true}));
    w.phone.says("stream it");
    w.phone.sees("Sent again.*end of stream it");
    settled(&w);
    assert_eq!(seen(&w, "end of stream it"), (1, 0), "the lost one stayed a beginning\n{}", w.phone.screen());
}

#[test]
fn a_long_flood_wait_is_obeyed_and_nothing_is_lost() {
    let w = World::start(json!([streaming()]));
    let wait = json!({"error_code": 429, "description": "Too Many Requests: retry after 3",
        "parameters": {"retry_after": 3}});
    let fault = |method: &str| {
        let mut fault = wait.clone();
        fault["method"] = json!(method);
        fault["kind"] = json!("error");
        w.phone.fault(fault);
    };
    for (method, prompt, answer) in
        [("sendMessage", "hello", "echo: hello"), ("editMessageText", "stream it", "end of stream it")]
    {
        fault(method);
        w.phone.says(prompt);
        w.phone.sees(answer);
        let calls = w.phone.get("calls");
        let calls: Vec<(&str, f64, bool)> = calls
            .as_array()
            .unwrap()
            .iter()
            .filter(|c| ["sendMessage", "editMessageText"].contains(&c["method"].as_str().unwrap()))
            .map(|c| {
                let refused = c["status"] == 429;
                (c["method"].as_str().unwrap(), c["at"].as_f64().unwrap(), refused)
            })
            .collect();
        let refused = calls.iter().rposition(|(_, _, refused)| *refused).expect("it was refused once");
        let next = calls[refused + 1];
        assert!(next.1 - calls[refused].1 >= 3.0, "{prompt}: no call before the time: {calls:?}");
        assert_eq!(seen(&w, answer), (1, 1));
    }
}

#[test]
fn a_poll_whose_answer_breaks_loses_and_doubles_nothing() {
    let w = World::start(json!([]));
    w.phone.get("wait?polling=1");
    for kind in ["drop", "reset", "truncate", "garbage", "status"] {
        w.phone.fault(json!({"method": "getUpdates", "kind": kind, "perform": true}));
        w.phone.says(&format!("before {kind}x"));
        w.phone.says(&format!("after {kind}x"));
        w.phone.sees(&format!("echo: after {kind}x"));
        assert_eq!(seen(&w, &format!("echo: before {kind}x")), (1, 1), "{}", w.phone.screen());
        clear_faults(&w);
    }
    settled(&w);
    assert_eq!(seen(&w, "echo").0, 10, "{}", w.phone.screen());
}

#[test]
fn a_daemon_started_without_a_network_is_ready_and_catches_up() {
    let mut w = World::prepare(json!([]));
    w.phone.says("early");
    network(&w, "blackhole");
    w.daemon.launch();
    let output = w.daemon.skep(&["ask", "general", "from the terminal"], "");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("echo: from the terminal"),
        "the terminal works"
    );
    network(&w, "refuse");
    sleep(Duration::from_secs(1));
    network(&w, "up");
    w.phone.sees("echo: early");
    eventually("it is online", 20, || (w.daemon.overview()["telegram"]["state"] == "online").then_some(()));
    assert_eq!(seen(&w, "echo: early"), (1, 1));
}

#[test]
fn an_answer_of_several_messages_survives_the_loss_of_one() {
    let text = (0..1400).fold(String::new(), |text, n| text + &format!("word{n} "));
    let w = World::start(json!([support::text_reply("long", &text)]));
    w.phone.fault(json!({"method": "sendMessage", "kind": "drop", "perform": true, "skip": 1}));
    w.phone.says("long");
    w.phone.sees("word1399");
    settled(&w);
    let answers = w.phone.answers();
    assert_eq!(answers.iter().filter(|answer| answer.contains("Sent again")).count(), 1, "{answers:#?}");
    let mut marked = answers.iter().position(|answer| answer.contains("Sent again")).unwrap();
    let mut shown = answers.clone();
    // The copy whose confirmation was lost stands right before the marked one.
    marked -= 1;
    shown.remove(marked);
    let words: Vec<&str> =
        shown.iter().flat_map(|a| a.split_whitespace()).filter(|w| w.starts_with("word")).collect();
    let expected: Vec<String> = (0..1400).map(|n| format!("word{n}")).collect();
    assert_eq!(words, expected, "complete and in order");
}

#[test]
fn a_second_poller_costs_time_but_no_message() {
    let w = World::start(json!([]));
    w.phone.get("wait?polling=1");
    let end = Instant::now() + Duration::from_secs(4);
    w.phone.says("during the fight");
    while Instant::now() < end {
        // The other program does not confirm, as one that has just been started.
        support::http::request("GET", &w.phone.method("getUpdates?timeout=1"), None);
    }
    w.phone.sees("echo: during the fight");
    w.phone.says("after it");
    w.phone.sees("echo: after it");
    settled(&w);
    assert_eq!((seen(&w, "during the fight"), seen(&w, "after it")), ((1, 1), (1, 1)));
    assert!(w.daemon.log().contains("another program uses this bot token"), "it is told once in the log");
}

#[test]
fn an_outage_in_the_middle_of_a_stream_leaves_one_complete_answer() {
    for mode in ["refuse", "blackhole"] {
        let w = World::start(json!([streaming()]));
        w.phone.says("stream it");
        w.phone.sees("Some words");
        network(&w, mode);
        sleep(Duration::from_secs(3));
        assert_eq!(seen(&w, "end of stream it").0, 0);
        network(&w, "up");
        w.phone.sees("end of stream it");
        settled(&w);
        assert_eq!(seen(&w, "end of stream it"), (1, 1), "{mode}\n{}", w.phone.screen());
        assert_eq!(w.phone.answers().len(), 1, "{mode}");
    }
}

#[test]
fn an_outage_before_the_answer_delays_it() {
    let late = json!({"when": {"typed": "late"}, "times": "always",
        "reply": {"wait_ms": 1500, "text": "the answer to {{last}}"}});
    for mode in ["refuse", "blackhole"] {
        let w = World::start(json!([late]));
        w.phone.says("late one");
        eventually("the model is asked", 20, || (!w.model.requests().is_empty()).then_some(()));
        network(&w, mode);
        eventually("the run ends while nobody can be told", 20, || {
            (w.daemon.overview()["queue"]["running"] == 0).then_some(())
        });
        sleep(Duration::from_secs(1));
        network(&w, "up");
        w.phone.sees("the answer to late one");
        settled(&w);
        let (all, unmarked) = seen(&w, "the answer to late one");
        assert!(all == 1 && unmarked <= 1, "{mode}\n{}", w.phone.screen());
    }
}

#[test]
fn a_message_written_during_an_outage_is_answered_after_it() {
    let w = World::start(json!([]));
    network(&w, "refuse");
    sleep(Duration::from_millis(1500));
    w.phone.says("into the dark");
    network(&w, "up");
    w.phone.sees("echo: into the dark");
    settled(&w);
    assert_eq!(seen(&w, "into the dark"), (1, 1));
}

/// An update with a message of the owner's, as `kind` of POST /updates wants it.
fn message(id: u64, text: &str) -> Value {
    let owner = json!({"id": OWNER, "is_bot": false, "first_name": "Owner"});
    json!({"message_id": id, "date": 1_790_000_000, "from": owner, "text": text,
        "chat": {"id": OWNER, "type": "private", "first_name": "Owner"}})
}

#[test]
fn an_update_delivered_again_is_answered_once() {
    let mut w = World::start(json!([]));
    w.phone.says("open the chat");
    w.phone.sees("echo: open the chat");
    let update = w.phone.post("updates", json!({"kind": "message", "value": message(900, "only once")}));
    w.phone.sees("echo: only once");
    w.phone.post("updates/repeat", json!({"update": update}));
    w.phone.post("updates/repeat", json!({"update": update, "new_id": true}));
    w.phone.says("something else");
    w.phone.sees("echo: something else");
    settled(&w);
    assert_eq!(seen(&w, "only once"), (1, 1), "{}", w.phone.screen());
    w.daemon.stop();
    w.daemon.launch();
    w.phone.post("updates/repeat", json!({"update": update}));
    w.phone.post("updates/repeat", json!({"update": update, "new_id": true}));
    w.phone.says("the end");
    w.phone.sees("echo: the end");
    settled(&w);
    assert_eq!(seen(&w, "only once"), (1, 1), "after a restart too\n{}", w.phone.screen());
}

#[test]
fn update_ids_may_jump_up_and_down_and_come_in_disorder() {
    let mut w = World::start(json!([]));
    for (n, next) in [5_000_000, 17, 900_000, 3].into_iter().enumerate() {
        w.phone.post("updates/renumber", json!({"next": next}));
        w.phone.says(&format!("jump {n}x"));
        w.phone.sees(&format!("echo: jump {n}x"));
    }
    // A batch in disorder waits for the daemon.
    w.daemon.stop();
    for (id, number) in [(1003, 60), (1001, 58), (1002, 59)] {
        let update = json!({"update_id": number, "message": message(id, &format!("disorder {id}x"))});
        w.phone.post("updates/repeat", json!({"update": update}));
    }
    w.phone.post("updates/renumber", json!({"next": 61}));
    w.daemon.launch();
    for id in [1001, 1002, 1003] {
        w.phone.sees(&format!("echo: disorder {id}x"));
    }
    w.phone.says("and on");
    w.phone.sees("echo: and on");
    settled(&w);
    for text in ["jump 0x", "jump 1x", "jump 2x", "jump 3x", "disorder 1001x", "disorder 1002x", "and on"] {
        assert_eq!(seen(&w, &format!("echo: {text}")), (1, 1), "{text}\n{}", w.phone.screen());
    }
}

#[test]
fn fifty_updates_at_once_are_answered_in_order() {
    let mut w = World::prepare(json!([]));
    w.without_flood_limits();
    for n in 0..50 {
        let agent = if n % 2 == 0 { "" } else { "@coder " };
        w.phone.says(&format!("{agent}number {n}x"));
    }
    w.daemon.launch();
    eventually("all fifty runs are done", 55, || {
        let queue = w.daemon.overview()["queue"].clone();
        let runs = w.daemon.skep(&["runs", "-n", "100", "--json"], "");
        let runs: Value = serde_json::from_slice(&runs.stdout).ok()?;
        let done = runs.as_array()?.iter().filter(|run| run["state"] == "finished").count();
        (queue["inbox"] == 0 && done == 50).then_some(())
    });
    let runs = w.daemon.skep(&["runs", "-n", "100", "--json"], "");
    let runs: Value = serde_json::from_slice(&runs.stdout).unwrap();
    for parity in [0, 1] {
        let mut prompts: Vec<usize> = runs
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|run| {
                run["prompt"].as_str()?.strip_prefix("number ")?.strip_suffix('x')?.parse().ok()
            })
            .filter(|n| n % 2 == parity)
            .collect();
        prompts.reverse();
        assert_eq!(prompts, (0..50).filter(|n| n % 2 == parity).collect::<Vec<_>>());
    }
}

#[test]
fn a_blocked_bot_goes_on_and_answers_when_it_is_let_in_again() {
    let late = json!({"when": {"typed": "late"}, "times": "always",
        "reply": {"wait_ms": 1500, "text": "the answer to {{last}}"}});
    let mut w = World::start(json!([late]));
    w.phone.says("late one");
    eventually("the model is asked", 20, || (!w.model.requests().is_empty()).then_some(()));
    w.phone.post("blocks", json!({"user_id": OWNER, "blocked": true}));
    eventually("the run ends", 20, || (w.daemon.overview()["queue"]["running"] == 0).then_some(()));
    sleep(Duration::from_secs(1));
    w.phone.post("blocks", json!({"user_id": OWNER, "blocked": false}));
    w.phone.says("are you there");
    w.phone.sees("echo: are you there");
    assert!(w.daemon.is_running());
    settled(&w);
    assert_eq!(seen(&w, "the answer to late one"), (1, 1), "not lost\n{}", w.phone.screen());
}

#[test]
fn a_message_edited_or_deleted_by_the_owner_is_answered_once() {
    let w = World::start(json!([streaming()]));
    w.phone.says("stream one");
    w.phone.sees("Some words");
    let asked = w.phone.messages().into_iter().find(|m| m["by_bot"] == json!(false)).unwrap();
    let id = asked["message_id"].clone();
    w.phone
        .post("edits", json!({"from_id": OWNER, "chat_id": OWNER, "message_id": id, "text": "stream two"}));
    w.phone.post("deletions", json!({"chat_id": OWNER, "message_id": id}));
    w.phone.sees("end of stream one");
    w.phone.says("next");
    let next = w.phone.messages().into_iter().rfind(|m| m["by_bot"] == json!(false)).unwrap();
    w.phone.post("deletions", json!({"chat_id": OWNER, "message_id": next["message_id"]}));
    w.phone.sees("echo: next");
    settled(&w);
    assert_eq!((seen(&w, "end of stream").0, seen(&w, "echo: next").0), (1, 1), "{}", w.phone.screen());
}

#[test]
fn an_answer_streamed_into_a_message_the_bot_cannot_edit_any_more_comes_as_a_new_one() {
    let w = World::start(json!([streaming()]));
    w.phone.says("stream it");
    w.phone.sees("Some words");
    let streamed = w.phone.messages().into_iter().find(|m| m["by_bot"] == json!(true)).unwrap();
    w.phone.post("deletions", json!({"chat_id": OWNER, "message_id": streamed["message_id"]}));
    w.phone.sees("end of stream it");
    settled(&w);
    assert_eq!(seen(&w, "end of stream it"), (1, 1), "{}", w.phone.screen());
}

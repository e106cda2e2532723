//! The life of a process, with shell scripts in the place of Claude.

use super::super::{CredentialKind, Exit, Mode, child};
use super::*;

/// Answers `initialize`.
const READY: &str = r#"read line
echo '{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{"claude_code_version":"2.1.329"}}}'
"#;
const RESULT: &str =
    r#"{"type":"result","subtype":"success","is_error":false,"result":"hi","session_id":"s"}"#;

fn invocation(opening: Opening) -> Invocation {
    Invocation {
        session: SessionId("11111111-1111-4111-8111-111111111111".to_owned()),
        opening,
        model: "sonnet".to_owned(),
        instructions: None,
        mode: Mode::Work,
        broker_port: 3128,
        credential: CredentialKind::ApiKey,
    }
}

async fn start(script: &str) -> (Claude, mpsc::Receiver<ClaudeEvent>) {
    let script = format!("{READY}{script}");
    Claude::start(child::script(&script), &invocation(Opening::New)).await.unwrap()
}

async fn refusal(script: &str) -> StartError {
    Claude::start(child::script(script), &invocation(Opening::Resume)).await.err().unwrap()
}

/// The rest of the events.
async fn rest(mut events: mpsc::Receiver<ClaudeEvent>) -> Vec<ClaudeEvent> {
    let mut all = Vec::new();
    while let Some(event) = events.recv().await {
        all.push(event);
    }
    all
}

async fn exited(events: mpsc::Receiver<ClaudeEvent>) -> Exited {
    match rest(events).await.pop() {
        Some(ClaudeEvent::Exited(exited)) => exited,
        other => panic!("the last event is {other:?}"),
    }
}

fn exit(how: Exit, stderr: &str) -> Exited {
    Exited { how, stderr: stderr.to_owned() }
}

#[tokio::test]
async fn a_ready_process_takes_prompts_until_its_input_ends() {
    let (claude, events) = start(&format!("while read line; do echo '{RESULT}'; done; echo bye >&2")).await;
    assert_eq!(claude.ready(), &Ready { version: Some("2.1.329".to_owned()) });
    claude.prompt("u", "hello").await.unwrap();
    claude.end(Duration::from_secs(10));
    let all = rest(events).await;
    assert!(
        matches!(&all[..], [ClaudeEvent::SessionSeen(_), ClaudeEvent::TurnEnded(end), ClaudeEvent::Exited(how)]
        if end.text == "hi" && *how == exit(Exit::Code(0), "bye")),
        "{all:?}"
    );
}

#[tokio::test]
async fn an_early_end_says_why() {
    let ended = refusal("echo 'no such\x1b[2J flag' >&2; exit 3").await;
    assert!(matches!(&ended, StartError::Ended(found) if *found == exit(Exit::Code(3), "no such[2J flag")));
    assert_eq!(ended.failure().what, "Claude ended unexpectedly (exit code 3): no such[2J flag");
    let unknown = refusal("echo 'No conversation found with session ID: x' >&2; exit 1").await;
    assert!(matches!(unknown, StartError::NoSession(_)));
    let taken = refusal("echo 'Error: Session ID x is already in use.' >&2; exit 1").await;
    assert!(matches!(taken, StartError::SessionExists(_)));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_never_answers_is_killed() {
    let error = refusal("sleep 1000").await;
    assert!(matches!(error, StartError::NotReady { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cell_that_cannot_be_launched_is_an_error_of_its_own() {
    let refuse = |_: Command, _: [OwnedFd; 3]| async { Err(SpawnError::from("no namespaces")) };
    let error = Claude::start(refuse, &invocation(Opening::New)).await.err().unwrap();
    assert!(matches!(error, StartError::Spawn(_)));
}

#[tokio::test]
async fn dropping_the_handle_kills() {
    let (claude, events) = start("sleep 1000").await;
    drop(claude);
    assert_eq!(exited(events).await, exit(Exit::Signal(9), ""));
}

#[tokio::test]
async fn killing_ends_the_events_and_then_prompts_fail() {
    let (claude, events) = start("sleep 1000").await;
    claude.kill();
    assert_eq!(exited(events).await.how, Exit::Signal(9));
    // The writer learns of it by its next line at the latest.
    while claude.prompt("u", "hello").await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_process_that_will_not_leave_is_killed_after_its_grace() {
    let (claude, events) = start("exec 0</dev/null; trap '' TERM; while :; do sleep 0.05; done").await;
    claude.end(Duration::from_millis(50));
    assert_eq!(exited(events).await.how, Exit::Signal(9));
}

#[tokio::test]
async fn a_child_that_keeps_the_output_open_does_not_hide_the_end() {
    let (_claude, events) = start("sleep 1000 & exit 7").await;
    assert_eq!(exited(events).await.how, Exit::Code(7));
}

#[tokio::test]
async fn requests_that_are_not_served_are_refused() {
    let ask =
        r#"{"type":"control_request","request_id":"q1","request":{"subtype":"mcp_message","message":{}}}"#;
    let (_claude, events) = start(&format!("echo '{ask}'; read answer; echo \"$answer\" >&2")).await;
    let stderr = exited(events).await.stderr;
    assert!(stderr.contains("unsupported_request") && stderr.contains("q1"), "{stderr}");
}

#[tokio::test]
async fn a_rejected_credential_ends_the_turn_at_once() {
    let retry = r#"{"type":"system","subtype":"api_retry","attempt":2,"max_retries":10,"error_status":401}"#;
    let (_claude, events) =
        start(&format!("echo '{retry}'; echo '{retry}'; read answer; echo \"$answer\" >&2")).await;
    let stderr = exited(events).await.stderr;
    assert!(stderr.contains(r#""subtype":"interrupt""#), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

#[tokio::test]
async fn lines_that_cannot_be_read_are_skipped() {
    let (_claude, events) =
        start(&format!("echo hello; head -c 17000000 /dev/zero | tr '\\0' x; echo; printf '%s' '{RESULT}'"))
            .await;
    let all = rest(events).await;
    assert!(
        matches!(
            &all[..],
            [
                ClaudeEvent::Skipped { length: 5 },
                ClaudeEvent::Skipped { length: 17_000_000 },
                ClaudeEvent::SessionSeen(_),
                ClaudeEvent::TurnEnded(_),
                ClaudeEvent::Exited(_)
            ]
        ),
        "{all:?}"
    );
}

#[tokio::test]
async fn the_end_of_standard_error_is_kept() {
    let (_claude, events) = start("head -c 100000 /dev/zero | tr '\\0' y >&2; echo last >&2; exit 1").await;
    let stderr = exited(events).await.stderr;
    assert!(stderr.ends_with("yyy last".replace(' ', "").as_str()), "{}", &stderr[stderr.len() - 20..]);
    assert_eq!(stderr.len(), 4095);
}

#[tokio::test]
async fn nobody_reading_the_events_stops_the_process_and_not_the_handle() {
    let (claude, mut events) = start(&format!("while echo '{RESULT}'; do :; done")).await;
    let _ = events.recv().await;
    // It is held back by a full channel and a full pipe; writing to it still works, and so does ending it.
    claude.prompt("u", &"x".repeat(100)).await.unwrap();
    claude.kill();
    assert_eq!(exited(events).await.how, Exit::Signal(9));
}

#[tokio::test]
async fn a_process_that_does_not_read_holds_back_only_its_own_prompts() {
    let (claude, events) = start("sleep 1000").await;
    let fill = async {
        loop {
            claude.prompt("u", &"x".repeat(10_000)).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_millis(200), fill).await.is_err(), "the queue is bounded");
    claude.kill();
    assert_eq!(exited(events).await.how, Exit::Signal(9));
}

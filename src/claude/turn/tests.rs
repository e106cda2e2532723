//! Every recorded case of `tests/fixtures/claude`, told as a short script.

use proptest::prelude::*;

use super::*;

/// Reads a recording as the pump would.
fn events(lines: &str, credential: CredentialKind) -> Vec<ClaudeEvent> {
    let session = SessionId("11111111-1111-4111-8111-111111111111".to_owned());
    let mut turns = Turns::new(session, "sonnet".to_owned(), credential, Some(0.0));
    lines.lines().flat_map(|line| turns.read(wire::read(line.as_bytes()).unwrap())).collect()
}

fn recording(name: &str) -> String {
    let path = format!("{}/tests/fixtures/claude/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One event in a few words; `None` for those about messages, which have a test of their own.
fn told(event: &ClaudeEvent) -> Option<String> {
    let tail = |id: &str| id.get(id.len().saturating_sub(4)..).unwrap_or(id).to_owned();
    Some(match event {
        ClaudeEvent::SessionSeen(id) => format!("session {}", tail(&id.0)),
        ClaudeEvent::TurnStarted { prompts } => format!("turn of {}", prompts.len()),
        ClaudeEvent::Text { delta } => format!("text {delta:?}"),
        ClaudeEvent::Tool(tool) => format!("tool {} {:?} {:?}", tool.name, tool.detail, tool.ok),
        ClaudeEvent::Notice { text } => format!("notice {text}"),
        ClaudeEvent::RateLimit(limit) => format!("limit {} {:?}", limit.kind, limit.resets_at),
        ClaudeEvent::Ask(ask) => format!("ask {} {}", ask.tool_name, ask.input),
        ClaudeEvent::AskCancelled { .. } => "ask cancelled".to_owned(),
        ClaudeEvent::Message { .. } => return None,
        ClaudeEvent::BackgroundTasks { count } => format!("{count} background tasks"),
        ClaudeEvent::TurnEnded(end) => {
            let outcome = match &end.outcome {
                Outcome::Completed => "completed".to_owned(),
                Outcome::Interrupted => "interrupted".to_owned(),
                Outcome::Failed(failure) => format!("failed: {}", failure.what),
            };
            let unasked = if end.unasked { " unasked" } else { "" };
            format!(
                "end{unasked} of {} {:?} {} micros, {outcome}",
                end.prompts.len(),
                end.text,
                end.usage.cost_micros
            )
        }
        ClaudeEvent::Unknown { kind } => format!("unknown {kind}"),
        ClaudeEvent::Skipped { length } => format!("skipped {length}"),
        ClaudeEvent::Exited(_) => "exited".to_owned(),
    })
}

fn script(name: &str) -> Vec<String> {
    let credential = if name.contains("oauth") || name == "error_limit" {
        CredentialKind::OauthToken
    } else {
        CredentialKind::ApiKey
    };
    events(&recording(name), credential).iter().filter_map(told).collect()
}

/// `SKEP_BLESS=1` writes the scripts anew, to be read before they are committed.
#[test]
fn every_recording_gives_its_script() {
    let directory = format!("{}/tests/fixtures/claude", env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".jsonl") else { continue };
        let path = format!("{directory}/{name}.script");
        let found = script(name).join("\n") + "\n";
        if std::env::var_os("SKEP_BLESS").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(&path).unwrap_or_default(), "{name}");
        seen += 1;
    }
    assert!(seen >= 28, "{seen} recordings");
}

#[test]
fn the_text_of_a_turn_is_its_pieces_joined() {
    for name in
        ["hello", "ask_allow", "cut_off", "thinking", "subagent", "max_tokens", "interrupt", "fallback"]
    {
        let mut joined = String::new();
        for event in events(&recording(name), CredentialKind::ApiKey) {
            match event {
                ClaudeEvent::Text { delta } => joined.push_str(&delta),
                ClaudeEvent::TurnEnded(end) => assert_eq!(std::mem::take(&mut joined), end.text, "{name}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_message_is_queued_started_and_completed_under_its_uuid() {
    let uuid = || "00000000-0000-4000-8000-000000000002".to_owned();
    let all = events(&recording("ask_allow"), CredentialKind::ApiKey);
    let states: Vec<_> =
        all.iter().filter(|event| matches!(event, ClaudeEvent::Message { .. })).cloned().collect();
    let expected = [MessageState::Queued, MessageState::Started, MessageState::Completed]
        .map(|state| ClaudeEvent::Message { uuid: uuid(), state });
    assert_eq!(states, expected);
    let prompts = all.iter().find_map(|event| match event {
        ClaudeEvent::TurnEnded(end) => Some(end.prompts.clone()),
        _ => None,
    });
    assert_eq!(prompts, Some(vec![uuid()]));
}

#[test]
fn an_answer_that_was_not_streamed_is_shown_whole() {
    let lines = [
        r#"{"type":"system","subtype":"init","session_id":"s"}"#,
        r#"{"type":"assistant","message":{"content":[{"type":"text","text":"one"}]}}"#,
        r#"{"message":{"content":[{"text":"two","type":"text"}],"model":"m"},"type":"assistant","new":1}"#,
        r#"{"type":"result","subtype":"success","is_error":false,"result":"two","total_cost_usd":0.5}"#,
        r#"{"type":"result","subtype":"success","is_error":false,"result":"alone","total_cost_usd":0.75}"#,
    ];
    let told: Vec<_> = events(&lines.join("\n"), CredentialKind::ApiKey).iter().filter_map(told).collect();
    let expected = [
        "session s",
        "turn of 0",
        "text \"one\"",
        "text \"\\n\\ntwo\"",
        "end of 0 \"one\\n\\ntwo\" 500000 micros, completed",
        "end of 0 \"alone\" 250000 micros, completed",
    ];
    assert_eq!(told, expected);
}

#[test]
fn an_unknown_type_is_reported_once_and_not_without_end() {
    let lines: String =
        (0..100).map(|n| format!("{{\"type\":\"new{n}\"}}\n{{\"type\":\"new{n}\"}}\n")).collect();
    let seen = events(&lines, CredentialKind::ApiKey);
    let expected: Vec<_> =
        (0..UNKNOWN_KINDS).map(|n| ClaudeEvent::Unknown { kind: format!("new{n}") }).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_turn_without_end_does_not_fill_the_memory() {
    let delta = r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"TEXT"}}}"#
        .replace("TEXT", &"x".repeat(100_000));
    let mut turns = Turns::new(SessionId("s".to_owned()), "m".to_owned(), CredentialKind::ApiKey, None);
    for _ in 0..30 {
        turns.read(wire::read(delta.as_bytes()).unwrap());
    }
    assert!(turns.turn.unwrap().text.len() < LONGEST_TEXT + 200_000);
}

#[test]
fn a_rejected_credential_is_the_reason_of_the_interrupt_it_causes() {
    let mut turns = Turns::new(SessionId("s".to_owned()), "m".to_owned(), CredentialKind::ApiKey, Some(0.0));
    let mut read = |line: &str| turns.read(wire::read(line.as_bytes()).unwrap());
    read(r#"{"type":"system","subtype":"api_retry","attempt":1,"max_retries":10,"error_status":401}"#);
    read(r#"{"type":"system","subtype":"api_retry","attempt":2,"max_retries":10,"error_status":401}"#);
    let end = r#"{"type":"result","subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_streaming"}"#;
    let told: Vec<_> = read(end).iter().filter_map(told).collect();
    assert_eq!(told, ["end of 0 \"\" 0 micros, failed: The model API rejected the API key"]);
    assert!(!turns.is_hopeless(), "the next turn may have another key");
}

/// Changes a recording the way a newer CLI might: other order of keys, more fields, null for what has a default.
fn disturbed(line: &str, keys: &[String], put_null: bool) -> String {
    let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
    let object = value.as_object_mut().unwrap();
    for key in keys {
        object.insert(format!("zz_{key}"), serde_json::json!([{ "type": "later" }, null]));
    }
    if put_null {
        for name in
            ["user_message_uuids", "errors", "origin", "subtype_detail", "model_usage_since_last_result"]
        {
            if object.contains_key(name) {
                object.insert(name.to_owned(), serde_json::Value::Null);
            }
        }
    }
    value.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_a_newer_cli_adds_a_turn_still_ends(
        keys in proptest::collection::vec("[a-z]{1,6}", 0..4),
        put_null in any::<bool>(),
        name in prop_oneof![Just("ask_allow"), Just("background"), Just("interrupt"), Just("error_limit")],
    ) {
        let recording = recording(name);
        let ends = |lines: &str| events(lines, CredentialKind::ApiKey)
            .iter().filter(|event| matches!(event, ClaudeEvent::TurnEnded(_))).count();
        let lines: Vec<_> = recording.lines().map(|line| disturbed(line, &keys, put_null)).collect();
        prop_assert_eq!(ends(&lines.join("\n")), ends(&recording));
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in "(system|result|assistant|user|stream_event|control_request|rate_limit_event)",
        subtype in "(init|api_retry|status|success)",
        field in "(message|event|response|request|tasks|errors|usage|content)",
        value in "(null|1|-1e400|\"x\"|\\[\\]|\\{\\}|\\[\\{\"type\":\"text\"\\}\\])",
    ) {
        let mut turns = Turns::new(SessionId("s".to_owned()), "m".to_owned(), CredentialKind::ApiKey, None);
        let made = format!(r#"{{"{field}":{value},"subtype":"{subtype}","type":"{kind}"}}"#);
        for line in [bytes.as_slice(), made.as_bytes()] {
            if let Ok(line) = wire::read(line) {
                turns.read(line);
            }
        }
    }
}

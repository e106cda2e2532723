//! What an honest cell gets.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{BareApi, Door, PATIENCE, Reply, ScriptedApi, api_key, messages, post, prompt, token};
use crate::config::{Credential, Secret};
use crate::model::{AgentName, ModelCall, Usage};

const DUMMIES: &str = "x-api-key: sk-dummy\r\nauthorization: Bearer sk-dummy\r\nanthropic-beta: one,two\r\n\
                       anthropic-version: 2023-06-01\r\ncookie: a=b\r\nx-claude-code-session-id: s-1\r\n";

fn call(status: u16, model: &str, usage: Usage) -> ModelCall {
    ModelCall { agent: AgentName::new("coder").unwrap(), model: model.to_owned(), status, usage }
}

#[tokio::test]
async fn the_real_credential_replaces_whatever_the_cell_sent() {
    let cases = [
        (api_key(), json!("sk-real-key"), json!(null), "one,two"),
        (token(), json!(null), json!("Bearer sk-real-token"), "oauth-2025-04-20"),
    ];
    for (credential, key, authorization, beta) in cases {
        let api = ScriptedApi::start(&json!({"fallback": {"text": "hello"}}));
        let door = Door::open(&api.url, credential);
        let reply = door.exchange(messages(&prompt("hi", false), DUMMIES)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let record = api.record();
        let headers = &record[0]["headers"];
        assert_eq!(headers["x-api-key"], key);
        assert_eq!(headers["authorization"], authorization);
        assert_eq!(headers["cookie"], json!(null));
        assert_eq!(headers["accept-encoding"], "identity");
        assert_eq!(headers["anthropic-version"], "2023-06-01");
        assert_eq!(headers["x-claude-code-session-id"], "s-1");
        assert_eq!(headers["host"], json!(api.url.trim_start_matches("http://")));
        assert!(headers["anthropic-beta"].as_str().unwrap().contains(beta), "{headers}");
        assert_eq!(record[0]["query"], "beta=true");
        assert_eq!(record[0]["body"], prompt("hi", false), "the body is untouched");
    }
}

#[tokio::test]
async fn every_call_is_counted_once_and_counting_tokens_is_not_a_call() {
    let usage = json!({"input_tokens": 5, "cache_creation_input_tokens": 6, "cache_read_input_tokens": 7,
                       "output_tokens": 8});
    let api = ScriptedApi::start(&json!({
        "rules": [
            {"when": {"typed": "busy"}, "reply": {"error": {"status": 529, "type": "overloaded_error",
                "message": "Overloaded"}, "headers": {"retry-after": "7"}}},
        ],
        "fallback": {"text": "a longer answer in several pieces", "model": "claude-told", "usage": usage},
    }));
    let mut door = Door::open(&api.url, api_key());
    let counted = Usage { input: 5, output: 8, cache_read: 7, cache_write: 6, cost_micros: 0 };
    for stream in [true, false] {
        let reply = door.exchange(messages(&prompt("hi", stream), "")).await;
        assert_eq!(reply.status, 200);
        assert_eq!(
            door.calls.try_recv(),
            Ok(call(200, "claude-told", counted)),
            "reported before the last byte"
        );
    }
    let reply = door.exchange(post("/v1/messages/count_tokens?beta=true", "{}", "")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"input_tokens": 1}"#));

    let reply = door.exchange(messages(&prompt("busy", true), "")).await;
    assert_eq!(reply.status, 529);
    assert!(reply.head.contains("retry-after: 7"), "{}", reply.head);
    assert_eq!(reply.error(), ("overloaded_error".to_owned(), "Overloaded".to_owned()));
    assert_eq!(door.call().await, call(529, "", Usage::default()));
    assert!(door.calls.try_recv().is_err());
}

#[tokio::test]
async fn pieces_of_an_answer_arrive_as_they_are_written() {
    let api = ScriptedApi::start(&json!({
        "fallback": {"content": [{"type": "text", "text": "aabbccdd", "chunk_chars": 2, "delta_ms": 150}]}
    }));
    let door = Door::open(&api.url, api_key());
    let mut stream = door.send(messages(&prompt("hi", true), "")).await;
    let mut seen = String::new();
    let mut arrivals = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        if read == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        while arrivals.len() < seen.matches("\"text_delta\"").count() {
            arrivals.push(Instant::now());
        }
    }
    assert_eq!(arrivals.len(), 4, "{seen}");
    for pair in arrivals.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((Duration::from_millis(75)..Duration::from_millis(600)).contains(&gap), "{gap:?}");
    }
}

#[tokio::test]
async fn an_interrupt_closes_the_apis_connection_and_keeps_the_count_so_far() {
    let api = ScriptedApi::start(&json!({
        "fallback": {"text": "a long answer ".repeat(100), "delta_ms": 50, "model": "claude-told",
                     "usage": {"input_tokens": 42, "output_tokens": 900}}
    }));
    let mut door = Door::open(&api.url, api_key());
    let mut stream = door.send(messages(&prompt("hi", true), "")).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("text_delta") {
        stream.read_buf(&mut seen).await.unwrap();
    }
    drop(stream);
    let counted = Usage { input: 42, output: 1, ..Usage::default() };
    assert_eq!(door.call().await, call(200, "claude-told", counted));
    assert_eq!(api.outcome().await, "client_closed");
}

#[tokio::test]
async fn an_interrupt_before_the_first_byte_closes_the_apis_connection_too() {
    let api = BareApi::listen().await;
    let mut door = Door::open(&api.url, api_key());
    let stream = door.send(messages(&prompt("hi", true), "")).await;
    let (mut upstream, _) = api.accept().await;
    drop(stream);
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, upstream.read_to_end(&mut rest)).await.expect("closed at once").unwrap();
    assert_eq!(door.call().await, call(0, "", Usage::default()));
}

#[tokio::test]
async fn a_dropped_cell_loses_its_door_and_its_calls_but_not_their_counts() {
    let api = BareApi::listen().await;
    let Door { cell, address, mut calls, .. } = Door::open(&api.url, api_key());
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&messages(&prompt("hi", true), "")).await.unwrap();
    let (mut upstream, _) = api.accept().await;
    drop(cell);
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, upstream.read_to_end(&mut rest)).await.expect("closed at once").unwrap();
    assert_eq!(calls.recv().await, Some(call(0, "", Usage::default())));
    assert_eq!(calls.recv().await, None);
    let _ = stream.read_to_end(&mut rest).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_new_credential_counts_from_the_next_request_and_none_says_what_to_do() {
    let api = ScriptedApi::start(&json!({"accept_keys": ["sk-new"], "fallback": {"text": "hello"}}));
    let mut door = Door::open(&api.url, None);
    let request = || messages(&prompt("hi", true), "x-api-key: sk-dummy\r\n");
    let reply = door.exchange(request()).await;
    let (kind, message) = reply.error();
    assert_eq!((reply.status, kind.as_str()), (403, "authentication_error"));
    assert!(message.contains("systemctl reload skep") && message.contains("anthropic-api-key"), "{message}");
    assert!(api.record().is_empty());
    assert!(door.calls.try_recv().is_err(), "the API was not called");

    door.broker.set_credential(api_key()).unwrap();
    let reply = door.exchange(request()).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (401, "authentication_error"));
    door.broker.set_credential(Some(Credential::ApiKey(Secret::new("sk-new".to_owned())))).unwrap();
    assert_eq!(door.exchange(request()).await.status, 200);
    assert!(door.broker.set_credential(Some(Credential::ApiKey(Secret::new("a\nb".to_owned())))).is_err());
    assert_eq!(door.exchange(request()).await.status, 200, "a broken one changes nothing");
}

#[tokio::test]
async fn an_unreachable_api_is_a_502_in_plain_words_even_for_a_large_request() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut door = Door::open(&format!("http://{free}"), api_key());
    let large = prompt(&"x".repeat(8 << 20), true);
    let reply = door.exchange(messages(&large, "")).await;
    let (kind, message) = reply.error();
    assert_eq!((reply.status, kind.as_str()), (502, "api_error"));
    assert!(message.contains("cannot connect to 127.0.0.1") && message.contains("refused"), "{message}");
    assert_eq!(door.call().await, call(0, "", Usage::default()));
}

#[tokio::test]
async fn an_api_that_hangs_up_is_a_502_and_one_that_says_nothing_a_504() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let mut stream = door.send(messages(&prompt("hi", true), "")).await;
    drop(api.accept().await);
    assert_eq!(Reply::read(&mut stream).await.status, 502);

    let mut stream = door.send(messages(&prompt("hi", true), "")).await;
    let _held = api.accept().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(599)).await;
    let mut byte = [0; 1];
    assert!(tokio::time::timeout(Duration::from_millis(500), stream.peek(&mut byte)).await.is_err());
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_eq!(Reply::read(&mut stream).await.status, 504);
}

#[tokio::test]
async fn a_slow_bookkeeper_stalls_no_answer_and_loses_no_count() {
    let api = ScriptedApi::start(&json!({"fallback": {"text": "hello"}}));
    let mut door = Door::with_channel(&api.url, api_key(), 1);
    for _ in 0..4 {
        assert_eq!(door.exchange(messages(&prompt("hi", true), "")).await.status, 200);
    }
    for _ in 0..4 {
        assert_eq!(door.call().await.status, 200);
    }
}

#[tokio::test]
async fn one_connection_carries_many_calls_and_the_apis_is_reused() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let request =
        String::from_utf8(messages(&prompt("hi", true), "")).unwrap().replace("connection: close\r\n", "");
    let mut stream = door.send(&request).await;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (mut upstream, head) = api.accept().await;
    let mut asked = head.into_bytes();
    for round in 0..3 {
        while !asked.ends_with(b"}") {
            assert_ne!(upstream.read_buf(&mut asked).await.unwrap(), 0);
        }
        asked.clear();
        upstream.write_all(answer).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"ok") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
        if round < 2 {
            stream.write_all(request.as_bytes()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_clis_probe_is_answered_without_the_api() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, None);
    for line in ["HEAD /", "HEAD /api/hello", "GET /api/hello"] {
        let reply = door.exchange(format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{line}");
    }
    assert!(api.is_untouched().await);
}

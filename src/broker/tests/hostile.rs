//! What a hostile cell, or a broken API, gets.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::CONNECTIONS;
use super::support::{BareApi, Door, PATIENCE, Reply, ScriptedApi, api_key, messages, post, prompt};

/// More than every socket buffer between two ends together.
const WELL_OVER_BUFFERS: usize = 64 << 20;

#[tokio::test]
async fn nothing_but_the_two_endpoints_reaches_the_api() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let cases = [
        ("GET /v1/messages HTTP/1.1\r\nhost: x", 405),
        ("GET /v1/models HTTP/1.1\r\nhost: x", 404),
        ("GET / HTTP/1.1\r\nhost: x", 404),
        ("POST //v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 2", 404),
        ("POST /v1/%6Dessages HTTP/1.1\r\nhost: x\r\ncontent-length: 2", 404),
        ("POST /v1/messages/../files HTTP/1.1\r\nhost: x\r\ncontent-length: 2", 404),
        ("POST /v1/messages/%2e%2e/files HTTP/1.1\r\nhost: x\r\ncontent-length: 2", 404),
        ("POST http://evil.example/v1/messages HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 2", 403),
        ("POST https://api.anthropic.com/v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 2", 403),
        ("CONNECT api.anthropic.com:443 HTTP/1.1\r\nhost: api.anthropic.com:443", 403),
        ("TRACE /v1/messages HTTP/1.1\r\nhost: x", 403),
        (
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2",
            403,
        ),
        (
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
          http2-settings: AAMAAABkAAQAAP__\r\ncontent-length: 2",
            403,
        ),
        (
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nproxy-authorization: Basic eDp5\r\ncontent-length: 2",
            403,
        ),
    ];
    for (head, status) in cases {
        let body = if head.contains("content-length") { "{}" } else { "" };
        let closing = if head.contains("connection:") { "" } else { "\r\nconnection: close" };
        let mut stream = door.send(format!("{head}{closing}\r\n\r\n{body}")).await;
        let _ = stream.shutdown().await;
        let reply = Reply::read(&mut stream).await;
        assert_eq!(reply.status, status, "{head}\n{}", reply.head);
        reply.error();
        assert!(!reply.head.contains("sk-real") && !reply.body.contains("sk-real"));
    }
    let reply = door.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(reply.status == 0 || reply.status == 400, "HTTP/2 without asking: {}", reply.head);
    assert!(api.is_untouched().await);
}

#[tokio::test]
async fn a_request_hidden_in_another_never_reaches_the_api() {
    let hidden = "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    let heads = [
        ("two lengths", "content-length: 2\r\ncontent-length: 50\r\n".to_owned()),
        ("a list of lengths", "content-length: 2, 50\r\n".to_owned()),
        ("a signed length", "content-length: +2\r\n".to_owned()),
        ("both framings", "content-length: 2\r\ntransfer-encoding: chunked\r\n".to_owned()),
        ("both framings, turned", "transfer-encoding: chunked\r\ncontent-length: 2\r\n".to_owned()),
        ("an unknown framing", "transfer-encoding: xchunked\r\ncontent-length: 2\r\n".to_owned()),
        ("a folded header", "x-fold: a\r\n content-length: 50\r\ncontent-length: 2\r\n".to_owned()),
        ("a space before the colon", "content-length : 50\r\ncontent-length: 2\r\n".to_owned()),
        ("a bare line feed", "x: y\ncontent-length: 2\r\n".to_owned()),
        ("a null", "x: a\0b\r\ncontent-length: 2\r\n".to_owned()),
    ];
    for (name, lines) in heads {
        let api = ScriptedApi::start(&json!({"fallback": {"text": "hello"}}));
        let door = Door::open(&api.url, api_key());
        let mut stream =
            door.send(format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\n{lines}\r\n{{}}{hidden}")).await;
        let _ = stream.shutdown().await;
        Reply::read(&mut stream).await;
        for line in api.record().iter().filter(|line| line["ev"] == "request") {
            assert_eq!(line["path"], "/v1/messages", "{name}");
            assert_eq!(line["body"], json!({}), "{name}");
        }
    }
}

#[tokio::test]
async fn a_chunked_body_is_framed_anew_without_its_trailers() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let _stream = door
        .send(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: x-api-key\r\n\r\n\
             2;ext=1\r\n{}\r\n0\r\nx-api-key: sk-other\r\nx-more: 1\r\n\r\n",
        )
        .await;
    let (mut upstream, mut seen) = api.accept().await;
    let mut buffer = [0; 4096];
    while !seen.ends_with("0\r\n\r\n") {
        let read = upstream.read(&mut buffer).await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(seen.ends_with("\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), "{seen}");
    assert!(seen.contains("x-api-key: sk-real-key\r\n") && !seen.contains("sk-other"), "{seen}");
    assert!(!seen.contains("trailer:"), "{seen}");
}

#[tokio::test]
async fn a_body_over_the_limit_gets_an_answer_and_the_api_none_of_it() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let body = "x".repeat((32 << 20) + 1);
    let reply = door.exchange(post("/v1/messages", &body, "")).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (413, "request_too_large"));
    assert!(api.is_untouched().await);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_at_the_limit() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let head =
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let stream = door.send(head).await;
    let (mut reading, mut writing) = stream.into_split();
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let writer = tokio::spawn(async move {
        for _ in 0..33 {
            if writing.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let _ = writing.write_all(b"0\r\n\r\n").await;
        writing
    });
    let (mut upstream, _) = api.accept().await;
    let mut carried = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = upstream.read(&mut buffer).await {
        carried += read;
    }
    assert!(carried <= (32 << 20) + (1 << 20), "{carried}");
    drop(writer.await);
    let mut bytes = Vec::new();
    let _ = reading.read_to_end(&mut bytes).await;
    assert_eq!(Reply::parse(&bytes).status, 413);
}

#[tokio::test]
async fn a_cell_that_does_not_read_stops_the_api_from_writing() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let _deaf = door.send(messages(&prompt("hi", true), "")).await;
    let (mut upstream, _) = api.accept().await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await.unwrap();
    assert!(written_until_stuck(&mut upstream).await < WELL_OVER_BUFFERS);
}

#[tokio::test]
async fn an_api_that_does_not_read_stops_the_cell_from_writing() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let head = "POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 33000000\r\n\r\n";
    let mut stream = door.send(head).await;
    let _deaf = api.accept().await;
    assert!(written_until_stuck(&mut stream).await < 32_000_000);
}

async fn written_until_stuck(stream: &mut TcpStream) -> usize {
    let piece = [b'x'; 1 << 16];
    let mut written = 0;
    while written < WELL_OVER_BUFFERS {
        match tokio::time::timeout(Duration::from_millis(400), stream.write(&piece)).await {
            Ok(Ok(bytes)) => written += bytes,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    written
}

#[tokio::test]
async fn the_credential_never_comes_back() {
    let answers = [
        "HTTP/1.1 200 sk-real-key\r\nx-echo: a sk-real-key b\r\nrequest-id: r\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 401 No\r\ncontent-length: 22\r\n\r\nyou sent sk-real-key !",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nit: sk-r\r\n9\r\neal-key !\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n2\r\nok\r\n0\r\nx-t: sk-real-key\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: sk-real-key\r\nconnection: upgrade\r\n\r\nsk-real-key",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/?k=sk-real-key\r\ncontent-length: 0\r\n\r\n",
        "nonsense sk-real-key\r\n\r\n",
    ];
    for answer in answers {
        let api = BareApi::listen().await;
        let door = Door::open(&api.url, api_key());
        let mut stream = door.send(messages(&prompt("hi", true), "")).await;
        let (mut upstream, _) = api.accept().await;
        upstream.write_all(answer.as_bytes()).await.unwrap();
        drop(upstream);
        let reply = Reply::read(&mut stream).await;
        assert!(!reply.head.contains("sk-real-key") && !reply.body.contains("sk-real-key"), "{answer}");
        assert!(!reply.body.contains("eal-key"), "{answer}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = BareApi::listen().await;
    let api = ScriptedApi::start(&json!({"routes": {"POST /v1/messages": {
        "status": 307, "headers": {"location": format!("{}/v1/messages", elsewhere.url)}}}}));
    let door = Door::open(&api.url, api_key());
    assert_eq!(door.exchange(messages(&prompt("hi", true), "")).await.status, 307);
    assert!(elsewhere.is_untouched().await);
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url, api_key());
    let fat = format!("x-fat: {}\r\n", "x".repeat(70_000));
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    for extra in [fat, many] {
        let reply = door.exchange(messages(&prompt("hi", true), &extra)).await;
        assert_eq!(reply.status, 431, "{}", reply.head);
    }
    assert!(api.is_untouched().await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_its_headers_slowly_is_closed() {
    let door = Door::open("http://127.0.0.1:1", api_key());
    let began = tokio::time::Instant::now();
    for start in ["", "POST /v1/messages HTTP/1.1\r\nhost:"] {
        let mut stream = door.send(start).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    }
    let took = began.elapsed();
    assert!((Duration::from_secs(119)..Duration::from_secs(125)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let api = ScriptedApi::start(&json!({}));
    let door = Door::open(&api.url, api_key());
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(door.send("").await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut stream = door.send("HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut byte = [0; 1];
    assert!(tokio::time::timeout(Duration::from_millis(200), stream.peek(&mut byte)).await.is_err());
    idle.pop();
    let reply = tokio::time::timeout(PATIENCE, Reply::read(&mut stream)).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_api_that_fails_at_tls_is_a_502_and_one_that_never_finishes_it_a_504() {
    let api = BareApi::listen().await;
    let door = Door::open(&api.url.replace("http://", "https://"), api_key());
    let mut stream = door.send(messages(&prompt("hi", true), "")).await;
    let (mut upstream, _) = api.listener.accept().await.unwrap();
    upstream.write_all(b"HTTP/1.1 400 this is plain HTTP\r\n\r\n").await.unwrap();
    let reply = Reply::read(&mut stream).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (502, "api_error"), "{}", reply.body);

    let mut stream = door.send(messages(&prompt("hi", true), "")).await;
    let (mut upstream, _) = api.listener.accept().await.unwrap();
    let mut hello = [0; 16];
    upstream.read_exact(&mut hello).await.unwrap();
    assert!(!hello.starts_with(b"POST"), "nothing is sent in the clear");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    let reply = Reply::read(&mut stream).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (504, "timeout_error"), "{}", reply.body);
}

//! A cell's door on a free port, the scripted API, an API of bare bytes, and a client that writes bare bytes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::super::{Broker, CellBroker};
use crate::config::{Credential, Secret};
use crate::model::{AgentName, ModelCall};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn api_key() -> Option<Credential> {
    Some(Credential::ApiKey(Secret::new("sk-real-key".to_owned())))
}

pub(super) fn token() -> Option<Credential> {
    Some(Credential::OauthToken(Secret::new("sk-real-token".to_owned())))
}

/// One cell's door.
pub(super) struct Door {
    pub broker: Broker,
    pub cell: CellBroker,
    pub address: SocketAddr,
    pub calls: mpsc::Receiver<ModelCall>,
}

impl Door {
    pub(super) fn open(upstream: &str, credential: Option<Credential>) -> Self {
        Self::with_channel(upstream, credential, 16)
    }

    pub(super) fn with_channel(upstream: &str, credential: Option<Credential>, capacity: usize) -> Self {
        let broker = Broker::new(upstream, credential).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, calls) = mpsc::channel(capacity);
        let cell = broker.serve(AgentName::new("coder").unwrap(), listener, sender).unwrap();
        Self { broker, cell, address, calls }
    }

    /// Writes `request` and reads until the door closes the connection.
    pub(super) async fn exchange(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.send(request).await;
        Reply::read(&mut stream).await
    }

    pub(super) async fn send(&self, request: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        stream
    }

    pub(super) async fn call(&mut self) -> ModelCall {
        tokio::time::timeout(PATIENCE, self.calls.recv()).await.expect("a call is reported").unwrap()
    }
}

/// A model call as the CLI makes it, with `extra` header lines.
pub(super) fn messages(body: &Value, extra: &str) -> Vec<u8> {
    post("/v1/messages?beta=true", &body.to_string(), extra)
}

pub(super) fn post(path: &str, body: &str, extra: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{extra}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(super) fn prompt(text: &str, stream: bool) -> Value {
    serde_json::json!({
        "model": "claude-asked", "stream": stream, "max_tokens": 1000,
        "tools": [{"name": "Bash", "input_schema": {}}],
        "messages": [{"role": "user", "content": text}],
    })
}

/// What came back, whole.
pub(super) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub(super) async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A reset after the answer is the hostile client's own affair.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an answer");
        Self::parse(&bytes)
    }

    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The `error.type` and `error.message` of the API's error shape.
    pub(super) fn error(&self) -> (String, String) {
        let value: Value =
            serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body));
        assert_eq!(value["type"], "error");
        let text = |key: &str| value["error"][key].as_str().unwrap().to_owned();
        (text("type"), text("message"))
    }
}

/// `tests/fake-anthropic`, stopped on drop.
pub(super) struct ScriptedApi {
    child: Child,
    pub url: String,
    directory: tempfile::TempDir,
}

impl ScriptedApi {
    #[expect(
        clippy::disallowed_methods,
        reason = "the scripted API is a program beside the tests, in no cell"
    )]
    pub(super) fn start(scenario: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("scenario.json");
        std::fs::write(&file, scenario.to_string()).unwrap();
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-anthropic/fake_anthropic.py"))
            .arg("--scenario")
            .arg(file)
            .arg("--record")
            .arg(directory.path().join("record.jsonl"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let hello: Value = serde_json::from_str(&line).unwrap();
        Self { child, url: hello["url"].as_str().unwrap().to_owned(), directory }
    }

    pub(super) fn record(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.path().join("record.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for the end of the first request and names its outcome.
    pub(super) async fn outcome(&self) -> String {
        for _ in 0..200 {
            if let Some(done) = self.record().into_iter().find(|line| line["ev"] == "done") {
                return done["outcome"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the request has not ended")
    }
}

impl Drop for ScriptedApi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An API of bare bytes.
pub(super) struct BareApi {
    pub listener: TcpListener,
    pub url: String,
}

impl BareApi {
    pub(super) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// The next connection with the bytes of its request's headers (and what came with them).
    pub(super) async fn accept(&self) -> (TcpStream, String) {
        let accept = async {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.windows(4).any(|w| w == b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "the request broke off");
            }
            (stream, String::from_utf8_lossy(&seen).into_owned())
        };
        tokio::time::timeout(PATIENCE, accept).await.expect("the broker connects")
    }

    /// Whether nobody has connected.
    pub(super) async fn is_untouched(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.listener.accept()).await.is_err()
    }
}

//! The fake Bot API as a child process, and its control side.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Secret;
use crate::telegram::Api;
use crate::telegram::api::Limits;

/// The user who owns the bot in these tests; also the id of the private chat.
pub(super) const OWNER: i64 = 42;

/// A running fake. Ends with the test.
pub(super) struct Fake {
    child: Child,
    _stdin: Option<ChildStdin>,
    control: String,
    pub(super) api_url: String,
    pub(super) token: String,
}

impl Fake {
    /// Starts a fake in which the owner has written "/start", which nobody has fetched yet.
    pub(super) async fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test's own server, not a program of an agent's")]
        let mut child = Command::new("python3")
            .args(["-m", "fake_telegram", "--stop-with-stdin"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-telegram"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed for this test");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let word = |key: &str| told[key].as_str().unwrap().to_owned();
        let fake = Self {
            _stdin: child.stdin.take(),
            child,
            control: word("control_url"),
            api_url: word("api_url"),
            token: word("token"),
        };
        fake.write("/start").await;
        fake
    }

    /// A client of this fake that gives up early.
    pub(super) fn api(&self) -> Api {
        let limits = Limits {
            call: Duration::from_secs(2),
            poll: Duration::from_secs(2),
            grace: Duration::from_secs(1),
        };
        Api::new(&Secret::new(self.token.clone()), &self.api_url).unwrap().with_limits(limits)
    }

    async fn ask(&self, path: &str, body: Option<Value>) -> Value {
        let client = teloxide_core::net::default_reqwest_settings().build().unwrap();
        let url = format!("{}{path}", self.control);
        let request = match body {
            Some(body) => client.post(url).body(body.to_string()),
            None => client.get(url),
        };
        let answer = request.timeout(Duration::from_secs(60)).send().await.unwrap();
        let good = answer.status().is_success();
        let text = answer.text().await.unwrap();
        assert!(good, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(path, Some(body)).await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        self.ask(path, None).await
    }

    /// The owner writes to the bot.
    pub(super) async fn write(&self, text: &str) {
        self.post("/messages", json!({"from_id": OWNER, "text": text})).await;
    }

    /// The next call of `method` fails like this.
    pub(super) async fn fault(&self, method: &str, mut fault: Value) {
        fault["method"] = json!(method);
        self.post("/faults", fault).await;
    }

    /// Waits for a message of the bot.
    pub(super) async fn wait_text(&self, pattern: &str) {
        let pattern: String = pattern.replace('%', "%25").replace(' ', "%20").replace('^', "%5E");
        let found = self.get(&format!("/wait?chat_id={OWNER}&timeout=40&text={pattern}")).await;
        assert_eq!(found["ok"], true, "{pattern} was never shown: {:?}", self.screen().await);
    }

    /// The texts of the bot's messages, in order.
    pub(super) async fn screen(&self) -> Vec<String> {
        let transcript = self.get(&format!("/transcript?chat_id={OWNER}")).await;
        let ours = transcript["messages"].as_array().unwrap().iter().filter(|m| m["by_bot"] == true);
        ours.map(|m| m["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The log of calls of one method.
    pub(super) async fn calls(&self, method: &str) -> Vec<Value> {
        self.get(&format!("/calls?method={method}")).await.as_array().unwrap().clone()
    }

    /// How many calls of each method were made, polling aside.
    pub(super) async fn count(&self, methods: &[&str]) -> Vec<usize> {
        let mut counts = Vec::new();
        for method in methods {
            counts.push(self.calls(method).await.len());
        }
        counts
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The owner's phone: the stand-in of the Bot API and its control side.

use serde_json::{Value, json};

use super::http::{self, encode};
use super::{StandIn, root};

/// The owner's user id, and so the id of their private chat.
pub const OWNER: i64 = 42;

pub struct Phone {
    stand_in: StandIn,
}

impl Phone {
    pub fn start() -> Self {
        let dir = root().join("tests/fake-telegram");
        let phone = Self { stand_in: StandIn::start(&dir, &["-m", "fake_telegram", "--stop-with-stdin"]) };
        phone.post("users", json!({"id": OWNER, "first_name": "Owner"}));
        phone
    }

    pub fn api_url(&self) -> &str {
        self.stand_in.greeting["api_url"].as_str().unwrap()
    }

    pub fn token(&self) -> &str {
        self.stand_in.greeting["token"].as_str().unwrap()
    }

    pub fn get(&self, path: &str) -> Value {
        http::json("GET", &format!("{}/{path}", self.control()), None)
    }

    pub fn post(&self, path: &str, body: Value) -> Value {
        http::json("POST", &format!("{}/{path}", self.control()), Some(body))
    }

    pub fn delete(&self, path: &str) -> Value {
        http::json("DELETE", &format!("{}/{path}", self.control()), None)
    }

    /// The address of a method of the Bot API, with the bot's token.
    pub fn method(&self, name: &str) -> String {
        format!("{}/bot{}/{name}", self.api_url(), self.token())
    }

    /// The owner writes.
    pub fn says(&self, text: &str) {
        self.post("messages", json!({"from_id": OWNER, "text": text}));
    }

    /// Waits until a message of the bot matches; panics with the screen when none does.
    pub fn sees(&self, pattern: &str) -> String {
        self.sees_within(pattern, 60)
    }

    pub fn sees_within(&self, pattern: &str, seconds: u64) -> String {
        let url =
            format!("{}/wait?chat_id={OWNER}&text={}&timeout={seconds}", self.control(), encode(pattern));
        let (status, body) = http::request("GET", &url, None);
        let found: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        let ok = status == 200 && found["ok"] != json!(false) && found["timeout"] != json!(true);
        assert!(
            ok,
            "the owner does not see {pattern:?} ({status} {body}); the screen:\n{}\nthe calls:\n{}",
            self.screen(),
            self.log()
        );
        body
    }

    /// The bot's messages as plain text, in order.
    pub fn answers(&self) -> Vec<String> {
        self.messages().iter().filter(|m| m["by_bot"] == json!(true)).map(text_of).collect()
    }

    /// Every visible message of the chat.
    pub fn messages(&self) -> Vec<Value> {
        let transcript = self.get(&format!("transcript?chat_id={OWNER}"));
        transcript["messages"].as_array().cloned().unwrap_or_default()
    }

    /// The screen as text.
    pub fn screen(&self) -> String {
        http::request("GET", &format!("{}/transcript?chat_id={OWNER}&format=text", self.control()), None).1
    }

    /// Every Bot API call, one a line.
    pub fn log(&self) -> String {
        let calls = self.get("calls");
        let line = |call: &Value| {
            let args: String = call["args"].to_string().chars().take(160).collect();
            format!("{} {} {} took {} {args}", call["at"], call["method"], call["status"], call["took"])
        };
        calls["calls"]
            .as_array()
            .or(calls.as_array())
            .into_iter()
            .flatten()
            .map(line)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The Bot API calls of one method.
    pub fn calls(&self, method: &str) -> Vec<Value> {
        let calls = self.get(&format!("calls?method={method}"));
        calls["calls"].as_array().or(calls.as_array()).cloned().unwrap_or_default()
    }

    pub fn fault(&self, fault: Value) {
        self.post("faults", fault);
    }

    fn control(&self) -> &str {
        self.stand_in.greeting["control_url"].as_str().unwrap()
    }
}

fn text_of(message: &Value) -> String {
    message["text"].as_str().unwrap_or_default().to_owned()
}

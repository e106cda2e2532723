//! The model: the stand-in of the Messages API, scripted.

use std::path::Path;

use serde_json::{Value, json};

use super::http;
use super::{StandIn, root};

pub struct Model {
    stand_in: StandIn,
}

impl Model {
    /// Starts with a scenario as tests/fake-anthropic/README.md describes it; `record` keeps every request.
    pub fn start(dir: &Path, scenario: Value) -> Self {
        let file = dir.join("scenario.json");
        std::fs::write(&file, scenario.to_string()).unwrap();
        let record = dir.join("requests.jsonl");
        let args = [
            "fake_anthropic.py",
            "--port",
            "0",
            "--scenario",
            file.to_str().unwrap(),
            "--record",
            record.to_str().unwrap(),
        ];
        Self { stand_in: StandIn::start(&root().join("tests/fake-anthropic"), &args) }
    }

    pub fn url(&self) -> &str {
        self.stand_in.greeting["url"].as_str().unwrap()
    }

    /// Replaces the scenario.
    pub fn plays(&self, scenario: Value) {
        http::json("POST", &format!("{}/__fake/scenario", self.url()), Some(scenario));
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Value> {
        let all = http::json("GET", &format!("{}/__fake/requests", self.url()), None);
        all.as_array().or(all["requests"].as_array()).cloned().unwrap_or_default()
    }
}

/// A rule that always answers `typed` (a regular expression) with `text`.
pub fn text_reply(typed: &str, text: &str) -> Value {
    json!({"when": {"typed": typed}, "times": "always", "reply": {"text": text}})
}

//! One owner, one model, one daemon.

use serde_json::{Value, json};

use super::{Daemon, Model, Phone};

/// Everything a system test needs. What no rule answers is echoed.
pub struct World {
    pub daemon: Daemon,
    pub phone: Phone,
    pub model: Model,
    _dir: tempfile::TempDir,
}

impl World {
    /// Both stand-ins, and a daemon that is not started yet.
    pub fn prepare(rules: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let phone = Phone::start();
        let model = Model::start(dir.path(), json!({"rules": rules, "fallback": {"text": "echo: {{last}}"}}));
        let daemon = Daemon::prepare(&phone, &model);
        Self { daemon, phone, model, _dir: dir }
    }

    /// Lets the bot write as fast as it likes: for tests of something else with many messages.
    pub fn without_flood_limits(&self) {
        let limits = json!({"rate": 1000.0, "burst": 1000, "per_minute": null});
        self.phone.post("config", json!({"flood": {"private": limits}}));
    }

    /// The same as [`World::prepare`] with the daemon started.
    pub fn start(rules: Value) -> Self {
        let mut world = Self::prepare(rules);
        world.daemon.launch();
        world
    }
}

/// A rule that answers `typed` with `text`, a few letters every `delta_ms`, so that it streams.
pub fn slow_reply(typed: &str, text: &str, delta_ms: u64) -> Value {
    let block = json!({"type": "text", "text": text, "delta_ms": delta_ms, "chunk_chars": 12});
    json!({"when": {"typed": typed}, "times": "always", "reply": {"content": [block]}})
}

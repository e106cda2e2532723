//! The real CLI against the scripted API, where `SKEP_CLAUDE` names the program: `SKEP_CLAUDE=/path cargo test live`.
//!
//! Each test has a directory of its own and talks to its own scripted API. Without the variable they pass and say so.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::model::SessionId;

/// A scripted API and the directories of one agent.
struct Stage {
    program: PathBuf,
    api: Child,
    port: u16,
    root: tempfile::TempDir,
    session: SessionId,
}

impl Stage {
    /// `None`, with a reason, where there is no CLI.
    fn set(scenario: &Value) -> Option<Self> {
        let Some(program) = std::env::var_os("SKEP_CLAUDE") else {
            println!("skipped: SKEP_CLAUDE does not name a Claude Code program");
            return None;
        };
        let root = tempfile::tempdir().unwrap();
        for name in ["home/.claude", "work", "tmp"] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let file = root.path().join("scenario.json");
        std::fs::write(&file, scenario.to_string()).unwrap();
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-anthropic/fake_anthropic.py");
        #[expect(clippy::disallowed_methods, reason = "a test starts the scripted API")]
        let mut api = std::process::Command::new("python3")
            .arg(fake)
            .args(["--port", "0", "--scenario"])
            .arg(file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(api.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let first: Value = serde_json::from_str(&first).unwrap();
        let port = first["url"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        Some(Self { program: program.into(), api, port, root, session: SessionId::random() })
    }

    async fn start(&self, opening: Opening) -> Result<Running, StartError> {
        let invocation = Invocation {
            session: self.session.clone(),
            opening,
            model: "sonnet".to_owned(),
            instructions: Some("--- You live in a test.".to_owned()),
            mode: Mode::Work,
            broker_port: self.port,
            credential: CredentialKind::ApiKey,
        };
        let spawn = child::plain(self.program.clone(), self.root.path().to_owned());
        let (claude, events) = Claude::start(spawn, &invocation).await?;
        Ok(Running { claude, events })
    }

    async fn open(&self, opening: Opening) -> Running {
        self.start(opening).await.unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}

struct Running {
    claude: Claude,
    events: mpsc::Receiver<ClaudeEvent>,
}

impl Running {
    /// Events up to the one that `last` names, which is not among them.
    async fn until<T>(&mut self, last: impl Fn(&ClaudeEvent) -> Option<T>) -> (Vec<ClaudeEvent>, T) {
        let mut all = Vec::new();
        loop {
            let next = timeout(Duration::from_secs(60), self.events.recv()).await.unwrap();
            let event = next.unwrap_or_else(|| panic!("the events ended after {all:?}"));
            assert!(!matches!(event, ClaudeEvent::Unknown { .. } | ClaudeEvent::Skipped { .. }), "{event:?}");
            if let Some(found) = last(&event) {
                return (all, found);
            }
            all.push(event);
        }
    }

    async fn turn_end(&mut self) -> (Vec<ClaudeEvent>, TurnEnd) {
        self.until(|event| match event {
            ClaudeEvent::TurnEnded(end) => Some((**end).clone()),
            _ => None,
        })
        .await
    }

    async fn ask(&mut self) -> Ask {
        let found = self.until(|event| match event {
            ClaudeEvent::Ask(ask) => Some(ask.clone()),
            _ => None,
        });
        found.await.1
    }

    async fn say(&mut self, text: &str) -> TurnEnd {
        self.claude.prompt(&SessionId::random().0, text).await.unwrap();
        self.turn_end().await.1
    }

    async fn exited(&mut self) -> Exited {
        let found = self.until(|event| match event {
            ClaudeEvent::Exited(exited) => Some(exited.clone()),
            _ => None,
        });
        found.await.1
    }
}

fn bash(command: &str, more: &Value) -> Value {
    let mut input = json!({ "command": command, "description": "Do it" });
    if let (Some(input), Some(more)) = (input.as_object_mut(), more.as_object()) {
        input.extend(more.clone());
    }
    json!({ "content": [{ "type": "tool_use", "name": "Bash", "input": input }] })
}

#[tokio::test]
async fn a_greeting_streams_and_the_process_leaves_when_told() {
    let Some(stage) = Stage::set(&json!({ "chunk_chars": 2, "fallback": { "text": "Good day, {{last}}!" } }))
    else {
        return;
    };
    let mut running = stage.open(Opening::New).await;
    assert!(Version::parse(running.claude.ready().version.as_deref().unwrap()).unwrap() >= MINIMUM);
    let uuid = SessionId::random().0;
    running.claude.prompt(&uuid, "/cost of @fish").await.unwrap();
    let (events, end) = running.turn_end().await;
    let texts = events.iter().filter(|event| matches!(event, ClaudeEvent::Text { .. })).count();
    assert!(texts > 3, "{texts} pieces");
    assert_eq!((end.text.as_str(), &end.outcome), ("Good day, /cost of @fish!", &Outcome::Completed));
    assert_eq!((end.prompts, end.session), (vec![uuid], stage.session.clone()));
    assert!(end.usage.cost_micros > 0 && end.usage.output > 0);
    let Running { claude, mut events } = running;
    claude.end(Duration::from_secs(10));
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    let left = Exited { how: Exit::Code(0), stderr: String::new() };
    assert_eq!(last, Some(ClaudeEvent::Exited(left)));
}

#[tokio::test]
async fn a_tool_waits_for_its_permission() {
    let scenario = json!({
        "rules": [
            { "when": { "typed": "make" }, "times": 2, "reply": bash("touch made", &json!({})) },
            { "when": { "tool_result": true }, "times": "always", "reply": { "text": "done" } },
        ],
    });
    let Some(stage) = Stage::set(&scenario) else { return };
    let made = stage.root.path().join("work/made");
    let mut running = stage.open(Opening::New).await;

    running.claude.prompt(&SessionId::random().0, "make").await.unwrap();
    let ask = running.ask().await;
    assert_eq!((ask.tool_name.as_str(), ask.input["command"].as_str()), ("Bash", Some("touch made")));
    let no = Answer::Deny { message: "not today".to_owned() };
    running.claude.answer(&ask.request_id, &no).await.unwrap();
    assert_eq!(running.turn_end().await.1.text, "done");
    assert!(!made.exists());

    running.claude.prompt(&SessionId::random().0, "make").await.unwrap();
    let ask = running.ask().await;
    running.claude.answer(&ask.request_id, &Answer::Allow).await.unwrap();
    let (events, _) = running.turn_end().await;
    assert!(events.iter().any(|event| matches!(event, ClaudeEvent::Tool(tool) if tool.ok == Some(true))));
    assert!(made.exists());
}

#[tokio::test]
async fn an_interrupt_ends_the_turn_and_not_the_process() {
    let long = json!([{ "type": "text", "text": "word ".repeat(400), "delta_ms": 60 }]);
    let scenario = json!({
        "rules": [{ "when": { "typed": "long" }, "reply": { "content": long } }],
        "fallback": { "text": "here" },
    });
    let Some(stage) = Stage::set(&scenario) else { return };
    let mut running = stage.open(Opening::New).await;
    running.claude.prompt(&SessionId::random().0, "long").await.unwrap();
    running.until(|event| matches!(event, ClaudeEvent::Text { .. }).then_some(())).await;
    running.claude.interrupt().await.unwrap();
    let (_, end) = running.turn_end().await;
    assert_eq!(end.outcome, Outcome::Interrupted);
    assert!(end.text.starts_with("word"));
    assert_eq!(running.say("and now?").await.text, "here");
}

#[tokio::test]
async fn a_killed_conversation_is_resumed() {
    let long = json!([{ "type": "text", "text": "word ".repeat(400), "delta_ms": 60 }]);
    let scenario = json!({
        "rules": [
            { "when": { "typed": "remember" }, "reply": { "text": "kept" } },
            { "when": { "typed": "long" }, "reply": { "content": long } },
            { "when": { "body": "remember 4711" }, "reply": { "text": "4711" } },
        ],
        "fallback": { "text": "forgotten" },
    });
    let Some(stage) = Stage::set(&scenario) else { return };
    let mut running = stage.open(Opening::New).await;
    assert_eq!(running.say("remember 4711").await.text, "kept");
    running.claude.prompt(&SessionId::random().0, "long").await.unwrap();
    running.until(|event| matches!(event, ClaudeEvent::Text { .. }).then_some(())).await;
    running.claude.kill();
    assert_eq!(running.exited().await.how, Exit::Signal(9));

    assert!(matches!(stage.start(Opening::New).await.err(), Some(StartError::SessionExists(_))));
    let mut running = stage.open(Opening::Resume).await;
    let end = running.say("what was it?").await;
    assert_eq!((end.text.as_str(), end.session), ("4711", stage.session.clone()));
}

#[tokio::test]
async fn a_session_that_is_not_there_cannot_be_resumed() {
    let Some(stage) = Stage::set(&json!({})) else { return };
    let error = stage.start(Opening::Resume).await.err();
    assert!(matches!(&error, Some(StartError::NoSession(id)) if *id == stage.session), "{error:?}");
}

#[tokio::test]
async fn errors_of_the_api_are_told_in_plain_words() {
    let error =
        |status: u16, kind: &str| json!({ "error": { "status": status, "type": kind, "message": "no" } });
    let scenario = json!({
        "rules": [
            { "when": { "typed": "key" }, "times": "always", "reply": error(401, "authentication_error") },
            { "when": { "typed": "busy" }, "times": 1, "reply": error(529, "overloaded_error") },
            { "when": { "typed": "bad" }, "times": "always", "reply": error(400, "invalid_request_error") },
        ],
        "fallback": { "text": "better" },
    });
    let Some(stage) = Stage::set(&scenario) else { return };
    let mut running = stage.open(Opening::New).await;
    let what = |end: TurnEnd| match end.outcome {
        Outcome::Failed(failure) => failure.what,
        other => panic!("{other:?}"),
    };
    // The CLI by itself would try for three minutes.
    assert_eq!(what(running.say("key").await), "The model API rejected the API key");
    assert!(what(running.say("bad").await).starts_with("The model API refused the request (HTTP 400)"));
    running.claude.prompt(&SessionId::random().0, "busy").await.unwrap();
    let (events, end) = running.turn_end().await;
    let overloaded =
        |event: &ClaudeEvent| matches!(event, ClaudeEvent::Notice { text } if text.contains("overloaded"));
    assert!(events.iter().any(overloaded), "{events:?}");
    assert_eq!(end.text, "better");
}

#[tokio::test]
async fn a_background_task_ends_in_a_turn_of_its_own() {
    let scenario = json!({
        "rules": [
            { "when": { "typed": "wait" }, "reply": bash("sleep 1; touch done", &json!({ "run_in_background": true })) },
            { "when": { "last": "task-notification" }, "reply": { "text": "it is done" } },
            { "when": { "tool_result": true }, "times": "always", "reply": { "text": "started" } },
        ],
    });
    let Some(stage) = Stage::set(&scenario) else { return };
    let mut running = stage.open(Opening::New).await;
    running.claude.prompt(&SessionId::random().0, "wait").await.unwrap();
    let ask = running.ask().await;
    running.claude.answer(&ask.request_id, &Answer::Allow).await.unwrap();
    let (events, end) = running.turn_end().await;
    assert!(events.contains(&ClaudeEvent::BackgroundTasks { count: 1 }));
    assert_eq!((end.text.as_str(), end.unasked), ("started", false));
    let (events, end) = running.turn_end().await;
    assert!(events.contains(&ClaudeEvent::BackgroundTasks { count: 0 }));
    assert_eq!((end.text.as_str(), end.unasked, end.prompts.len()), ("it is done", true, 0));
}

#[tokio::test]
async fn a_plan_asks_before_everything_that_changes_something() {
    let scenario = json!({
        "rules": [
            { "when": { "typed": "change" }, "reply": bash("touch made", &json!({})) },
            { "when": { "tool_result": true }, "times": "always", "reply": { "text": "{{result}}" } },
        ],
    });
    let Some(stage) = Stage::set(&scenario) else { return };
    let invocation = Invocation {
        session: stage.session.clone(),
        opening: Opening::New,
        model: "sonnet".to_owned(),
        instructions: None,
        mode: Mode::Plan,
        broker_port: stage.port,
        credential: CredentialKind::OauthToken,
    };
    let spawn = child::plain(stage.program.clone(), stage.root.path().to_owned());
    let (claude, events) = Claude::start(spawn, &invocation).await.unwrap();
    let mut running = Running { claude, events };
    running.claude.prompt(&SessionId::random().0, "change").await.unwrap();
    let ask = running.ask().await;
    let no = Answer::Deny { message: "only plans here".to_owned() };
    running.claude.answer(&ask.request_id, &no).await.unwrap();
    assert_eq!(running.turn_end().await.1.text, "only plans here");
    assert!(!stage.root.path().join("work/made").exists());
}

#[tokio::test]
async fn the_version_is_asked_and_a_wrong_program_is_named() {
    let Some(stage) = Stage::set(&json!({})) else { return };
    let spawn = || child::plain(stage.program.clone(), stage.root.path().to_owned());
    assert!(probe(spawn(), &stage.program).await.unwrap() >= MINIMUM);
    let missing = probe(spawn(), Path::new("/nonexistent/claude")).await.unwrap_err();
    assert_eq!(missing.failure().what, "there is no Claude Code program at /nonexistent/claude");
    let directory = probe(spawn(), stage.root.path()).await.unwrap_err();
    assert!(matches!(directory, ProgramError::NotExecutable(_)));
    let old = probe(child::script("echo '2.0.1 (Claude Code)'"), &stage.program).await.unwrap_err();
    assert_eq!(old.to_string(), "Claude Code 2.0.1 is too old: 2.1.197 or newer is needed");
    let other = probe(child::script("echo hello; exit 4"), &stage.program).await.unwrap_err();
    assert!(matches!(other, ProgramError::NoVersion { how: Exit::Code(4), .. }), "{other:?}");
}

//! The real Claude Code through the door. Needs `CLAUDE_BIN`; without it the test says so and passes.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::{Door, ScriptedApi, api_key, token};

#[expect(
    clippy::disallowed_methods,
    reason = "the CLI under test, in no cell: it speaks to the scripted API only"
)]
async fn ask(door: &Door, dummy: &'static str) -> Option<Output> {
    let program = std::env::var_os("CLAUDE_BIN")?;
    let url = format!("http://{}", door.address);
    let run = move || {
        let home = tempfile::tempdir().unwrap();
        Command::new(program)
            .args(["-p", "say it", "--tools=Read", "--model=claude-fake-1", "--output-format=json"])
            .args(["--setting-sources=", "--strict-mcp-config"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home.path())
            .env("CLAUDE_CONFIG_DIR", home.path())
            .env("TMPDIR", home.path())
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("ANTHROPIC_BASE_URL", url)
            .env(dummy, "sk-ant-dummy")
            .current_dir(home.path())
            .output()
            .unwrap()
    };
    Some(tokio::task::spawn_blocking(run).await.unwrap())
}

#[tokio::test]
async fn the_real_cli_is_served_with_either_credential() {
    for (credential, dummy) in [(api_key(), "ANTHROPIC_API_KEY"), (token(), "CLAUDE_CODE_OAUTH_TOKEN")] {
        let api = ScriptedApi::start(&json!({
            "accept_keys": ["sk-real-key", "sk-real-token"],
            "fallback": {"text": "it is said", "usage": {"input_tokens": 5, "output_tokens": 8}},
        }));
        let mut door = Door::open(&api.url, credential);
        let Some(output) = ask(&door, dummy).await else {
            println!("skipped: CLAUDE_BIN is not set");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("it is said"), "{text} {}", String::from_utf8_lossy(&output.stderr));
        let call = door.call().await;
        assert_eq!((call.status, call.usage.output), (200, 8), "{call:?}");
        assert!(!api.record().iter().any(|line| line.to_string().contains("sk-ant-dummy")));
    }
}

#[tokio::test]
async fn the_real_cli_shows_at_once_that_no_credential_is_set() {
    let door = Door::open("http://127.0.0.1:1", None);
    let began = Instant::now();
    let Some(output) = ask(&door, "ANTHROPIC_API_KEY").await else {
        println!("skipped: CLAUDE_BIN is not set");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("anthropic-api-key"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

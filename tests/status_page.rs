//! The status page in a real browser. Needs Chromium; without it the test says so and passes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use skep::config::StatusSettings;
use skep::model::Overview;
use skep::status::StatusPage;
use tokio::sync::watch;

/// The sample of `tests/fixtures/status`, taken now.
fn sample() -> Overview {
    let mut value = serde_json::from_str(include_str!("fixtures/status/overview.json")).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    shift(&mut value, now - 1_790_000_000);
    serde_json::from_value(value).unwrap()
}

fn shift(value: &mut Value, by: i64) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| shift(item, by)),
        Value::Object(fields) => {
            for (key, field) in fields {
                match field.as_i64() {
                    Some(at) if key.ends_with("_at") || key == "last_poll" => *field = (at + by).into(),
                    _ => shift(field, by),
                }
            }
        }
        _ => {}
    }
}

async fn serve(port: u16) -> (SocketAddr, watch::Sender<Arc<Overview>>) {
    let settings = StatusSettings { listen: ([127, 0, 0, 1], port).into(), password: None };
    let page = StatusPage::bind(&settings).await.unwrap();
    let address = page.address();
    let (sender, receiver) = watch::channel(Arc::new(sample()));
    tokio::spawn(page.serve(receiver));
    (address, sender)
}

fn chromium() -> Option<PathBuf> {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .iter()
        .map(|path| Path::new(path).to_owned())
        .find(|path| path.exists())
}

/// A browser driven over its debugging pipe: JSON messages, each ended by a zero byte.
struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    sent: u64,
    session: Option<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    #[expect(clippy::disallowed_methods, reason = "the browser is a program beside the tests, in no cell")]
    fn open(program: &Path, url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The pipe is descriptors 3 and 4, which only a shell can place without unsafe code.
        let script = "mkfifo in out && exec \"$0\" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
            --disable-background-networking --disable-component-update --disable-sync --remote-debugging-pipe \
            --user-data-dir=profile 3<in 4>out 2>/dev/null";
        let child =
            Command::new("sh").args(["-c", script]).arg(program).current_dir(profile.path()).spawn().unwrap();
        let [to, from] = ["in", "out"].map(|name| profile.path().join(name));
        while !from.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let to = File::options().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        let mut browser = Self { child, to, from, sent: 0, session: None, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": url }))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        browser
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).unwrap();
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).expect("the browser answers");
            if answer["id"] == self.sent {
                return answer["result"].clone();
            }
        }
    }

    /// Waits until a JavaScript expression is true.
    fn wait(&mut self, expression: &str) {
        for _ in 0..400 {
            let answer =
                self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
            if answer["result"]["value"] == true {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        let answer =
            self.call("Runtime.evaluate", json!({ "expression": "document.documentElement.outerHTML" }));
        panic!("never true: {expression}\n{answer}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_browser_shows_a_change_without_reloading() {
    let Some(program) = chromium() else {
        println!("skipped: no Chromium here");
        return;
    };
    let (address, overview) = serve(0).await;
    let watching = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::open(&program, &format!("http://{address}/"));
        browser.wait("document.querySelector('#live')?.className === 'on'");
        browser.wait("document.querySelector('h1').textContent === 'Working on 1 run'");
        browser.wait("getComputedStyle(document.querySelector('.card')).borderTopLeftRadius !== '0px'");
        browser.wait("(document.querySelector('summary').click(), document.querySelector('details').open)");
        browser.wait("(window.same = true)");
        overview.send_modify(|overview| Arc::make_mut(overview).queue.running = 41);
        browser.wait("document.querySelector('h1').textContent === 'Working on 41 runs'");
        browser.wait("window.same && document.querySelector('details').open");
        browser.wait("document.querySelectorAll('main script, main img').length === 0");
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            json!({
            "width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": true }),
        );
        browser.wait("innerWidth === 320 && document.documentElement.scrollWidth === 320");
    });
    watching.await.unwrap();
}

/// `SKEP_LOOK=8420 cargo test --test status_page -- --ignored` serves the sample for ten minutes.
#[tokio::test]
#[ignore = "for a person's eyes"]
async fn a_sample_page_for_a_look() {
    let port = std::env::var("SKEP_LOOK").ok().and_then(|port| port.parse().ok()).unwrap_or(8420);
    let (address, _overview) = serve(port).await;
    println!("http://{address}/");
    tokio::time::sleep(Duration::from_secs(600)).await;
}

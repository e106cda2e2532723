//! The daemon under test, with its own state directory.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::{Model, OWNER, Phone, claude};

/// How the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

pub struct Daemon {
    state: PathBuf,
    child: Option<Child>,
    _dir: tempfile::TempDir,
    settings: String,
    environment: Vec<(String, String)>,
    /// What the daemon told the service manager: drained at once, as systemd does, or the daemon would block.
    notify: Receiver<String>,
}

/// A key that must never be seen inside a cell, in a log or in the database.
pub const PLANTED_KEY: &str = "sk-ant-api03-planted-7f3a9c-never-to-be-seen";

impl Daemon {
    /// Prepares a state directory for both stand-ins; starts nothing yet.
    pub fn prepare(phone: &Phone, model: &Model) -> Self {
        let dir = tempfile::Builder::new().prefix("skep-test-").tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        let credentials = state.join("credentials");
        fs::create_dir(&credentials).unwrap();
        secret(&credentials.join("telegram-token"), phone.token());
        secret(&credentials.join("anthropic-api-key"), PLANTED_KEY);
        let settings = format!(
            "[telegram]\nowners = [{OWNER}]\napi_url = \"{}\"\n\n[claude]\nprogram = \"{}\"\nupstream = \"{}\"\n\n\
             [agents.general]\ndescription = \"Everyday questions\"\n\n\
             [agents.coder]\ndescription = \"Writes code\"\n\n[status]\nlisten = \"127.0.0.1:0\"\n",
            phone.api_url(),
            claude().display(),
            model.url()
        );
        let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let (lines, notify_lines) = mpsc::sync_channel(10_000);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = notify.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.lines().any(|line| lines.try_send(line.to_owned()).is_err()) {
                    return;
                }
            }
        });
        let daemon =
            Self { state, child: None, _dir: dir, settings, environment: Vec::new(), notify: notify_lines };
        daemon.write_settings(&daemon.settings);
        daemon
    }

    /// Prepares and starts.
    pub fn start(phone: &Phone, model: &Model) -> Self {
        let mut daemon = Self::prepare(phone, model);
        daemon.launch();
        daemon
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn settings(&self) -> &str {
        &self.settings
    }

    pub fn write_settings(&self, text: &str) {
        fs::write(self.state.join("skep.toml"), text).unwrap();
    }

    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.retain(|(n, _)| n != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn clear_env(&mut self) {
        self.environment.clear();
    }

    /// Starts the process and waits for READY=1.
    pub fn launch(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command =
            Command::new(std::env::var("SKEP_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_skep").to_owned()));
        command
            .arg("--state")
            .arg(&self.state)
            .arg("daemon")
            .env("NOTIFY_SOCKET", self.state.parent().unwrap().join("notify"))
            .env_remove("SKEP_KILL_AT")
            .env("SKEP_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits for READY=1; panics with the log when the daemon ends before.
    pub fn wait_ready(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if let Ok(line) = self.notify.recv_timeout(Duration::from_millis(20))
                && line == "READY=1"
            {
                return;
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the daemon ended before it was ready ({status}):\n{}", self.log());
            }
        }
        panic!("the daemon is not ready after 60 s:\n{}", self.log());
    }

    /// What the daemon told the service manager since the last call.
    pub fn notified(&self) -> Vec<String> {
        self.notify.try_iter().collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// SIGKILL, as a pulled plug for this process.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the end; panics when it does not come.
    pub fn wait(&mut self, seconds: u64) -> Exit {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut child = self.child.take().unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code().map_or_else(|| Exit::Signal(status.signal().unwrap()), Exit::Code);
            }
            if Instant::now() > end {
                let _ = child.kill();
                panic!("the daemon did not end in {seconds} s:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn stop(&mut self) -> Exit {
        self.signal("TERM");
        self.wait(30)
    }

    /// Runs `skep --state … ARGS`.
    pub fn skep(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = Command::new(env!("CARGO_BIN_EXE_skep"))
            .arg("--state")
            .arg(&self.state)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// `skep status --json`.
    pub fn overview(&self) -> serde_json::Value {
        let output = self.skep(&["status", "--json"], "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.state.parent().unwrap().join("daemon.log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}

fn secret(path: &Path, text: &str) {
    use std::io::Write;
    let mut file: File =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{text}").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

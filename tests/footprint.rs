//! The release build against `cross/budgets.toml`. Without one, or with one older than the sources, there is nothing to
//! hold to a budget, and the tests say so and pass: CI builds it first.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use support::{OWNER, Phone, eventually, root};

fn budget(section: &str, name: &str) -> u64 {
    let text = fs::read_to_string(root().join("cross/budgets.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    u64::try_from(table[section][name].as_integer().unwrap()).unwrap()
}

/// A program of the release build, if that is fresh.
fn release(name: &str) -> Option<PathBuf> {
    let path = root().join("target/release").join(name);
    let Ok(built) = path.metadata().and_then(|about| about.modified()) else {
        eprintln!("skipped: there is no release build (make build)");
        return None;
    };
    if ["src", "sandbox/src"].iter().any(|dir| newest(&root().join(dir)) > built) {
        eprintln!("skipped: the release build is older than the sources (make build)");
        return None;
    }
    Some(path)
}

fn newest(dir: &Path) -> SystemTime {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let times = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => newest(&entry.path()),
        false => entry.metadata().unwrap().modified().unwrap(),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The daemon of the release build at rest.
struct Resting {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Resting {
    fn start(program: &Path, phone: &Phone) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = dir.path().join("credentials");
        fs::create_dir(&credentials).unwrap();
        let token = credentials.join("telegram-token");
        fs::write(&token, phone.token()).unwrap();
        fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let settings = format!(
            "[telegram]\nowners = [{OWNER}]\napi_url = \"{}\"\n\n[claude]\nprogram = \"/usr/bin/true\"\n\n\
             [agents.general]\ndescription = \"Everyday questions\"\n\n[status]\nlisten = \"127.0.0.1:0\"\n",
            phone.api_url()
        );
        fs::write(dir.path().join("skep.toml"), settings).unwrap();
        let child = Command::new(program)
            .args(["--state".as_ref(), dir.path().as_os_str(), "daemon".as_ref()])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, _dir: dir }
    }

    fn threads(&self) -> u64 {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count() as u64
    }

    fn helper(&self) -> u32 {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn the_programs_are_no_larger_than_their_budget() {
    for name in ["skep", "skep-sandbox"] {
        let Some(path) = release(name) else { return };
        let (size, most) = (path.metadata().unwrap().len(), budget("size", name));
        assert!(size <= most, "{name}: {size} bytes, budget {most}");
    }
}

#[test]
fn at_rest_the_daemon_and_its_helper_stay_within_their_memory() {
    let Some(program) = release("skep") else { return };
    let phone = Phone::start();
    let daemon = Resting::start(&program, &phone);
    eventually("it polls", 20, || (!phone.calls("getUpdates").is_empty()).then_some(()));
    // Threads that only the start needs linger for ten seconds.
    let threads = budget("rest", "threads");
    eventually("its threads end", 30, || (daemon.threads() <= threads).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    let used = [("skep", pss(daemon.child.id())), ("skep-sandbox", pss(daemon.helper()))];
    for (name, pss) in used {
        let most = budget("memory", name);
        assert!(pss <= most, "{name}: {pss} KiB, budget {most}");
    }
}

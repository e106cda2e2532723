//! Runs commands and the probe (`examples/probe.rs`) in real cells, and natively as the control.
//!
//! A denial proves something only if the same action works without the cell: [`Env::denied`] asserts both.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file is a crate of its own and uses a part; expect would fail in those that use all"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use skep_sandbox::{Cell, CellParts, CellSpec, End, ExitStatus, LaunchError, Launcher, LauncherConfig};

pub const HELPER: &str = env!("CARGO_BIN_EXE_skep-sandbox");

pub struct Env {
    pub launcher: Launcher,
    pub root: tempfile::TempDir,
    pub slot: Option<u16>,
}

pub struct Output {
    pub text: String,
    pub status: ExitStatus,
}

/// Whether the same action must work outside a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// For everyone who may make user namespaces.
    Works,
    /// Only when the suite runs as root.
    WorksForRoot,
    /// Not tried: it would harm the host, or no host has it.
    NotTried,
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The probe, built by cargo beside the tests.
pub fn probe_path() -> PathBuf {
    let here = std::env::current_exe().expect("own path");
    here.ancestors().nth(2).expect("target directory").join("examples/probe")
}

impl Env {
    pub fn new() -> Env {
        Env::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut LauncherConfig)) -> Env {
        let env = Env::unchecked(change);
        let report = env.launcher.capabilities();
        assert!(report.user_namespaces(), "{:?}", report.missing());
        env
    }

    /// Also where the helper's own trial launch failed.
    pub fn unchecked(change: impl FnOnce(&mut LauncherConfig)) -> Env {
        let root = tempfile::tempdir().expect("temporary directory");
        let mut config = LauncherConfig::new(HELPER.into());
        let canary = root.path().join("canary");
        std::fs::write(&canary, "readable by all").expect("canary");
        config.canary = Some(canary);
        change(&mut config);
        let launcher = Launcher::start(config).expect("the helper starts");
        let slot = launcher.capabilities().per_agent_uids.then_some(1);
        let env = Env { launcher, root, slot };
        for dir in [env.workspace(), env.home()] {
            std::fs::create_dir(&dir).expect("directory");
            env.launcher.prepare_dir(&dir, slot).expect("prepared");
        }
        env
    }

    pub fn workspace(&self) -> PathBuf {
        self.root.path().join("workspace")
    }

    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    pub fn parts(&self, argv: &[&str]) -> CellParts {
        CellParts {
            agent: "bee".to_owned(),
            uid_slot: self.slot,
            workspace: self.workspace(),
            home: self.home(),
            programs: vec![(probe_path(), "/opt/skep/probe".into())],
            argv: argv.iter().map(Into::into).collect(),
            env: vec![
                ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
                ("HOME".into(), "/home/agent".into()),
                ("TMPDIR".into(), "/tmp".into()),
            ],
            ..CellParts::default()
        }
    }

    /// Starts a cell whose stdout and stderr come back as one pipe.
    pub fn try_start(&self, parts: CellParts) -> Result<(Cell, File), LaunchError> {
        let spec = CellSpec::new(parts).expect("valid cell");
        let (reader, writer) = std::io::pipe().expect("pipe");
        let again = writer.try_clone().expect("pipe");
        let null: OwnedFd = File::open("/dev/null").expect("null").into();
        let cell = self.launcher.launch(&spec, [null, writer.into(), again.into()])?;
        Ok((cell, File::from(OwnedFd::from(reader))))
    }

    pub fn start(&self, parts: CellParts) -> (Cell, File) {
        self.try_start(parts).expect("the cell starts")
    }

    pub fn run_parts(&self, parts: CellParts) -> Output {
        let (mut cell, mut reader) = self.start(parts);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("output");
        Output { text: String::from_utf8_lossy(&bytes).into_owned(), status: wait(&mut cell) }
    }

    pub fn run(&self, argv: &[&str]) -> Output {
        self.run_parts(self.parts(argv))
    }

    pub fn sh(&self, script: &str) -> Output {
        self.run(&["/bin/sh", "-c", script])
    }

    /// The output of a script that must succeed.
    pub fn sh_ok(&self, script: &str) -> String {
        let output = self.sh(script);
        assert_eq!(output.status.end, End::Exited(0), "{script}: {}", output.text);
        output.text
    }

    /// Each action's error number inside a cell.
    pub fn probe(&self, actions: &[&str]) -> BTreeMap<String, i32> {
        let mut argv = vec!["/opt/skep/probe"];
        argv.extend(actions);
        let output = self.run(&argv);
        assert_eq!(output.status.end, End::Exited(0), "{}", output.text);
        answers(&output.text, actions)
    }

    /// Every action fails in the cell with one of `errors`, and works outside as `control` says.
    pub fn denied(&self, control: Control, errors: &[i32], actions: &[&str]) {
        for (action, number) in self.probe(actions) {
            assert!(errors.contains(&number), "{action} in the cell: {}", name(number));
        }
        if control == Control::NotTried || (control == Control::WorksForRoot && !is_root()) {
            return;
        }
        for (action, number) in native(actions) {
            assert_eq!(number, 0, "the control of {action}: {}", name(number));
        }
    }
}

pub fn wait(cell: &mut Cell) -> ExitStatus {
    let mut bytes = Vec::new();
    File::from(cell.take_exit().expect("exit pipe")).read_to_end(&mut bytes).expect("exit record");
    ExitStatus::parse(&bytes)
}

/// The same probe outside any cell, in throw-away namespaces.
#[expect(clippy::disallowed_methods, reason = "the control runs without the sandbox")]
pub fn native(actions: &[&str]) -> BTreeMap<String, i32> {
    let output = std::process::Command::new(probe_path())
        .arg("--isolate")
        .args(actions)
        .current_dir(std::env::temp_dir())
        .output()
        .expect("the probe runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    answers(&text, actions)
}

#[expect(clippy::disallowed_methods, reason = "the control runs without the sandbox")]
pub fn native_sh(script: &str, dir: &Path) -> bool {
    let shell = std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(dir).output();
    shell.expect("a shell").status.success()
}

fn answers(text: &str, actions: &[&str]) -> BTreeMap<String, i32> {
    let found: BTreeMap<String, i32> = text
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(action, number)| (action.to_owned(), number.parse().expect("a number")))
        .collect();
    for action in actions {
        let number = found.get(*action).unwrap_or_else(|| panic!("no answer for {action}: {text}"));
        assert_ne!(*number, -2, "the probe does not know {action}");
    }
    found
}

pub fn name(number: i32) -> String {
    if number == 0 { "it worked".to_owned() } else { format!("{:?}", nix::errno::Errno::from_raw(number)) }
}

/// Prints why a test did nothing; tests never pass in silence.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

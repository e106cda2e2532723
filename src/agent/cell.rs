//! How an agent's cell is made: its directories, its limits, its broker, and a program behind three descriptors.
//!
//! Called by `start.rs` for Claude, and by the daemon for `skep exec`. Invariant: nothing of the daemon's own environment
//! or files reaches a cell but what is listed here.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use skep_sandbox::{
    CellParts, CellSpec, End, Enforced, ExitStatus, LaunchError, Launcher, Limits, SpecError,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::broker::{Broker, BrokerError, CellBroker};
use crate::claude::{Control, Exit, PATH_IN_ETC, managed_settings};
use crate::config::AgentSettings;
use crate::model::{AgentName, ModelCall};
use crate::store::{Store, StoreError};

/// Where the broker listens on a cell's own loopback: above the ephemeral ports, away from what developers use.
pub const BROKER_PORT: u16 = 61_999;

/// Where the Claude Code program is inside a cell.
pub const CLAUDE_IN_CELL: &str = "/opt/skep/claude";

/// Model calls that may wait to be counted.
const CALLS: usize = 64;

/// Why there is no cell.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The agent's directory cannot be made.
    #[error("cannot make {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The agent's host uid is not known.
    #[error("cannot look up the agent's user")]
    Slot(#[source] StoreError),
    /// What was asked for is not a cell.
    #[error("the cell cannot be described")]
    Spec(#[source] SpecError),
    /// The launch failed; nothing was started.
    #[error("the cell did not start")]
    Launch(#[source] LaunchError),
    /// The launcher broke off.
    #[error("the launch broke off")]
    Task(#[source] tokio::task::JoinError),
    /// The helper bound no listener.
    #[error("the cell has no listener for the model API")]
    NoListener,
    /// The broker cannot serve it.
    #[error("the model API cannot be served to the cell")]
    Broker(#[source] BrokerError),
}

/// The maker of all cells; cheap to clone.
#[derive(Clone)]
pub struct Cells {
    launcher: Arc<Launcher>,
    broker: Broker,
    store: Store,
    agents: PathBuf,
    claude: PathBuf,
}

/// What is to run in a cell.
pub struct Program {
    /// The command; the first element is an absolute path inside the cell.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
}

/// A cell at work. Dropping it ends everything in it.
pub struct LiveCell {
    /// The handle.
    pub control: Arc<dyn Control>,
    /// Resolves when the program has ended.
    pub exit: Pin<Box<dyn Future<Output = Exit> + Send>>,
    /// The model calls made from it.
    pub calls: mpsc::Receiver<ModelCall>,
}

impl Cells {
    /// A maker of cells whose agents' directories are below `agents`; `claude` is the program's path on the host.
    #[must_use]
    pub fn new(
        launcher: Arc<Launcher>,
        broker: Broker,
        store: Store,
        agents: PathBuf,
        claude: PathBuf,
    ) -> Self {
        Self { launcher, broker, store, agents, claude }
    }

    /// The launcher, for what it knows about this machine.
    #[must_use]
    pub fn launcher(&self) -> &Arc<Launcher> {
        &self.launcher
    }

    /// Starts `program` in a fresh cell of `agent`.
    ///
    /// # Errors
    /// See [`CellError`]; nothing runs then.
    pub async fn open(
        &self,
        agent: &AgentName,
        settings: &AgentSettings,
        program: Program,
    ) -> Result<LiveCell, CellError> {
        let slot = if self.launcher.capabilities().per_agent_uids {
            Some(self.store.agent_slot(agent).await.map_err(CellError::Slot)?)
        } else {
            None
        };
        let base = self.agents.join(agent.as_str());
        let spec = CellSpec::new(CellParts {
            agent: agent.as_str().trim_end_matches('-').to_owned(),
            uid_slot: slot,
            workspace: base.join("workspace"),
            home: base.join("home"),
            programs: vec![(self.claude.clone(), PathBuf::from(CLAUDE_IN_CELL))],
            etc_files: vec![(PathBuf::from(PATH_IN_ETC), managed_settings())],
            argv: program.argv,
            env: program.env,
            listener_port: Some(BROKER_PORT),
            limits: Limits { memory_bytes: Some(settings.memory), pids: settings.pids, ..Limits::default() },
        })
        .map_err(CellError::Spec)?;
        let launcher = Arc::clone(&self.launcher);
        let stdio = program.stdio;
        let launch = move || -> Result<skep_sandbox::Cell, CellError> {
            for name in ["workspace", "home"] {
                prepare(&launcher, &base, &base.join(name), slot)?;
            }
            launcher.launch(&spec, stdio).map_err(CellError::Launch)
        };
        // A launch takes milliseconds of system calls and one answer of the helper: not on the runtime's thread.
        let mut cell = tokio::task::spawn_blocking(launch).await.map_err(CellError::Task)??;
        tracing::info!(%agent, pid = cell.pid(), enforced = layers(cell.report()).join(", "), "cell launched");
        let listener = cell.take_listener().ok_or(CellError::NoListener)?;
        let (sender, calls) = mpsc::channel(CALLS);
        let broker = self.broker.serve(agent.clone(), listener, sender).map_err(CellError::Broker)?;
        let exit = cell.take_exit();
        let control = Arc::new(Wall { cell, _broker: broker });
        Ok(LiveCell { control, exit: Box::pin(ended(exit)), calls })
    }
}

/// The cell with its door to the model API: both end together.
struct Wall {
    cell: skep_sandbox::Cell,
    _broker: CellBroker,
}

impl Control for Wall {
    fn pid(&self) -> i32 {
        self.cell.pid()
    }

    fn kill(&self) {
        if let Err(error) = self.cell.kill() {
            tracing::error!(pid = self.cell.pid(), %error, "a cell could not be killed");
        }
    }

    fn memory(&self) -> Option<u64> {
        self.cell.memory()
    }

    fn layers(&self) -> Vec<String> {
        layers(self.cell.report())
    }
}

/// Waits for PID 1's last word: the program's status, or the end of the pipe when the cell was killed.
async fn ended(pipe: Option<OwnedFd>) -> Exit {
    let Some(Ok(mut pipe)) = pipe.map(pipe::Receiver::from_owned_fd) else { return Exit::Unknown };
    let mut word = Vec::new();
    if pipe.read_to_end(&mut word).await.is_err() {
        return Exit::Unknown;
    }
    told(ExitStatus::parse(&word))
}

fn told(status: ExitStatus) -> Exit {
    match status {
        ExitStatus { out_of_memory: true, end: End::Signaled(_) | End::Killed } => Exit::OutOfMemory,
        // Something in the cell may have been killed for memory; the program itself went on.
        ExitStatus { end: End::Exited(code), .. } => Exit::Code(i32::from(code)),
        ExitStatus { end: End::Signaled(signal), .. } => Exit::Signal(signal),
        ExitStatus { end: End::Killed, .. } => Exit::Unknown,
    }
}

/// What holds a cell, as the owner reads it. Only what was read back is named.
#[must_use]
pub fn layers(report: &Enforced) -> Vec<String> {
    let mut list = Vec::new();
    if !report.namespaces.is_empty() {
        list.push(format!("{} namespaces", report.namespaces.len()));
    }
    if report.own_uid {
        list.push("own user".to_owned());
    }
    if report.capabilities_zero && report.no_new_privs {
        list.push("no privileges".to_owned());
    }
    if report.seccomp_mode == 2 {
        list.push("seccomp".to_owned());
    }
    if let Some(abi) = report.landlock {
        list.push(format!("Landlock {abi}"));
    }
    if report.nested_namespaces_refused {
        list.push("no nested namespaces".to_owned());
    }
    match (&report.cgroup, report.data_limit) {
        (Some(limits), _) if limits.memory_max.is_some() => list.push("memory limit".to_owned()),
        (_, Some(_)) => list.push("memory limit per process".to_owned()),
        _ => {}
    }
    if report.cgroup.as_ref().is_some_and(|limits| limits.pids_max.is_some()) {
        list.push("process limit".to_owned());
    }
    if report.canary_hidden == Some(true) {
        list.push("canary hidden".to_owned());
    }
    list
}

/// Makes one directory of an agent and gives it to the agent's user.
fn prepare(launcher: &Launcher, base: &Path, dir: &Path, slot: Option<u16>) -> Result<(), CellError> {
    let failed = |path: &Path, source| CellError::Directory { path: path.to_owned(), source };
    if fs::symlink_metadata(dir).is_ok_and(|about| about.is_dir()) {
        return launcher.prepare_dir(dir, slot).map_err(CellError::Launch);
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750).create(base).map_err(|e| failed(base, e))?;
    match DirBuilder::new().mode(0o700).create(dir) {
        // Another cell of the agent starts at this moment and was quicker. What is no directory is refused below.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(dir, error)),
        _ => {}
    }
    launcher.prepare_dir(dir, slot).map_err(CellError::Launch)
}

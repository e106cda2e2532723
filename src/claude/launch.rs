//! Claude in a real cell: what the sandbox is asked for, and its answer in the words of `cell`.
//!
//! Called by `agent`, which passes [`in_cell`] to [`Claude::start`](super::Claude::start) or [`probe`](super::probe).
//! Invariant: the launcher blocks, so it is called on the blocking pool only.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use skep_sandbox::{CellParts, CellSpec, End, ExitStatus, Launcher, Limits};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::{Cell, Command, Control, Exit, SpawnError, managed};
use crate::model::AgentName;

/// The program's path inside every cell.
const PROGRAM: &str = "/opt/claude/claude";

/// What one cell is made of, beside the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellPlan {
    /// The agent.
    pub agent: AgentName,
    /// Its host uid, counted from the first; `None` shares the daemon's.
    pub uid_slot: Option<u16>,
    /// Host directory that is `/workspace`, where the program starts.
    pub workspace: PathBuf,
    /// Host directory that is `/home/agent`.
    pub home: PathBuf,
    /// The Claude Code program on the host.
    pub program: PathBuf,
    /// Bytes of memory for everything in the cell.
    pub memory: u64,
    /// Processes in the cell.
    pub pids: u32,
    /// Port of the broker on the cell's loopback; `None`: no network at all.
    pub broker_port: Option<u16>,
}

type Launching = Pin<Box<dyn Future<Output = Result<Cell, SpawnError>> + Send>>;

/// How [`Claude::start`](super::Claude::start) and [`probe`](super::probe) get a real cell.
pub fn in_cell(
    launcher: Arc<Launcher>,
    plan: CellPlan,
) -> impl FnOnce(Command, [OwnedFd; 3]) -> Launching + Send {
    move |command, stdio| {
        Box::pin(async move {
            let spec = CellSpec::new(parts(plan, command))?;
            let cell = tokio::task::spawn_blocking(move || launcher.launch(&spec, stdio)).await??;
            Ok(adopt(cell)?)
        })
    }
}

fn parts(plan: CellPlan, command: Command) -> CellParts {
    let argv = std::iter::once(PROGRAM.to_owned()).chain(command.arguments).map(OsString::from).collect();
    let env = command
        .environment
        .into_iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    CellParts {
        // A host name may not end with a dash, an agent's name may.
        agent: plan.agent.as_str().trim_end_matches('-').to_owned(),
        uid_slot: plan.uid_slot,
        workspace: plan.workspace,
        home: plan.home,
        programs: vec![(plan.program, PathBuf::from(PROGRAM))],
        etc_files: vec![(PathBuf::from(managed::PATH_IN_ETC), managed::managed_settings())],
        argv,
        env,
        listener_port: plan.broker_port,
        limits: Limits { memory_bytes: Some(plan.memory), pids: plan.pids, ..Limits::default() },
    }
}

fn adopt(mut cell: skep_sandbox::Cell) -> io::Result<Cell> {
    let listener = cell.take_listener();
    let exit = cell.take_exit().map(pipe::Receiver::from_owned_fd).transpose()?;
    let exit = Box::pin(async move {
        let Some(exit) = exit else { return Exit::Unknown };
        let mut records = Vec::new();
        match exit.take(64).read_to_end(&mut records).await {
            Ok(_) => ended(ExitStatus::parse(&records)),
            Err(_) => Exit::Unknown,
        }
    });
    Ok(Cell { control: Arc::new(Held(cell)), exit, listener })
}

fn ended(status: ExitStatus) -> Exit {
    match status {
        ExitStatus { out_of_memory: true, end: End::Signaled(_) | End::Killed } => Exit::OutOfMemory,
        ExitStatus { end: End::Exited(code), .. } => Exit::Code(i32::from(code)),
        ExitStatus { end: End::Signaled(signal), .. } => Exit::Signal(signal),
        ExitStatus { end: End::Killed, .. } => Exit::Signal(nix::libc::SIGKILL),
    }
}

/// A cell is killed when the last handle to it is dropped.
struct Held(skep_sandbox::Cell);

impl Control for Held {
    fn pid(&self) -> i32 {
        self.0.pid()
    }

    fn kill(&self) {
        if let Err(error) = self.0.kill() {
            tracing::error!(pid = self.0.pid(), %error, "a cell could not be killed");
        }
    }

    fn memory(&self) -> Option<u64> {
        self.0.memory()
    }

    fn layers(&self) -> Vec<String> {
        self.0.report().to_string().lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_makes_a_valid_cell() {
        let plan = CellPlan {
            agent: AgentName::new("coder-").unwrap(),
            uid_slot: Some(3),
            workspace: "/var/lib/skep/agents/coder-/workspace".into(),
            home: "/var/lib/skep/agents/coder-/home".into(),
            program: "/usr/lib/skep/claude".into(),
            memory: 700 << 20,
            pids: 256,
            broker_port: Some(3128),
        };
        let command = Command {
            arguments: vec!["--version".to_owned()],
            environment: vec![("LANG".to_owned(), "C.UTF-8".to_owned())],
        };
        let spec = CellSpec::new(parts(plan, command)).unwrap();
        assert_eq!(spec.parts().argv, ["/opt/claude/claude", "--version"]);
    }

    #[test]
    fn the_end_of_a_cell_is_told_apart() {
        let status = |end, out_of_memory| ExitStatus { end, out_of_memory };
        let cases = [
            (status(End::Exited(1), false), Exit::Code(1)),
            // Something in the cell was killed for memory; Claude itself went on.
            (status(End::Exited(0), true), Exit::Code(0)),
            (status(End::Signaled(9), true), Exit::OutOfMemory),
            (status(End::Killed, true), Exit::OutOfMemory),
            (status(End::Signaled(11), false), Exit::Signal(11)),
            (status(End::Killed, false), Exit::Signal(9)),
        ];
        for (status, expected) in cases {
            assert_eq!(ended(status), expected, "{status:?}");
        }
    }
}

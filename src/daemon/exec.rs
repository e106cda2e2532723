//! `skep exec`: any command in a cell like those of an agent, with or without a running daemon; and the probe that asks
//! the Claude Code program for its version.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{DaemonError, prepare_state, privileges, read_credentials, start_helper};
use crate::agent::{BROKER_PORT, CLAUDE_IN_CELL, CellError, Cells, LiveCell, Program, chain};
use crate::broker::Broker;
use crate::claude::{self, CredentialKind, Exit};
use crate::config::{self, AgentSettings, Paths, Settings};
use crate::control::{ControlServer, Reply};
use crate::model::{AgentName, MachineOverview};
use crate::store::Store;

/// Why a command could not be run in a cell.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// What the daemon would need, too.
    #[error(transparent)]
    Daemon(DaemonError),
    /// The settings name no such agent.
    #[error("there is no agent {0} in the settings; skep agents lists those there are")]
    NoAgent(AgentName),
    /// The cell did not start.
    #[error("the cell did not start")]
    Cell(#[source] CellError),
}

/// Runs a command in a cell of `agent` without a daemon; returns its exit code (128 and the signal's number when a signal
/// ended it). Call with one thread; `unprivileged` is called when more may be started.
///
/// # Errors
/// When there is no cell to run it in; nothing has run then.
pub fn exec_alone(
    paths: &Paths,
    agent: &AgentName,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    stdio: [OwnedFd; 3],
    unprivileged: impl FnOnce(),
) -> Result<i32, ExecError> {
    let settings =
        config::load(&paths.config).map_err(|e| ExecError::Daemon(DaemonError::Settings(e)))?.settings;
    let chosen = settings.agents.get(agent).cloned().ok_or_else(|| ExecError::NoAgent(agent.clone()))?;
    let credentials = read_credentials(paths).map_err(ExecError::Daemon)?;
    prepare_state(paths).map_err(ExecError::Daemon)?;
    // Held until the end: a daemon that starts meanwhile must not share the state with us.
    let _door =
        ControlServer::bind(&paths.control).map_err(|e| ExecError::Daemon(DaemonError::Control(e)))?;
    let launcher = start_helper(paths).map_err(ExecError::Daemon)?;
    privileges::drop_all().map_err(|e| ExecError::Daemon(DaemonError::Privileges(e)))?;
    unprivileged();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = Store::open(&paths.database).map_err(|e| ExecError::Daemon(DaemonError::Store(e)))?;
    let broker = Broker::new(&settings.claude.upstream, credentials.model)
        .map_err(|e| ExecError::Daemon(DaemonError::Broker(e)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|source| ExecError::Daemon(DaemonError::Runtime { what: "start the runtime", source }))?;
    let program = settings.claude.program.clone();
    let cells = runtime.block_on(async {
        let cells = Cells::new(Arc::new(launcher), broker, store, paths.agents.clone(), program);
        let cell = cells.open(agent, &chosen, described(argv, env, stdio)).await.map_err(ExecError::Cell)?;
        Ok(code(wait(cell).await))
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    cells
}

/// Runs a command in a cell for a client of the control socket. The cell ends when the client hangs up.
pub(super) async fn in_cell(
    cells: &Cells,
    agent: &AgentName,
    settings: &AgentSettings,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    descriptors: Vec<OwnedFd>,
    reply: &mpsc::Sender<Reply>,
) -> Reply {
    let Ok(stdio) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return Reply::error(
            "the request came without its three descriptors",
            "use the skep of the same version",
        );
    };
    match cells.open(agent, settings, described(argv, env, stdio)).await {
        Ok(cell) => {
            let control = Arc::clone(&cell.control);
            tokio::select! {
                exit = wait(cell) => Reply::Exit { code: code(exit) },
                () = reply.closed() => {
                    control.kill();
                    Reply::Done
                }
            }
        }
        Err(error) => Reply::error(chain(&error), "skep status says what this machine lacks"),
    }
}

/// Waits for the end and counts nobody's model calls: they belong to no run.
async fn wait(mut cell: LiveCell) -> Exit {
    loop {
        tokio::select! {
            exit = &mut cell.exit => return exit,
            Some(_) = cell.calls.recv() => {}
        }
    }
}

fn described(argv: Vec<String>, extra: Vec<(String, String)>, stdio: [OwnedFd; 3]) -> Program {
    let named = !argv.first().is_some_and(|program| program.starts_with('/'));
    // A bare name is looked up on the cell's own PATH, by a program of the cell.
    let prefix: &[&str] = if named { &["/usr/bin/env", "--"] } else { &[] };
    let argv =
        prefix.iter().map(|&s| OsString::from(s)).chain(argv.into_iter().map(OsString::from)).collect();
    let mut env = claude::environment(BROKER_PORT, CredentialKind::ApiKey);
    env.retain(|(name, _)| extra.iter().all(|(other, _)| other != name));
    env.extend(extra);
    let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    Program { argv, env, stdio }
}

fn code(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
        Exit::OutOfMemory | Exit::Unknown => 137,
    }
}

/// Asks the program for its version, in a cell, and says aloud what it found.
pub(super) async fn probe_claude(
    cells: Cells,
    settings: watch::Receiver<Arc<Settings>>,
    machine: watch::Sender<MachineOverview>,
) {
    let (program, agent) = {
        let settings = settings.borrow();
        let name = settings.default_agent.clone();
        (settings.claude.program.clone(), settings.agents.get(&name).cloned().map(|agent| (name, agent)))
    };
    let Some((name, agent)) = agent else { return };
    let spawn = |command: claude::Command, stdio| async {
        let argv =
            std::iter::once(CLAUDE_IN_CELL.to_owned()).chain(command.arguments).map(OsString::from).collect();
        let env = command.environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let cell = cells.open(&name, &agent, Program { argv, env, stdio }).await?;
        Ok(claude::Cell { control: cell.control, exit: cell.exit })
    };
    match claude::probe(spawn, &program).await {
        Ok(version) => {
            tracing::info!(%version, program = %program.display(), "Claude Code found");
            machine.send_modify(|machine| machine.claude_version = Some(version.to_string()));
        }
        Err(error) => {
            let failure = error.failure();
            tracing::error!(error = chain(&error), fix = failure.fix, "Claude Code cannot be used");
            machine.send_modify(|machine| {
                machine.missing.insert(0, format!("{}. {}", failure.what, failure.fix))
            });
        }
    }
}

//! One Claude process: started, spoken to, ended.
//!
//! Called by `agent`. [`Claude`] is the handle; its events come through the receiver that [`Claude::start`] returns with
//! it. Invariants:
//! - `start` returns only when the process has answered `initialize`: whoever has a [`Claude`] can prompt it.
//! - Writing never blocks the caller on a process that does not read: lines wait in a bounded queue.
//! - Dropping the handle kills the process.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::pump::{self, Pump, Say};
use super::turn::Turns;
use super::{
    Cell, ClaudeEvent, Command, Control, Exited, Invocation, Opening, SpawnError, args, explain, say,
};
use crate::failpoint;
use crate::model::{Failure, SessionId};

/// How long a process may take to answer `initialize`: 0.3 s when all is well, many seconds from a slow card.
/// The system tests wait for it to run out, three times in a row.
const READY_WITHIN: Duration = Duration::from_secs(if cfg!(feature = "failpoints") { 10 } else { 45 });
/// Lines that may wait for a process that does not read.
const LINES_WAITING: usize = 32;
/// Events that may wait for the session machine; more, and the process's own output waits in its pipe.
const EVENTS_WAITING: usize = 64;

/// Why a process could not be brought to the point where it takes prompts.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No pipe could be made.
    #[error("cannot make the pipes of a Claude process")]
    Pipe(#[source] io::Error),
    /// The cell could not be launched.
    #[error("cannot launch a cell for Claude")]
    Spawn(#[source] SpawnError),
    /// There is no transcript of the session that was to be resumed.
    #[error("Claude knows no session {0}")]
    NoSession(SessionId),
    /// A transcript of the session that was to be begun exists already.
    #[error("Claude already has a session {0}")]
    SessionExists(SessionId),
    /// It ended before it was ready.
    #[error("Claude ended before it was ready ({how:?}): {stderr}", how = .0.how, stderr = .0.stderr)]
    Ended(Exited),
    /// It did not become ready in time, and was killed.
    #[error("Claude was not ready within {} s: {stderr}", within.as_secs())]
    NotReady {
        /// How long it was waited for.
        within: Duration,
        /// The last 4 KiB of its standard error.
        stderr: String,
    },
}

impl StartError {
    /// The error in the owner's words.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (what, fix) = match self {
            Self::Pipe(_) => (
                "Claude could not be started: the service has no free file descriptors",
                "Run `sudo systemctl restart skep`, then send the message again.",
            ),
            Self::Spawn(source) => {
                let what =
                    format!("Claude's cell could not be launched: {}", explain::short(&source.to_string()));
                let fix = "Run `skep status` on the machine: it says what is missing.".to_owned();
                return Failure { what, fix };
            }
            Self::NoSession(_) => (
                "Claude no longer has this conversation",
                "Send the message again: it begins a fresh conversation. Files in the workspace stay.",
            ),
            Self::SessionExists(_) => {
                ("Claude already has a conversation under this id", "Send /new to begin a fresh one.")
            }
            Self::Ended(exited) => return explain::explain_exit(exited),
            Self::NotReady { .. } => (
                "Claude did not start in time",
                "Send the message again. If it fails again, the machine may be short of memory: see `skep status`.",
            ),
        };
        Failure { what: what.to_owned(), fix: fix.to_owned() }
    }
}

impl Exited {
    /// The end of a process that was still needed, in the owner's words.
    #[must_use]
    pub fn failure(&self) -> Failure {
        explain::explain_exit(self)
    }
}

/// The process has ended; its last event says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Claude process has ended")]
pub struct Gone;

/// What a process said of itself when it became ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its version, where it tells.
    pub version: Option<String>,
}

/// The answer to an [`Ask`](super::Ask).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The tool may be used, as asked.
    Allow,
    /// It may not.
    Deny {
        /// Told to the model.
        message: String,
    },
}

/// The handle to a running process. Dropping it kills the process.
pub struct Claude {
    stdin: mpsc::Sender<Say>,
    control: Arc<dyn Control>,
    ended: watch::Receiver<bool>,
    ready: Ready,
    requests: AtomicU64,
}

impl Claude {
    /// Starts a process through `spawn`, which is given what to run and its standard input, output and error.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start<S, F>(
        spawn: S,
        invocation: &Invocation,
    ) -> Result<(Self, mpsc::Receiver<ClaudeEvent>), StartError>
    where
        S: FnOnce(Command, [OwnedFd; 3]) -> F,
        F: Future<Output = Result<Cell, SpawnError>>,
    {
        let (to_stdin, from_stdout, from_stderr, theirs) = pipes().map_err(StartError::Pipe)?;
        let command = Command {
            arguments: args::command_line(invocation),
            environment: args::environment(invocation.broker_port, invocation.credential),
        };
        let cell = spawn(command, theirs).await.map_err(StartError::Spawn)?;
        failpoint::reach("cell.launched");
        let control = cell.control;
        // From here on the process ends with this guard, whatever goes wrong.
        let (stdin, lines) = mpsc::channel(LINES_WAITING);
        let (ended_sender, ended) = watch::channel(false);
        let mut claude =
            Self { stdin, control, ended, ready: Ready { version: None }, requests: AtomicU64::new(1) };
        tokio::spawn(pump::write(to_stdin, lines));
        let spent = match invocation.opening {
            Opening::New => Some(0.0),
            Opening::Resume => None,
        };
        let turns =
            Turns::new(invocation.session.clone(), invocation.model.clone(), invocation.credential, spent);
        let mut pump = Pump::new(from_stdout, from_stderr, cell.exit, claude.stdin.clone(), turns);

        claude.send(say::initialize(pump::INITIALIZE)).await.ok();
        match timeout(READY_WITHIN, pump.ready()).await {
            Ok(Ok(ready)) => claude.ready = ready,
            Ok(Err(exited)) => return Err(recognise(exited, &invocation.session)),
            Err(_) => {
                claude.kill();
                return Err(StartError::NotReady {
                    within: READY_WITHIN,
                    stderr: pump.exited().await.stderr,
                });
            }
        }
        failpoint::reach("claude.ready");
        let (events, receiver) = mpsc::channel(EVENTS_WAITING);
        let control = Arc::clone(&claude.control);
        tokio::spawn(async move {
            pump.run(events, &*control).await;
            ended_sender.send_replace(true);
        });
        Ok((claude, receiver))
    }

    /// What the process said of itself.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Sends a message of the owner, taken literally. `uuid` must be a UUID; events and the turn's end name it.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn prompt(&self, uuid: &str, text: &str) -> Result<(), Gone> {
        self.stdin.send(Say::Prompt(say::prompt(uuid, text))).await.map_err(|_| Gone)
    }

    /// Ends the running turn; its [`TurnEnd`](super::TurnEnd) follows, and the process goes on. Kills background tasks.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn interrupt(&self) -> Result<(), Gone> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        self.send(say::interrupt(&format!("interrupt-{number}"))).await
    }

    /// Answers an [`Ask`](super::Ask).
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn answer(&self, request_id: &str, answer: &Answer) -> Result<(), Gone> {
        self.send(match answer {
            Answer::Allow => say::allow(request_id),
            Answer::Deny { message } => say::deny(request_id, message),
        })
        .await
    }

    /// Lets the process end by itself: it finishes its turn, writes its transcript and leaves. What is still there after
    /// `grace` is killed. [`ClaudeEvent::Exited`] follows either way.
    pub fn end(mut self, grace: Duration) {
        tokio::spawn(async move {
            let leave = async {
                let _ = self.stdin.send(Say::Close).await;
                let _ = self.ended.wait_for(|ended| *ended).await;
            };
            let _ = timeout(grace, leave).await;
            // `self` is dropped here, and with it whatever still runs.
        });
    }

    /// Ends the process and everything in its cell at once.
    pub fn kill(&self) {
        self.control.kill();
    }

    /// Host process id of the cell's first process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.control.pid()
    }

    /// Bytes in use by the cell, where that can be measured.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        self.control.memory()
    }

    /// Layers of the cell that were read back as enforced, in plain words.
    #[must_use]
    pub fn layers(&self) -> Vec<String> {
        self.control.layers()
    }

    async fn send(&self, line: Vec<u8>) -> Result<(), Gone> {
        // A process that leaves dozens of lines unread is stuck: whoever waited for it could not stop it any more.
        self.stdin.try_send(Say::Line(line)).map_err(|_| {
            self.control.kill();
            Gone
        })
    }
}

impl Drop for Claude {
    fn drop(&mut self) {
        self.control.kill();
    }
}

/// What an early end means.
fn recognise(exited: Exited, session: &SessionId) -> StartError {
    if exited.stderr.contains("No conversation found with session ID") {
        StartError::NoSession(session.clone())
    } else if exited.stderr.contains("is already in use") {
        StartError::SessionExists(session.clone())
    } else {
        StartError::Ended(exited)
    }
}

type Ours = (pipe::Sender, pipe::Receiver, pipe::Receiver, [OwnedFd; 3]);

/// Our ends, not blocking, and the three of the process, which block.
fn pipes() -> io::Result<Ours> {
    let (stdin, to_stdin) = io::pipe()?;
    let (from_stdout, stdout) = io::pipe()?;
    let (from_stderr, stderr) = io::pipe()?;
    Ok((
        pipe::Sender::from_owned_fd(to_stdin.into())?,
        pipe::Receiver::from_owned_fd(from_stdout.into())?,
        pipe::Receiver::from_owned_fd(from_stderr.into())?,
        [stdin.into(), stdout.into(), stderr.into()],
    ))
}

#[cfg(test)]
mod tests;

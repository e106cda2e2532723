//! Starting Claude for a conversation: a cell, the process in it, and its two streams of news.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::cell::{BROKER_PORT, CLAUDE_IN_CELL, Program};
use super::session::StartFailure;
use super::{Context, admission, chain};
use crate::claude::{
    self, Claude, ClaudeEvent, Command, Control, CredentialKind, Exit, Exited, Invocation, Mode, Opening,
    SpawnError, StartError,
};
use crate::config::{AgentSettings, Permissions};
use crate::model::{Failure, ModelCall};
use crate::store::Conversation;

/// A process told to end in good order is killed after this long.
const END_GRACE: Duration = Duration::from_secs(5);

/// A Claude process at work.
pub(super) struct Live {
    /// `None` after it was told to end.
    claude: Option<Claude>,
    pub control: Arc<dyn Control>,
    pub events: mpsc::Receiver<ClaudeEvent>,
    pub calls: mpsc::Receiver<ModelCall>,
    /// Seconds since the epoch.
    pub started_at: i64,
    /// What was read back as enforced, in plain words.
    pub layers: Vec<String>,
}

impl Live {
    /// The process, while it takes orders.
    pub(super) fn claude(&self) -> Option<&Claude> {
        self.claude.as_ref()
    }

    /// Tells the process to end; its last event still comes.
    pub(super) fn end(&mut self) {
        if let Some(claude) = self.claude.take() {
            claude.end(END_GRACE);
        }
    }

    /// Ends everything in the cell at once; the last event still comes.
    pub(super) fn kill(&self) {
        self.control.kill();
    }
}

/// Starts Claude in a cell of the conversation's agent.
pub(super) async fn start(
    context: &Context,
    conversation: &Conversation,
    settings: &AgentSettings,
    resume: bool,
) -> Result<Live, StartFailure> {
    let invocation = Invocation {
        session: conversation.session.clone(),
        opening: if resume { Opening::Resume } else { Opening::New },
        model: settings.model.clone(),
        instructions: settings.instructions.clone(),
        mode: match settings.permissions {
            Permissions::Sandboxed => Mode::Work,
            Permissions::Plan => Mode::Plan,
        },
        broker_port: BROKER_PORT,
        credential: context.credential.unwrap_or(CredentialKind::ApiKey),
    };
    let _turn = context.launches.acquire().await;
    admission::make_room(&context.registry).await;
    let mut opened = None;
    let keep = &mut opened;
    let spawn = |command: Command, stdio| async move {
        let argv =
            std::iter::once(CLAUDE_IN_CELL.into()).chain(command.arguments.into_iter().map(Into::into));
        let env = command.environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        let program = Program { argv: argv.collect(), env: env.collect(), stdio };
        let cell = context.cells.open(&conversation.agent, settings, program).await;
        let cell = cell.map_err(SpawnError::from)?;
        *keep = Some((cell.calls, Arc::clone(&cell.control)));
        Ok(claude::Cell { control: cell.control, exit: cell.exit })
    };
    match Claude::start(spawn, &invocation).await {
        Ok((claude, events)) => {
            let Some((calls, control)) = opened else { return Err(lost()) };
            let layers = control.layers();
            Ok(Live { claude: Some(claude), control, events, calls, started_at: now(), layers })
        }
        Err(error) => {
            tracing::warn!(agent = %conversation.agent, error = chain(&error), "Claude did not start");
            Err(match error {
                StartError::NoSession(_) => StartFailure::NoSession,
                StartError::SessionExists(_) => StartFailure::SessionExists,
                StartError::NotReady { .. } => StartFailure::Hung(error.failure()),
                StartError::Spawn(ref cause) => {
                    let told = error.failure();
                    StartFailure::Failed(Failure {
                        what: format!("{} ({})", told.what, chain(cause.as_ref())),
                        fix: told.fix,
                    })
                }
                StartError::Ended(Exited { how: Exit::Signal(_) | Exit::Unknown, .. }) => {
                    StartFailure::Died(error.failure())
                }
                _ => StartFailure::Failed(error.failure()),
            })
        }
    }
}

/// Cannot happen: a process that started had a cell.
fn lost() -> StartFailure {
    StartFailure::Failed(Failure {
        what: "Claude started without a cell".to_owned(),
        fix: "Send the message again".to_owned(),
    })
}

/// Seconds since the epoch by the wall clock.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

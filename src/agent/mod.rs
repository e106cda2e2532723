//! Agents at work: conversations, their cells and their Claude processes.
//!
//! Called by the router (prompts, stop, new, cancel) and by the daemon's wiring (start, drain). `session.rs` decides,
//! `actor.rs` does it, `supervisor.rs` finds the actor, `cell.rs` knows how an agent's cell is made.
//!
//! Invariant: a run reaches an actor only after its row is committed, and leaves it only by a committed ending.

mod actor;
mod admission;
mod cell;
mod registry;
mod session;
mod start;
mod supervisor;

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use admission::memory_available;
pub use cell::{BROKER_PORT, CLAUDE_IN_CELL, CellError, Cells, LiveCell, Program, layers};
pub use registry::{Entry, Registry};
pub use session::{Arrival, Running};

use crate::announce::Announcer;
use crate::claude::CredentialKind;
use crate::config::Settings;
use crate::model::{AgentName, ConversationId, Place, RunId, SessionId};
use crate::store::{Conversation, Run, Store};

/// Everything an actor acts upon.
pub struct Context {
    /// The durable state.
    pub store: Store,
    /// How cells are made.
    pub cells: Cells,
    /// The shape of the model credential; `None` when there is none, and the broker tells Claude so.
    pub credential: Option<CredentialKind>,
    /// Settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The ways out.
    pub announcer: Announcer,
    /// What runs where.
    pub registry: Registry,
    /// One launch at a time: on a small machine several at once would each see the same free memory, and all be slow.
    pub launches: Semaphore,
}

enum Message {
    Prompt(Run, Arrival),
    Renew(Conversation, SessionId, Running),
    Cancel(ConversationId, RunId),
    Stop(Place, Option<AgentName>, oneshot::Sender<usize>),
    Shutdown(oneshot::Sender<()>),
}

/// Prompts on their way to a conversation.
const BACKLOG: usize = 64;

/// The handle to all agents; cheap to clone.
#[derive(Clone)]
pub struct Agents {
    messages: mpsc::Sender<Message>,
}

impl Agents {
    /// Starts the supervisor. Its end is the end of the daemon.
    #[must_use]
    pub fn start(context: Arc<Context>) -> (Self, JoinHandle<()>) {
        let (messages, receiver) = mpsc::channel(BACKLOG);
        let task = tokio::spawn(supervisor::Supervisor::new(context).run(receiver));
        (Self { messages }, task)
    }

    /// Gives a stored run to its conversation.
    pub async fn prompt(&self, run: Run, arrival: Arrival) {
        self.tell(Message::Prompt(run, arrival)).await;
    }

    /// Begins the fresh `session`, which the store has already, when a running turn has ended or was stopped.
    pub async fn renew(&self, conversation: Conversation, session: SessionId, running: Running) {
        self.tell(Message::Renew(conversation, session, running)).await;
    }

    /// Takes a run out of its conversation's queue that has been cancelled in the store.
    pub async fn cancel(&self, conversation: ConversationId, run: RunId) {
        self.tell(Message::Cancel(conversation, run)).await;
    }

    /// Stops what is running at `place`, of one agent or of all; says how many conversations that concerned.
    pub async fn stop(&self, place: Place, agent: Option<AgentName>) -> usize {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Stop(place, agent, reply)).await;
        answer.await.unwrap_or(0)
    }

    /// Hands nothing over any more, lets running turns end for a few seconds, ends every cell.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Shutdown(reply)).await;
        let _ = answer.await;
    }

    async fn tell(&self, message: Message) {
        // Fails only after the supervisor's end, which ends the daemon; the store remembers.
        let _ = self.messages.send(message).await;
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

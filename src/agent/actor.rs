//! One conversation at work: carries out what `session.rs` decides, with the store, the cell and the Claude process.
//!
//! Started by the supervisor, ends with it. Invariant: an effect is done before the next input is taken, except the start
//! of a process, which may take seconds: its end is an input like any other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Context;
use super::registry::Entry;
use super::session::{
    Action, Arrival, Closing, Input, Limits, Running, Session, StartFailure, Timer, TurnEnd,
};
use super::start::{self, Live};
use crate::claude::{self, Answer, Claude, ClaudeEvent, Gone, MessageState, Outcome};
use crate::config::{AgentSettings, Permissions};
use crate::failpoint;
use crate::model::{
    AgentEvent, CellOverview, ChatId, Failure, InboxId, MessageId, ModelCall, Outbound, Place, RateLimit,
    RunId, RunState, SessionId, ThreadId, Usage,
};
use crate::store::{Conversation, Ending, NewNotice, Run, StoreError};

/// What the supervisor tells a conversation.
pub(super) enum Order {
    Prompt(Run, Arrival),
    Renew(SessionId, Running),
    Cancel(RunId),
    Stop,
    /// Answered when nothing is left to wait for.
    Drain(oneshot::Sender<()>),
}

/// How long a change that the database refused waits before it is tried again.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct Actor {
    context: Arc<Context>,
    conversation: Conversation,
    session: Session,
    live: Option<Live>,
    starting: Option<JoinHandle<Result<Live, StartFailure>>>,
    timers: BTreeMap<Timer, Instant>,
    /// Where the runs in hand came from.
    sources: HashMap<RunId, Source>,
    /// Model calls since the last ending.
    calls: Vec<ModelCall>,
    drained: Option<oneshot::Sender<()>>,
    /// Notified when the memory of an idle cell is wanted elsewhere.
    wish: Arc<Notify>,
    dead: bool,
}

#[derive(Clone, Copy)]
struct Source {
    inbox: Option<InboxId>,
    reply_to: Option<MessageId>,
}

impl Actor {
    pub(super) fn new(context: Arc<Context>, conversation: Conversation) -> Self {
        let limits = limits(agent_settings(&context, &conversation).as_ref());
        Self {
            session: Session::new(limits, conversation.begun),
            context,
            conversation,
            live: None,
            starting: None,
            timers: BTreeMap::new(),
            sources: HashMap::new(),
            calls: Vec::new(),
            drained: None,
            wish: Arc::new(Notify::new()),
            dead: false,
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while !self.dead {
            self.publish();
            let input = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.order(order),
                    None => return,
                },
                news = next_news(&mut self.live) => match news {
                    News::Event(event) => self.event(event).await,
                    News::Call(call) => {
                        self.calls.push(call);
                        None
                    }
                },
                started = finished(&mut self.starting) => {
                    self.starting = None;
                    Some(self.started(started))
                }
                () = self.wish.notified() => Some(Input::Yield),
                timer = next_timer(&self.timers) => {
                    self.timers.remove(&timer);
                    Some(Input::Timer(timer))
                }
            };
            if let Some(input) = input {
                self.take(input).await;
            }
            self.finish_draining();
        }
    }

    async fn take(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            for action in self.session.on(input) {
                if let Some(consequence) = self.act(action).await {
                    next = Some(consequence);
                }
            }
        }
    }

    fn order(&mut self, order: Order) -> Option<Input> {
        Some(match order {
            Order::Prompt(run, arrival) => {
                self.sources.insert(run.id, Source { inbox: run.inbox, reply_to: run.reply_to });
                self.session.set_limits(limits(agent_settings(&self.context, &self.conversation).as_ref()));
                Input::Enqueue(Box::new(run), arrival)
            }
            Order::Renew(session, running) => Input::Renew(session, running),
            Order::Cancel(run) => Input::Cancel(run),
            Order::Stop => Input::Stop,
            Order::Drain(done) => {
                self.drained = Some(done);
                // A process that is being started has no run in hand yet: dropping it loses nothing.
                if let Some(starting) = self.starting.take() {
                    starting.abort();
                }
                Input::Drain
            }
        })
    }

    fn finish_draining(&mut self) {
        if self.live.is_none()
            && self.starting.is_none()
            && let Some(done) = self.drained.take()
        {
            let _ = done.send(());
        }
    }

    fn started(&mut self, started: Result<Live, StartFailure>) -> Input {
        match started {
            Ok(live) => {
                self.live = Some(live);
                Input::Ready
            }
            Err(failure) => {
                tracing::warn!(conversation = self.conversation.id.0, ?failure, "Claude did not start");
                Input::StartFailed(failure)
            }
        }
    }

    async fn event(&mut self, event: Option<ClaudeEvent>) -> Option<Input> {
        self.drain_calls();
        let input = match event {
            None => {
                self.live = None;
                Input::Exited { said: String::new() }
            }
            Some(ClaudeEvent::Exited(exited)) => {
                tracing::info!(agent = %self.conversation.agent, how = ?exited.how, "Claude ended");
                self.live = None;
                Input::Exited { said: exited.stderr }
            }
            Some(ClaudeEvent::TurnStarted { prompts }) => {
                // Older releases name the message here and nowhere else.
                for message in prompts {
                    self.take(Input::Taken(message)).await;
                }
                Input::TurnStarted
            }
            Some(ClaudeEvent::Message { uuid, state: MessageState::Started }) => Input::Taken(uuid),
            Some(ClaudeEvent::Text { delta }) => Input::Text(delta),
            Some(ClaudeEvent::Tool(activity)) => Input::Tool(activity),
            Some(ClaudeEvent::Notice { text }) => Input::Notice(text),
            Some(ClaudeEvent::RateLimit(limit)) => Input::Notice(rate_limit_line(&limit)),
            Some(ClaudeEvent::BackgroundTasks { count }) => Input::Background(count),
            Some(ClaudeEvent::Ask(ask)) => {
                self.decide(&ask.request_id, &ask.tool_name).await;
                return None;
            }
            Some(ClaudeEvent::TurnEnded(end)) => Input::TurnEnded(turn_end(*end)),
            Some(ClaudeEvent::Unknown { kind }) => {
                tracing::info!(agent = %self.conversation.agent, kind, "Claude wrote a line of an unknown type");
                return None;
            }
            Some(ClaudeEvent::Skipped { length }) => {
                tracing::warn!(agent = %self.conversation.agent, length, "a line of Claude could not be read");
                return None;
            }
            Some(
                ClaudeEvent::SessionSeen(_) | ClaudeEvent::AskCancelled { .. } | ClaudeEvent::Message { .. },
            ) => {
                return None;
            }
        };
        Some(input)
    }

    /// Answers Claude's question whether a tool may be used.
    async fn decide(&self, request_id: &str, tool: &str) {
        let permissions = agent_settings(&self.context, &self.conversation).map(|agent| agent.permissions);
        let decision = match permissions {
            // The cell is the wall: inside it everything is allowed.
            Some(Permissions::Sandboxed) => Answer::Allow,
            Some(Permissions::Plan) => Answer::Deny {
                message: "This agent only plans: describe the change instead of making it.".to_owned(),
            },
            None => Answer::Deny { message: "This agent has been removed from the settings.".to_owned() },
        };
        tracing::debug!(conversation = self.conversation.id.0, tool, ?decision, "tool use");
        if let Some(claude) = self.claude() {
            gone(claude.answer(request_id, &decision).await);
        }
    }

    /// The process, while it takes orders.
    fn claude(&self) -> Option<&Claude> {
        self.live.as_ref().and_then(Live::claude)
    }

    /// Does one action; an input comes back where doing it taught something new.
    async fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Launch { resume } => self.launch(resume),
            Action::Hand { run, message, prompt } => return self.hand(run, &message, prompt).await,
            Action::Interrupt => {
                if let Some(claude) = self.claude() {
                    gone(claude.interrupt().await);
                }
            }
            Action::Kill => {
                if let Some(live) = &self.live {
                    live.kill();
                }
            }
            Action::EndProcess => {
                if let Some(live) = &mut self.live {
                    live.end();
                }
            }
            Action::RenewSession => {
                let id = self.conversation.id;
                let store = self.context.store.clone();
                let session = SessionId::random();
                self.insist("store a session", || store.set_session(id, session.clone())).await;
                self.conversation.session = session;
                self.conversation.begun = false;
            }
            Action::Adopt(session) => {
                let (id, store) = (self.conversation.id, self.context.store.clone());
                // Once more: the turn that was running may have written its own session back meanwhile.
                self.insist("store a session", || store.set_session(id, session.clone())).await;
                self.conversation.session = session;
                self.conversation.begun = false;
            }
            Action::Begun(session) => self.begun(session).await,
            Action::End(closing) => self.close(*closing).await,
            Action::Emit(run, event) => self.emit(run, event).await,
            Action::Deliver { text, cost_micros } => self.deliver(text, cost_micros).await,
            Action::Arm(timer, after) => {
                self.timers.insert(timer, Instant::now() + after);
            }
            Action::Disarm(timer) => {
                self.timers.remove(&timer);
            }
        }
        None
    }

    fn launch(&mut self, resume: bool) {
        let context = Arc::clone(&self.context);
        let conversation = self.conversation.clone();
        let settings = agent_settings(&self.context, &self.conversation);
        self.starting = Some(tokio::spawn(async move {
            let Some(settings) = settings else {
                return Err(StartFailure::Failed(Failure {
                    what: format!("The agent {} is no longer in the settings", conversation.agent),
                    fix: "Choose another with /agents, or put it back into skep.toml".to_owned(),
                }));
            };
            start::start(&context, &conversation, &settings, resume).await
        }));
    }

    /// Hands a run over, unless it was cancelled since it was chosen.
    async fn hand(&mut self, run: RunId, message: &str, prompt: String) -> Option<Input> {
        self.book_calls(0).await;
        let store = self.context.store.clone();
        match self.insist("hand a run over", || store.run_handed(run)).await {
            Some(true) => {}
            Some(false) => {
                self.sources.remove(&run);
                return Some(Input::Withdrawn(run));
            }
            // The actor is at its end: nothing may reach Claude that the store does not know of.
            None => return None,
        }
        failpoint::reach("run.started");
        if let Some(claude) = self.claude() {
            gone(claude.prompt(message, &prompt).await);
        }
        tracing::info!(run = run.0, agent = %self.conversation.agent, "handed to Claude");
        None
    }

    /// Books model calls that belong to no run: of an attempt that was cut off, or between turns.
    async fn book_calls(&mut self, cost_micros: u64) {
        self.drain_calls();
        let calls = std::mem::take(&mut self.calls);
        if calls.is_empty() && cost_micros == 0 {
            return;
        }
        let (store, agent) = (self.context.store.clone(), self.conversation.agent.clone());
        self.insist("store usage", || store.add_usage(agent.clone(), calls.clone(), cost_micros)).await;
    }

    async fn begun(&mut self, session: Option<SessionId>) {
        let session = session.unwrap_or_else(|| self.conversation.session.clone());
        if self.conversation.begun && session == self.conversation.session {
            return;
        }
        let (id, store) = (self.conversation.id, self.context.store.clone());
        self.insist("store a session", || store.session_begun(id, session.clone())).await;
        self.conversation.session = session;
        self.conversation.begun = true;
    }

    async fn close(&mut self, closing: Closing) {
        let Closing { run, state, text, failure, cost_micros } = closing;
        self.drain_calls();
        let calls = std::mem::take(&mut self.calls);
        let usage =
            calls.iter().fold(Usage { cost_micros, ..Usage::default() }, |sum, call| sum.plus(call.usage));
        let error = failure.as_ref().map(|failure| format!("{}. {}", failure.what, failure.fix));
        let ending = Ending { state, text: text.clone(), error, cost_micros, calls };
        let store = self.context.store.clone();
        let ended = self.insist("end a run", || store.end_run(run, ending.clone())).await;
        failpoint::reach("run.finished");
        tracing::info!(run = run.0, agent = %self.conversation.agent, state = state.as_str(), "ended");
        if ended == Some(true) {
            let event = match (state, failure) {
                (RunState::Cancelled, _) => AgentEvent::Cancelled,
                (_, Some(failure)) => AgentEvent::Failed(failure),
                (_, None) => AgentEvent::Finished { text, usage },
            };
            self.emit(Some(run), event).await;
        }
        self.sources.remove(&run);
    }

    /// What a turn of Claude's own said goes out as a message of its own.
    async fn deliver(&mut self, text: String, cost_micros: u64) {
        self.book_calls(cost_micros).await;
        if text.is_empty() {
            return;
        }
        let agent = Some(self.conversation.agent.clone());
        let words = text.clone();
        self.notice(|chat, thread| NewNotice {
            chat,
            thread,
            reply_to: None,
            run: None,
            agent,
            text: words,
            buttons: Vec::new(),
        })
        .await;
        self.emit(None, AgentEvent::Finished { text, usage: Usage { cost_micros, ..Usage::default() } })
            .await;
    }

    async fn emit(&mut self, run: Option<RunId>, event: AgentEvent) {
        let source = run.and_then(|run| self.sources.get(&run).copied());
        if let (Some(run), AgentEvent::Queued { ahead }) = (run, &event) {
            let text = match ahead {
                1 => "⏳ In line: one message is before this one.".to_owned(),
                more => format!("⏳ In line: {more} messages are before this one."),
            };
            let buttons = vec![("Cancel".to_owned(), format!("cancel:{run}"))];
            let reply_to = source.and_then(|source| source.reply_to);
            self.notice(|chat, thread| NewNotice {
                chat,
                thread,
                reply_to,
                run: Some(run),
                agent: None,
                text,
                buttons,
            })
            .await;
        }
        let outbound = Outbound {
            place: self.conversation.place.clone(),
            conversation: self.conversation.id,
            agent: self.conversation.agent.clone(),
            run,
            inbox: source.and_then(|source| source.inbox),
            event,
        };
        self.context.announcer.event(outbound).await;
    }

    /// Stores a message for the chat and has it delivered.
    async fn notice(&mut self, notice: impl FnOnce(ChatId, Option<ThreadId>) -> NewNotice) {
        let Place::Telegram { chat, thread } = self.conversation.place else { return };
        let (notice, store) = (notice(chat, thread), self.context.store.clone());
        self.insist("store a notice", || store.add_notices(None, vec![notice.clone()])).await;
        self.context.announcer.deliver(&self.conversation.place).await;
    }

    fn drain_calls(&mut self) {
        if let Some(live) = &mut self.live {
            while let Ok(call) = live.calls.try_recv() {
                self.calls.push(call);
            }
        }
    }

    /// Does a change until the database takes it: a full disk may be emptied, and a run must not be lost meanwhile.
    async fn insist<T, F>(&mut self, what: &str, mut change: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match change().await {
                Ok(value) => return Some(value),
                Err(StoreError::Gone) => {
                    self.dead = true;
                    return None;
                }
                Err(error) if error.is_passing() => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot {what}; trying again");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    // A defect, not a passing state: end, and let the next start recover from what is stored.
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot {what}");
                    self.dead = true;
                    return None;
                }
            }
        }
    }

    fn publish(&self) {
        let cell = self.live.as_ref().map(|live| CellOverview {
            place: self.conversation.place.clone(),
            pid: live.control.pid(),
            layers: live.layers.clone(),
            memory: None,
            started_at: live.started_at,
            busy: self.session.is_busy(),
        });
        self.context.registry.put(
            self.conversation.id,
            Entry {
                agent: self.conversation.agent.clone(),
                place: self.conversation.place.clone(),
                busy: self.session.is_busy(),
                waiting: self.session.waiting(),
                background: self.session.has_background(),
                cell,
            },
            self.live.as_ref().map(|live| Arc::clone(&live.control)),
            &self.wish,
        );
    }
}

/// A process that has gone says so by its last event; what it was told is not lost by that.
fn gone(sent: Result<(), Gone>) {
    if sent.is_err() {
        tracing::debug!("Claude has gone before it could be told");
    }
}

fn turn_end(end: claude::TurnEnd) -> TurnEnd {
    let (failure, interrupted) = match end.outcome {
        Outcome::Completed => (None, false),
        Outcome::Interrupted => (None, true),
        Outcome::Failed(failure) => (Some(failure), false),
    };
    TurnEnd {
        text: end.text,
        failure,
        interrupted,
        cost_micros: end.usage.cost_micros,
        messages: end.prompts,
        own: end.unasked,
        session: Some(end.session),
    }
}

fn rate_limit_line(limit: &RateLimit) -> String {
    let opens = limit.resets_at.and_then(|at| jiff::Timestamp::from_second(at).ok());
    match opens {
        Some(at) => format!("The {} limit is reached until {}", limit.kind, at.strftime("%H:%M UTC")),
        None => format!("The {} limit is reached", limit.kind),
    }
}

/// What a live cell brings.
enum News {
    /// From the process; `None` when it has gone without a word.
    Event(Option<ClaudeEvent>),
    /// From the broker.
    Call(ModelCall),
}

/// The next news of the cell; never, while there is none.
async fn next_news(live: &mut Option<Live>) -> News {
    match live {
        Some(live) => tokio::select! {
            event = live.events.recv() => News::Event(event),
            Some(call) = live.calls.recv() => News::Call(call),
        },
        None => std::future::pending().await,
    }
}

async fn finished(
    starting: &mut Option<JoinHandle<Result<Live, StartFailure>>>,
) -> Result<Live, StartFailure> {
    match starting {
        Some(task) => task.await.unwrap_or_else(|error| {
            Err(StartFailure::Failed(Failure {
                what: format!("Starting Claude broke off ({error})"),
                fix: "Send the message again; `journalctl -u skep` has the details".to_owned(),
            }))
        }),
        None => std::future::pending().await,
    }
}

async fn next_timer(timers: &BTreeMap<Timer, Instant>) -> Timer {
    match timers.iter().min_by_key(|(_, at)| **at) {
        Some((timer, at)) => {
            tokio::time::sleep_until(*at).await;
            *timer
        }
        None => std::future::pending().await,
    }
}

fn agent_settings(context: &Context, conversation: &Conversation) -> Option<AgentSettings> {
    context.settings.borrow().agents.get(&conversation.agent).cloned()
}

fn limits(agent: Option<&AgentSettings>) -> Limits {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    agent.map_or(Limits { idle: minutes(10), turn: minutes(30) }, |agent| Limits {
        idle: agent.idle,
        turn: agent.turn_limit,
    })
}

//! One conversation as a pure state machine: what happened goes in, what to do comes out. `actor.rs` does it.
//!
//! The stream of a Claude process is a sequence of turns, not of answers: a turn may start by itself (a background task
//! came to its end) while a run waits, and a run's message may be folded into it. A turn belongs to the run whose message
//! id it consumed, else to the process itself.
//!
//! Invariants:
//! - At most one run is handed to Claude at a time; the others wait here, in their order.
//! - A run leaves this machine by exactly one [`Action::End`].
//! - A run that was handed over and not ended is handed over again at most [`ATTEMPTS`] times, with a note to the model.

mod messages;
#[cfg(test)]
mod tests;
mod words;

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{AgentEvent, Failure, RunId, RunState, SessionId};
use crate::store::Run;

pub(super) use messages::{Action, Closing, Input, Limits, StartFailure, Timer, TurnEnd};
pub use messages::{Arrival, Running};
use words::{again, crash_failure, failed_text, limit_failure, with_line};

/// How often one run is handed to Claude before it is given up.
pub(super) const ATTEMPTS: u32 = 5;

/// How long an interrupted turn may take to end before its process is killed.
pub(super) const INTERRUPT_GRACE: Duration = Duration::from_secs(10);

/// One conversation.
#[derive(Debug)]
pub(super) struct Session {
    limits: Limits,
    /// Claude has a transcript, as far as we know.
    begun: bool,
    queue: VecDeque<Run>,
    phase: Phase,
    background: usize,
    /// The fresh session that begins as soon as nothing runs.
    renew: Option<SessionId>,
    /// The daemon is going down: what is not ended stays in the store for the next start.
    draining: bool,
    /// Starts in a row that were cut off.
    deaths: u32,
    /// Lines the next answer begins with.
    preface: Vec<String>,
}

#[derive(Debug)]
enum Phase {
    /// No process.
    Cold,
    /// A process is being started.
    Starting { resume: bool },
    /// A process waits. `own`: a turn of its own is running.
    Idle { own: bool },
    /// A run is with Claude.
    Busy(Box<Busy>),
    /// The process has been told to end.
    Ending,
}

#[derive(Debug)]
struct Busy {
    run: Run,
    message: String,
    /// The current turn is the run's own, so text belongs to it.
    taken: bool,
    /// What has been shown of the answer.
    text: String,
    stop: Option<StopReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopReason {
    Owner,
    Limit,
}

impl Session {
    pub(super) fn new(limits: Limits, begun: bool) -> Self {
        Self {
            limits,
            begun,
            queue: VecDeque::new(),
            phase: Phase::Cold,
            background: 0,
            renew: None,
            draining: false,
            deaths: 0,
            preface: Vec::new(),
        }
    }

    /// New limits count from the next timer on.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Runs that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether background tasks keep the process from being idle.
    pub(super) fn has_background(&self) -> bool {
        self.background > 0
    }

    /// Whether a turn is running or about to.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy(_) | Phase::Starting { .. } | Phase::Idle { own: true })
    }

    /// Takes one input; the actions are to be done in order.
    pub(super) fn on(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Enqueue(run, arrival) => self.enqueue(*run, arrival, &mut out),
            Input::Cancel(run) => {
                self.queue.retain(|waiting| waiting.id != run);
                out.push(Action::Emit(Some(run), AgentEvent::Cancelled));
            }
            Input::Stop => self.interrupt(StopReason::Owner, &mut out),
            Input::Withdrawn(run) => self.withdrawn(run, &mut out),
            Input::Renew(session, running) => {
                self.renew = Some(session);
                if running == Running::Stop {
                    self.interrupt(StopReason::Owner, &mut out);
                }
            }
            Input::Yield => self.end_if_idle(&mut out),
            Input::Drain => {
                self.draining = true;
                self.end_if_idle(&mut out);
            }
            Input::Ready => {
                if matches!(self.phase, Phase::Starting { .. }) {
                    self.phase = Phase::Idle { own: false };
                    self.deaths = 0;
                    if self.draining {
                        self.end_if_idle(&mut out);
                    }
                }
            }
            Input::StartFailed(failure) => self.start_failed(failure, &mut out),
            Input::TurnStarted => self.turn_started(),
            Input::Taken(message) => self.taken(&message, &mut out),
            Input::Text(delta) => self.text(delta, &mut out),
            Input::Tool(activity) => self.show(AgentEvent::Tool(activity), &mut out),
            Input::Notice(text) => self.show(AgentEvent::Notice { text }, &mut out),
            Input::Background(count) => self.background = count,
            Input::TurnEnded(end) => self.turn_ended(end, &mut out),
            Input::Exited { said } => self.exited(&said, &mut out),
            Input::Timer(timer) => self.timer(timer, &mut out),
        }
        if !self.draining {
            self.advance(&mut out);
        }
        out
    }

    fn enqueue(&mut self, run: Run, arrival: Arrival, out: &mut Vec<Action>) {
        let ahead = self.queue.len() + usize::from(matches!(self.phase, Phase::Busy(_)));
        if ahead > 0 && arrival == Arrival::Fresh {
            out.push(Action::Emit(Some(run.id), AgentEvent::Queued { ahead }));
        }
        self.queue.push_back(run);
    }

    /// Does the next thing that is due when nothing is running.
    fn advance(&mut self, out: &mut Vec<Action>) {
        if self.renew.is_some() {
            match self.phase {
                Phase::Cold => {
                    self.begun = false;
                    out.extend(self.renew.take().map(Action::Adopt));
                }
                Phase::Idle { own: false } => {
                    self.phase = Phase::Ending;
                    out.extend([Action::Disarm(Timer::Idle), Action::EndProcess]);
                }
                _ => {}
            }
        }
        match self.phase {
            Phase::Cold if !self.queue.is_empty() => {
                self.phase = Phase::Starting { resume: self.begun };
                out.push(Action::Launch { resume: self.begun });
            }
            Phase::Idle { own } => match self.queue.pop_front() {
                Some(run) => self.hand(run, out),
                None if !own => out.push(Action::Arm(Timer::Idle, self.limits.idle)),
                None => {}
            },
            _ => {}
        }
    }

    fn hand(&mut self, run: Run, out: &mut Vec<Action>) {
        out.push(Action::Disarm(Timer::Idle));
        if run.attempts >= ATTEMPTS {
            self.preface.clear();
            let failure = Failure {
                what: format!("This was interrupted {ATTEMPTS} times and is given up"),
                fix: "Send it again, perhaps in smaller steps; `journalctl -u skep` shows why it broke off"
                    .to_owned(),
            };
            out.push(Action::End(Box::new(Closing {
                run: run.id,
                state: RunState::Failed,
                text: failed_text("", &failure),
                failure: Some(failure),
                cost_micros: 0,
            })));
            return self.advance(out);
        }
        let message = SessionId::random().0;
        let prompt = if run.attempts == 0 { run.prompt.clone() } else { again(&run.prompt) };
        if run.attempts > 0 {
            let line = "Resumed after an interruption.";
            if !self.preface.iter().any(|known| known == line) {
                self.preface.push(line.to_owned());
            }
        }
        out.push(Action::Hand { run: run.id, message: message.clone(), prompt });
        out.push(Action::Emit(Some(run.id), AgentEvent::Started));
        out.push(Action::Arm(Timer::TurnLimit, self.limits.turn));
        let text = String::new();
        self.phase = Phase::Busy(Box::new(Busy { run, message, taken: false, text, stop: None }));
    }

    fn withdrawn(&mut self, run: RunId, out: &mut Vec<Action>) {
        if matches!(&self.phase, Phase::Busy(busy) if busy.run.id == run) {
            self.phase = Phase::Idle { own: false };
            out.extend([Timer::TurnLimit, Timer::HardStop].map(Action::Disarm));
        }
    }

    fn turn_started(&mut self) {
        match &mut self.phase {
            Phase::Idle { own } => *own = true,
            // Which turn this is, is known when Claude says whose message it took.
            Phase::Busy(_) | Phase::Cold | Phase::Starting { .. } | Phase::Ending => {}
        }
    }

    fn taken(&mut self, message: &str, out: &mut Vec<Action>) {
        if let Phase::Busy(busy) = &mut self.phase
            && busy.message == message
            && !busy.taken
        {
            busy.taken = true;
            for line in &self.preface {
                let delta = format!("_{line}_\n\n");
                out.push(Action::Emit(Some(busy.run.id), AgentEvent::Text { delta }));
            }
        }
    }

    fn text(&mut self, delta: String, out: &mut Vec<Action>) {
        if let Phase::Busy(busy) = &mut self.phase
            && busy.taken
        {
            busy.text.push_str(&delta);
            out.push(Action::Emit(Some(busy.run.id), AgentEvent::Text { delta }));
        }
    }

    fn show(&self, event: AgentEvent, out: &mut Vec<Action>) {
        if let Phase::Busy(busy) = &self.phase {
            out.push(Action::Emit(Some(busy.run.id), event));
        }
    }

    fn turn_ended(&mut self, end: TurnEnd, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.phase, Phase::Idle { own: false }) {
            Phase::Busy(busy) if belongs(&busy, &end) => {
                out.extend([Action::Disarm(Timer::TurnLimit), Action::Disarm(Timer::HardStop)]);
                // A fresh session has been promised: the old one is not written back.
                if self.renew.is_none() {
                    out.push(Action::Begun(end.session.clone()));
                    self.begun = true;
                }
                let closing = self.close(*busy, end);
                out.push(Action::End(Box::new(closing)));
                if self.draining {
                    self.end_if_idle(out);
                }
            }
            // A turn of Claude's own, while a run waits to be taken up or nothing runs.
            phase @ (Phase::Busy(_) | Phase::Idle { .. }) => {
                match phase {
                    // The turn that was interrupted was not the run's own: the run still has to be stopped.
                    Phase::Busy(busy) if busy.stop.is_some() => {
                        out.push(Action::Interrupt);
                        self.phase = Phase::Busy(busy);
                    }
                    Phase::Busy(busy) => {
                        out.push(Action::Disarm(Timer::HardStop));
                        self.phase = Phase::Busy(busy);
                    }
                    _ => out.push(Action::Disarm(Timer::HardStop)),
                }
                let text = match &end.failure {
                    Some(failure) if !end.interrupted => failed_text(&end.text, failure),
                    _ => end.text,
                };
                if !text.is_empty() || end.cost_micros > 0 {
                    out.push(Action::Deliver { text, cost_micros: end.cost_micros });
                }
            }
            phase => self.phase = phase,
        }
    }

    fn close(&mut self, busy: Busy, end: TurnEnd) -> Closing {
        let preface: String = self.preface.drain(..).map(|line| format!("_{line}_\n\n")).collect();
        let said = if end.text.is_empty() { busy.text } else { end.text };
        let said = format!("{preface}{said}");
        let (state, text, failure) = match (busy.stop, end.failure) {
            (Some(StopReason::Owner), _) => (RunState::Cancelled, with_line(&said, "⏹ Stopped."), None),
            (Some(StopReason::Limit), _) => {
                let failure = limit_failure(self.limits.turn);
                (RunState::Failed, failed_text(&said, &failure), Some(failure))
            }
            (None, Some(failure)) => (RunState::Failed, failed_text(&said, &failure), Some(failure)),
            (None, None) if said.trim().is_empty() => {
                (RunState::Finished, "_Done; there was nothing to say._".to_owned(), None)
            }
            (None, None) => (RunState::Finished, said, None),
        };
        Closing { run: busy.run.id, state, text, failure, cost_micros: end.cost_micros }
    }

    fn interrupt(&mut self, reason: StopReason, out: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Busy(busy) => {
                busy.stop.get_or_insert(reason);
                out.extend([Action::Interrupt, Action::Arm(Timer::HardStop, INTERRUPT_GRACE)]);
            }
            Phase::Idle { own: true } => {
                out.extend([Action::Interrupt, Action::Arm(Timer::HardStop, INTERRUPT_GRACE)]);
            }
            Phase::Starting { .. } | Phase::Ending if reason == StopReason::Owner => {
                // What was to be handed over first is what the owner wants gone.
                if let Some(run) = self.queue.pop_front() {
                    out.push(Action::End(Box::new(stopped_before_start(run.id))));
                }
            }
            _ => {}
        }
    }

    fn timer(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match timer {
            Timer::Idle => self.end_if_idle(out),
            Timer::TurnLimit => self.interrupt(StopReason::Limit, out),
            Timer::HardStop if self.is_busy() => out.push(Action::Kill),
            Timer::HardStop => {}
        }
    }

    fn end_if_idle(&mut self, out: &mut Vec<Action>) {
        let free =
            matches!(self.phase, Phase::Idle { own: false }) && self.queue.is_empty() && self.background == 0;
        if free || (self.draining && matches!(self.phase, Phase::Idle { .. })) {
            self.phase = Phase::Ending;
            out.extend([Action::Disarm(Timer::Idle), Action::EndProcess]);
        }
    }

    fn start_failed(&mut self, failure: StartFailure, out: &mut Vec<Action>) {
        let Phase::Starting { resume } = self.phase else { return };
        self.phase = Phase::Cold;
        match failure {
            StartFailure::SessionExists if !resume => {
                self.begun = true;
                // Else every start until the first ended turn would try in vain to begin it.
                out.push(Action::Begun(None));
            }
            // A slow machine is no lost conversation: it is tried once more before the session is given up.
            StartFailure::Hung(_) if self.deaths == 0 => self.deaths += 1,
            StartFailure::Died(_) if self.deaths + 1 < ATTEMPTS => self.deaths += 1,
            StartFailure::NoSession | StartFailure::Hung(_) if resume => {
                self.deaths = 0;
                self.begun = false;
                out.push(Action::RenewSession);
                self.preface
                    .push("The earlier conversation could not be resumed; this is a fresh one.".to_owned());
            }
            StartFailure::Failed(failure) | StartFailure::Hung(failure) | StartFailure::Died(failure) => {
                self.deaths = 0;
                self.fail_first(failure, out);
            }
            StartFailure::NoSession | StartFailure::SessionExists => {
                let what = "Claude refused the session it was given".to_owned();
                let fix = "Send /new to begin a fresh one, then send your message again".to_owned();
                self.fail_first(Failure { what, fix }, out);
            }
        }
    }

    fn fail_first(&mut self, failure: Failure, out: &mut Vec<Action>) {
        self.preface.clear();
        if let Some(run) = self.queue.pop_front() {
            out.push(Action::End(Box::new(Closing {
                run: run.id,
                state: RunState::Failed,
                text: failed_text("", &failure),
                failure: Some(failure),
                cost_micros: 0,
            })));
        }
    }

    fn exited(&mut self, said: &str, out: &mut Vec<Action>) {
        self.background = 0;
        out.extend([Timer::Idle, Timer::TurnLimit, Timer::HardStop].map(Action::Disarm));
        match std::mem::replace(&mut self.phase, Phase::Cold) {
            // The next start finds the run in the store and resumes it.
            Phase::Busy(busy) if self.draining && busy.stop.is_none() => {}
            Phase::Busy(mut busy) if busy.stop.is_none() => {
                busy.run.attempts += 1;
                // The transcript has whatever was on stdout; a session that never began is found out at the next start.
                if busy.run.attempts < ATTEMPTS {
                    let text = "Claude ended unexpectedly; picking it up again".to_owned();
                    out.push(Action::Emit(Some(busy.run.id), AgentEvent::Notice { text }));
                    self.queue.push_front(busy.run);
                } else {
                    self.preface.clear();
                    let failure = crash_failure(said);
                    let text = failed_text(&busy.text, &failure);
                    out.push(Action::End(Box::new(Closing {
                        run: busy.run.id,
                        state: RunState::Failed,
                        text,
                        failure: Some(failure),
                        cost_micros: 0,
                    })));
                }
            }
            Phase::Busy(busy) => {
                let closing = self.close(*busy, TurnEnd::default());
                out.push(Action::End(Box::new(closing)));
            }
            Phase::Cold | Phase::Starting { .. } | Phase::Idle { .. } | Phase::Ending => {}
        }
    }
}

fn belongs(busy: &Busy, end: &TurnEnd) -> bool {
    end.messages.contains(&busy.message)
        || (end.messages.is_empty() && !end.own && (busy.taken || busy.stop.is_some()))
}

fn stopped_before_start(run: RunId) -> Closing {
    Closing {
        run, state: RunState::Cancelled, text: "⏹ Stopped.".to_owned(), failure: None, cost_micros: 0
    }
}

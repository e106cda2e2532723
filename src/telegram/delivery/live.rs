//! What a chat's callers tell its task (pure).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{AgentEvent, MessageId, RunId, ThreadId};
use crate::telegram::draft::{Action, Draft};
use crate::telegram::markup::Rendered;

/// "Typing" fades after five seconds.
const TYPING: Duration = Duration::from_millis(4500);

/// The shared state of one chat.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The store may hold rows to deliver.
    pub(super) ready: bool,
    /// The task is delivering rows.
    pub(super) delivering: bool,
    /// Runs that began since the task last looked: their "queued" notices lose their buttons.
    pub(super) started: Vec<RunId>,
    /// No "typing" before this: Telegram asked to wait.
    pub(super) typing_closed: Option<Instant>,
    runs: BTreeMap<RunId, LiveRun>,
}

/// A run that is shown while it goes on.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) draft: Draft,
    pub(super) thread: Option<ThreadId>,
    pub(super) stream: Stream,
    typing_due: Instant,
    ended: bool,
}

/// The streamed message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// None yet.
    None,
    /// In the chat.
    Message {
        message: MessageId,
        /// It begins with the line about a repeat.
        marked: bool,
    },
    /// Not to be streamed: an early send's fate is unknown, or Telegram refused it.
    Off,
}

/// What a streamed message holds when its run has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Streamed {
    pub(super) message: MessageId,
    pub(super) marked: bool,
    pub(super) body: Option<Rendered>,
}

impl Live {
    /// Takes one event of a run.
    pub(super) fn event(
        &mut self,
        run: RunId,
        thread: Option<ThreadId>,
        group: bool,
        event: AgentEvent,
        now: Instant,
    ) {
        match event {
            // The router stores a notice for it.
            AgentEvent::Queued { .. } => {}
            AgentEvent::Started => {
                self.started.push(run);
                self.runs.entry(run).or_insert_with(|| LiveRun::new(thread, group, now));
            }
            AgentEvent::Text { delta } => self.going(run, |draft| draft.text(&delta, now)),
            AgentEvent::Tool(activity) => self.going(run, |draft| draft.tool(&activity, now)),
            AgentEvent::Notice { text } => self.going(run, |draft| draft.notice(&text)),
            AgentEvent::Finished { .. } | AgentEvent::Failed(_) | AgentEvent::Cancelled => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.ended = true;
                }
                self.ready = true;
            }
        }
    }

    /// Only a start makes a run known: an event that comes late must not bring an ended one back.
    fn going(&mut self, run: RunId, change: impl FnOnce(&mut Draft)) {
        if let Some(run) = self.runs.get_mut(&run).filter(|run| !run.ended) {
            change(&mut run.draft);
        }
    }

    /// Any run, ended or not.
    pub(super) fn any(&mut self, run: RunId) -> Option<&mut LiveRun> {
        self.runs.get_mut(&run)
    }

    /// Forgets a run whose final text is being delivered, and returns its streamed message.
    pub(super) fn take(&mut self, run: RunId) -> Option<Streamed> {
        let run = self.runs.remove(&run)?;
        let Stream::Message { message, marked } = run.stream else { return None };
        Some(Streamed { message, marked, body: run.draft.last_shown().cloned() })
    }

    /// Forgets runs that ended without anything to deliver.
    pub(super) fn forget_ended(&mut self) {
        self.runs.retain(|_, run| !run.ended);
    }

    /// Topics in which "typing" is due now; the next moment it will be.
    pub(super) fn typing(&mut self, now: Instant) -> (Vec<Option<ThreadId>>, Option<Instant>) {
        let closed = self.typing_closed.is_some_and(|until| now < until);
        let mut due: Vec<Option<ThreadId>> = Vec::new();
        let mut next: Option<Instant> = None;
        for run in self.runs.values_mut().filter(|run| !run.ended) {
            if run.typing_due <= now {
                run.typing_due = now + TYPING;
                if !closed && !due.contains(&run.thread) {
                    due.push(run.thread);
                }
            }
            next = Some(next.map_or(run.typing_due, |next| next.min(run.typing_due)));
        }
        (due, next)
    }

    /// The next thing to show of each run that is streamed.
    pub(super) fn actions(&self, now: Instant) -> impl Iterator<Item = (RunId, Action)> {
        self.runs
            .iter()
            .filter(|(_, run)| !run.ended && run.stream != Stream::Off)
            .map(move |(id, run)| (*id, run.draft.next(now)))
    }

    /// Whether rows are to be delivered or are being delivered.
    pub(super) fn is_delivering(&self) -> bool {
        self.ready || self.delivering
    }

    /// Whether nothing is to be done.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_delivering() && self.started.is_empty() && self.runs.is_empty()
    }
}

impl LiveRun {
    fn new(thread: Option<ThreadId>, group: bool, now: Instant) -> Self {
        Self { draft: Draft::new(now, group), thread, stream: Stream::None, typing_due: now, ended: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Usage;

    const RUN: RunId = RunId(1);

    fn live(events: &[AgentEvent], now: Instant) -> Live {
        let mut live = Live::default();
        for event in events {
            live.event(RUN, None, false, event.clone(), now);
        }
        live
    }

    fn finished() -> AgentEvent {
        AgentEvent::Finished { text: "x".to_owned(), usage: Usage::default() }
    }

    #[test]
    fn typing_is_due_at_once_and_every_four_and_a_half_seconds_until_the_end() {
        let now = Instant::now();
        let mut live = live(&[AgentEvent::Started], now);
        assert_eq!(live.typing(now), (vec![None], Some(now + TYPING)));
        assert_eq!(live.typing(now), (vec![], Some(now + TYPING)));
        assert_eq!(live.typing(now + TYPING), (vec![None], Some(now + 2 * TYPING)));
        live.typing_closed = Some(now + 3 * TYPING);
        assert_eq!(live.typing(now + 2 * TYPING), (vec![], Some(now + 3 * TYPING)));
        live.event(RUN, None, false, finished(), now);
        assert_eq!(live.typing(now + 4 * TYPING), (vec![], None));
    }

    #[test]
    fn what_comes_after_the_end_or_without_a_start_is_not_shown() {
        let now = Instant::now();
        let late = AgentEvent::Text { delta: "late".to_owned() };
        let mut ended = live(&[AgentEvent::Started, finished(), late.clone()], now);
        assert_eq!(ended.actions(now).count(), 0);
        assert_eq!(ended.take(RUN), None);
        ended.event(RUN, None, false, late.clone(), now);
        assert_eq!(ended.actions(now).count(), 0);
        assert!(live(&[late, AgentEvent::Queued { ahead: 1 }], now).is_idle());
    }
}

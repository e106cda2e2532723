//! The task of one chat: decides what is next, does it, waits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Chat, Shared, lock};
use crate::model::{ChatId, RunId, ThreadId};
use crate::store::{Store, StoreError};
use crate::telegram::backoff::Backoff;
use crate::telegram::draft::Action;
use crate::telegram::error::ApiError;
use crate::telegram::markup::Rendered;
use crate::telegram::pace::{Bucket, Purpose};

/// A chat without work keeps its task this long.
const LINGER: Duration = Duration::from_secs(60);
/// A refused token is tried again this rarely.
const REJECTED_WAIT: Duration = Duration::from_secs(60);

/// The store's thread has ended: so does the task.
#[derive(Debug)]
pub(super) struct Ended;

/// The task of one chat.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) chat: Arc<Chat>,
    /// Where messages go: another id once the group has become a supergroup.
    pub(super) address: ChatId,
    pub(super) bucket: Bucket,
}

/// What is next.
enum Step {
    Deliver,
    Unbutton(RunId),
    Show(RunId, Body),
    Wait(Instant),
    End,
}

/// What is next for a streamed message.
pub(super) enum Body {
    First(Rendered),
    Edit(Rendered),
}

impl Task {
    pub(super) fn new(shared: Arc<Shared>, chat: Arc<Chat>) -> Self {
        let address = chat.id;
        Self { shared, chat, address, bucket: Bucket::chat(address.0 < 0, Instant::now()) }
    }

    /// Works until nothing is left.
    pub(super) async fn run(mut self) {
        let mut idle_since = None;
        loop {
            let done = match self.next(&mut idle_since) {
                Step::Deliver => self.deliver().await,
                Step::Unbutton(run) => self.unbutton(run).await,
                Step::Show(run, body) => self.show(run, body).await,
                Step::Wait(until) => {
                    tokio::select! {
                        () = self.chat.wake.notified() => {}
                        () = sleep_until(until) => {}
                    }
                    Ok(())
                }
                Step::End => return,
            };
            if let Err(Ended) = done {
                lock(&self.shared.chats).remove(&self.chat.id);
                return;
            }
        }
    }

    fn next(&mut self, idle_since: &mut Option<Instant>) -> Step {
        let now = Instant::now();
        let shared = Arc::clone(&self.shared);
        // Taken first and always in this order: a caller must not wake a task that is about to end.
        let mut chats = lock(&shared.chats);
        let chat = Arc::clone(&self.chat);
        let mut live = lock(&chat.live);
        let (typing, mut wake) = live.typing(now);
        for thread in typing {
            self.type_in(thread);
        }
        if std::mem::take(&mut live.ready) {
            live.delivering = true;
            return Step::Deliver;
        }
        if let Some(run) = live.started.pop() {
            return Step::Unbutton(run);
        }
        for (run, action) in live.actions(now) {
            let (body, at) = match action {
                Action::SendFirst(body) => (Some(Body::First(body)), now),
                Action::Edit(body) => (Some(Body::Edit(body)), now),
                Action::Wait(at) => (None, at),
                Action::Idle => continue,
            };
            let at = match (body, self.bucket.take(now, Purpose::Progress)) {
                (Some(body), Ok(())) => return Step::Show(run, body),
                (Some(_), Err(at)) => at,
                (None, _) => at,
            };
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
        if let Some(wake) = wake {
            *idle_since = None;
            return Step::Wait(wake);
        }
        let since = *idle_since.get_or_insert(now);
        if now >= since + LINGER && live.is_idle() && self.bucket.is_full(now) {
            chats.remove(&chat.id);
            return Step::End;
        }
        Step::Wait(now.max(since) + LINGER)
    }

    /// Shows "typing" in the background: it must delay nothing.
    fn type_in(&self, thread: Option<ThreadId>) {
        let (shared, chat, address) = (Arc::clone(&self.shared), Arc::clone(&self.chat), self.address);
        tokio::spawn(async move {
            match shared.api.typing(address, thread).await {
                Err(ApiError::RetryAfter(wait)) => {
                    lock(&chat.live).typing_closed = Some(Instant::now() + wait + Duration::from_secs(1));
                }
                Err(error) => tracing::debug!(chat = %address, "typing was not shown: {error}"),
                Ok(()) => {}
            }
        });
    }

    /// Waits until a final text may go out.
    pub(super) async fn permit(&mut self) {
        loop {
            match self.bucket.take(Instant::now(), Purpose::Final) {
                Ok(()) => break,
                Err(at) => sleep_until(at).await,
            }
        }
        self.shared.global_permit().await;
    }

    /// Asks the store until it does what is asked: a full disk passes, and nothing here may be skipped.
    pub(super) async fn stored<T, F>(&self, ask: impl Fn(Store) -> F) -> Result<T, Ended>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match ask(self.shared.store.clone()).await {
                Ok(value) => return Ok(value),
                Err(StoreError::Gone) => return Err(Ended),
                Err(error) => {
                    tracing::error!(chat = %self.chat.id, "delivery waits: {error}");
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Waits as a failure that has nothing to do with the message asks for.
    pub(super) async fn cool_down(&mut self, error: &ApiError, backoff: &mut Backoff) {
        if backoff.is_fresh() {
            tracing::warn!(chat = %self.chat.id, "a message waits: {error}");
        }
        match error {
            ApiError::RetryAfter(wait) => {
                self.bucket.close(Instant::now(), *wait);
                // Counts as a failure for the log; the wait itself is the bucket's.
                let _ = backoff.next();
            }
            ApiError::Migrated(chat) => {
                self.address = *chat;
                let _ = backoff.next();
            }
            ApiError::Unauthorized => {
                let _ = backoff.next();
                sleep(REJECTED_WAIT).await;
            }
            _ => sleep(backoff.next()).await,
        }
    }
}

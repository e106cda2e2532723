//! Shows a run while it goes on: best effort, one message that is edited.

use std::time::Duration;

use tokio::time::Instant;

use super::bring::REPEATED;
use super::chat::{Body, Ended, Task};
use super::live::Stream;
use super::lock;
use crate::failpoint;
use crate::model::RunId;
use crate::store::{Last, OutboxState};
use crate::telegram::api::{NewMessage, Sound};
use crate::telegram::error::ApiError;
use crate::telegram::markup::Rendered;

/// A stream whose call failed below Telegram goes on after this.
const RETRY: Duration = Duration::from_secs(3);

impl Task {
    /// Brings a streamed message to `body`, for which a permission has been taken.
    pub(super) async fn show(&mut self, run: RunId, body: Body) -> Result<(), Ended> {
        let Some(stream) = self.live(run, |live| {
            live.draft.taken();
            live.stream
        }) else {
            return Ok(());
        };
        match (stream, body) {
            (Stream::None, Body::First(body) | Body::Edit(body)) => self.send_first(run, body).await,
            (Stream::Message { message, marked }, Body::First(body) | Body::Edit(body)) => {
                self.shared.global_permit().await;
                let shown = if marked { body.clone().with_line_before(REPEATED) } else { body.clone() };
                let result = self.shared.api.edit_message(self.address, message, &shown, &[]).await;
                self.outcome(run, body, result);
                Ok(())
            }
            (Stream::Off, _) => Ok(()),
        }
    }

    async fn send_first(&mut self, run: RunId, body: Rendered) -> Result<(), Ended> {
        let row = match self.shared.store.open_answer(run).await {
            Ok(Some(row)) if row.state == OutboxState::Open => row,
            // The run has ended meanwhile: its final text is on the way.
            Ok(_) => {
                self.switch(run, Stream::Off);
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(%run, "an answer is not streamed: {error}");
                self.switch(run, Stream::Off);
                return Ok(());
            }
        };
        if let Some(&message) = row.messages.first() {
            // An earlier life of the daemon began it.
            self.switch(run, Stream::Message { message, marked: false });
            let result = self.shared.api.edit_message(self.address, message, &body, &[]).await;
            self.outcome(run, body, result);
            return Ok(());
        }
        self.shared.global_permit().await;
        let shown = if row.repeated { body.clone().with_line_before(REPEATED) } else { body.clone() };
        let message = NewMessage {
            chat: self.address,
            thread: row.thread,
            body: &shown,
            buttons: &[],
            reply_to: row.reply_to,
            // Edits make no sound, so this is the one moment at which the phone can tell of the answer.
            sound: Sound::On,
        };
        failpoint::reach("draft.sending");
        match self.shared.api.send_message(message).await {
            Ok(message) => {
                failpoint::reach("draft.sent");
                self.stored(|store| async move { store.outbox_sent(row.id, message, Last::No).await })
                    .await?;
                self.switch(run, Stream::Message { message, marked: row.repeated });
                self.outcome(run, body, Ok(()));
            }
            Err(ApiError::Unknown(said)) => {
                tracing::warn!(%run, "an answer is not streamed, its first message may be a double: {said}");
                self.stored(|store| async move { store.outbox_unknown(row.id).await }).await?;
                self.switch(run, Stream::Off);
            }
            Err(error) => {
                if !row.repeated {
                    // It certainly did not arrive: the answer that follows is no repeat.
                    self.stored(|store| async move { store.answer_not_begun(row.id).await }).await?;
                }
                self.outcome(run, body, Err(error));
            }
        }
        Ok(())
    }

    /// Takes note of how a call for a streamed message ended.
    fn outcome(&mut self, run: RunId, body: Rendered, result: Result<(), ApiError>) {
        let now = Instant::now();
        match result {
            Ok(()) | Err(ApiError::NotModified) => {
                self.live(run, |live| live.draft.shown(body, now));
            }
            Err(ApiError::RetryAfter(wait)) => {
                tracing::info!(chat = %self.chat.id, "streaming pauses for {} s", wait.as_secs());
                self.bucket.close(now, wait);
                self.live(run, |live| live.draft.missed(now));
            }
            Err(ApiError::Migrated(chat)) => {
                self.address = chat;
                self.live(run, |live| live.draft.missed(now));
            }
            Err(ApiError::Unsent(_) | ApiError::Unknown(_)) => {
                // The network. The final text does not wait for this.
                self.live(run, |live| live.draft.missed(now + RETRY));
            }
            Err(error) => {
                tracing::warn!(%run, "an answer is not streamed any further: {error}");
                self.switch_off(run);
            }
        }
    }

    /// Stops streaming but remembers the message, which the final text is edited into.
    fn switch_off(&self, run: RunId) {
        self.live(run, |live| {
            if live.stream == Stream::None {
                live.stream = Stream::Off;
            } else {
                live.draft.stop();
            }
        });
    }

    fn switch(&self, run: RunId, stream: Stream) {
        self.live(run, |live| live.stream = stream);
    }

    /// Changes a run, also one that ended while a call was under way.
    fn live<T>(&self, run: RunId, change: impl FnOnce(&mut super::live::LiveRun) -> T) -> Option<T> {
        lock(&self.chat.live).any(run).map(change)
    }

    /// Takes the cancel button from the notice that a run waits, now that it does not.
    pub(super) async fn unbutton(&mut self, run: RunId) -> Result<(), Ended> {
        let found = self.stored(|store| async move { store.notice_of(run).await }).await?;
        let Some((_, message, _)) = found else { return Ok(()) };
        self.permit().await;
        match self.shared.api.remove_buttons(self.address, message).await {
            Err(ApiError::RetryAfter(wait)) => self.bucket.close(Instant::now(), wait),
            // A press on a button that stayed is answered by the router.
            Err(error) => tracing::debug!(%run, "a button stays: {error}"),
            Ok(()) => {}
        }
        Ok(())
    }
}

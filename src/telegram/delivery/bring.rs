//! Brings rows of the outbox into the chat: whatever fails, a row ends confirmed or refused for good, or waits for a chat
//! that cannot be reached.

use super::chat::{Ended, Task};
use super::live::Streamed;
use super::lock;
use crate::failpoint;
use crate::model::MessageId;
use crate::store::{Last, OutboxKind, OutboxRow};
use crate::telegram::api::{NewMessage, Sound};
use crate::telegram::backoff::Backoff;
use crate::telegram::error::ApiError;
use crate::telegram::markup::{Rendered, render, split};

/// Begins a message that may be in the chat already.
pub(super) const REPEATED: &str = "↻ Sent again: the confirmation of an earlier copy was lost.";
/// UTF-16 units of a part, with room for one of our lines in Telegram's 4096.
const PART: usize = 3900;

/// What became of an edit or a send.
enum Outcome {
    Done,
    /// The message to edit is not there any more.
    Missing,
    /// The chat cannot be reached: blocked, left, deleted.
    Unreachable,
    /// Telegram refuses even the plainest words.
    Refused,
}

/// Whether there is any use in bringing the next row.
#[derive(PartialEq, Eq)]
enum Next {
    Row,
    /// The chat cannot be reached: its rows wait until something new is meant for it, or the next start.
    Nothing,
}

impl Task {
    /// Delivers every ready row of the chat.
    pub(super) async fn deliver(&mut self) -> Result<(), Ended> {
        let chat = self.chat.id;
        'chat: loop {
            let rows = self.stored(|store| async move { store.ready_for(chat).await }).await?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                if self.bring(row).await? == Next::Nothing {
                    break 'chat;
                }
            }
        }
        let mut live = lock(&self.chat.live);
        live.delivering = false;
        if !live.ready {
            live.forget_ended();
        }
        Ok(())
    }

    async fn bring(&mut self, row: OutboxRow) -> Result<Next, Ended> {
        let streamed = row.run.and_then(|run| lock(&self.chat.live).take(run));
        let mut parts = split(&render(&row.text), PART);
        if parts.is_empty() && row.messages.is_empty() {
            parts.push(Rendered::plain("(an empty answer)"));
        }
        if let (Some(Streamed { marked: true, .. }), Some(first)) = (&streamed, parts.first_mut()) {
            *first = std::mem::take(first).with_line_before(REPEATED);
        }
        let mut missing = Vec::new();
        for (at, message) in row.messages.iter().enumerate() {
            let buttons = if at + 1 == parts.len() { &row.buttons[..] } else { &[] };
            let wanted = parts.get(at).cloned().unwrap_or_else(|| Rendered::plain("…"));
            let known = streamed.as_ref().filter(|streamed| streamed.message == *message && !streamed.marked);
            if buttons.is_empty() && known.is_some_and(|streamed| streamed.body.as_ref() == Some(&wanted)) {
                continue;
            }
            match self.edit(*message, wanted, buttons).await {
                Outcome::Done => {}
                Outcome::Missing if at < parts.len() => missing.push(at),
                Outcome::Missing => {}
                Outcome::Unreachable => return Ok(Next::Nothing),
                Outcome::Refused => return self.give_up(&row).await,
            }
        }
        let to_send: Vec<usize> = missing.into_iter().chain(row.messages.len()..parts.len()).collect();
        let mut repeated = row.repeated;
        for (n, &at) in to_send.iter().enumerate() {
            let last = if n + 1 == to_send.len() { Last::Yes } else { Last::No };
            let part = Part { row: &row, body: &parts[at], at, of: parts.len() };
            match self.send(part, last, &mut repeated).await? {
                Outcome::Done | Outcome::Missing => {}
                Outcome::Unreachable => return Ok(Next::Nothing),
                Outcome::Refused => return self.give_up(&row).await,
            }
        }
        if to_send.is_empty() {
            self.stored(|store| async move { store.outbox_done(row.id).await }).await?;
        }
        Ok(Next::Row)
    }

    async fn give_up(&self, row: &OutboxRow) -> Result<Next, Ended> {
        tracing::error!(chat = %self.chat.id, row = %row.id, "a message was refused for good and is not tried again");
        let id = row.id;
        self.stored(|store| async move { store.outbox_dead(id).await }).await?;
        Ok(Next::Row)
    }

    /// What is for the chat stays in the store: nobody reads it now, and whoever comes back wants it.
    fn unreachable(&self, said: &str) -> Outcome {
        tracing::warn!(chat = %self.chat.id, "what is for this chat waits until something new is for it: {said}");
        Outcome::Unreachable
    }

    /// Brings one message to its final text. Idempotent, so nothing is stored before.
    async fn edit(
        &mut self,
        message: MessageId,
        mut body: Rendered,
        buttons: &[(String, String)],
    ) -> Outcome {
        let mut backoff = Backoff::default();
        loop {
            self.permit().await;
            match self.shared.api.edit_message(self.address, message, &body, buttons).await {
                Ok(()) | Err(ApiError::NotModified) => return Outcome::Done,
                Err(ApiError::Gone(said)) => return self.unreachable(&said),
                Err(ApiError::BadRequest(said)) => {
                    let gone = ["not found", "can't be edited", "message_id_invalid"];
                    let said = said.to_ascii_lowercase();
                    if body.entities.is_empty() || gone.iter().any(|gone| said.contains(gone)) {
                        return Outcome::Missing;
                    }
                    tracing::warn!(chat = %self.chat.id, "sent without formatting: {said}");
                    body.entities.clear();
                }
                Err(error) => self.cool_down(&error, &mut backoff).await,
            }
        }
    }

    /// Sends one part until it is confirmed or refused.
    async fn send(&mut self, part: Part<'_>, last: Last, repeated: &mut bool) -> Result<Outcome, Ended> {
        let id = part.row.id;
        let mut form = Form::of(&part);
        let mut backoff = Backoff::default();
        loop {
            self.permit().await;
            self.stored(|store| async move { store.outbox_sending(id).await }).await?;
            failpoint::reach("outbox.sending");
            let body =
                if *repeated { form.body.clone().with_line_before(REPEATED) } else { form.body.clone() };
            let message = NewMessage {
                chat: self.address,
                thread: part.row.thread.filter(|_| form.in_topic),
                body: &body,
                buttons: form.buttons,
                reply_to: part.row.reply_to.filter(|_| part.at == 0),
                sound: part.sound(),
            };
            let error = match self.shared.api.send_message(message).await {
                Ok(message) => {
                    self.stored(|store| async move { store.outbox_sent(id, message, last).await }).await?;
                    failpoint::reach("outbox.sent");
                    *repeated = false;
                    return Ok(Outcome::Done);
                }
                Err(error) => error,
            };
            if matches!(error, ApiError::Unknown(_)) {
                self.stored(|store| async move { store.outbox_unknown(id).await }).await?;
                *repeated = true;
                self.cool_down(&error, &mut backoff).await;
                self.reachable(&mut backoff).await;
                continue;
            }
            self.stored(|store| async move { store.outbox_unsent(id).await }).await?;
            match error {
                ApiError::Gone(said) => return Ok(self.unreachable(&said)),
                ApiError::BadRequest(said) => {
                    tracing::warn!(chat = %self.chat.id, row = %id, "a message was refused: {said}");
                    if !form.simplify(&said) {
                        return Ok(Outcome::Refused);
                    }
                }
                other => self.cool_down(&other, &mut backoff).await,
            }
        }
    }

    /// Waits until Telegram answers a harmless question: on a dead line every further copy would have an unknown fate.
    async fn reachable(&mut self, backoff: &mut Backoff) {
        while let Err(error) = self.shared.api.get_me().await {
            self.cool_down(&error, backoff).await;
            if matches!(error, ApiError::RetryAfter(_)) {
                return;
            }
        }
    }
}

/// One part of a row to be sent.
#[derive(Clone, Copy)]
struct Part<'a> {
    row: &'a OutboxRow,
    body: &'a Rendered,
    at: usize,
    of: usize,
}

impl Part<'_> {
    /// An answer makes one sound, a word about a run that waits none.
    fn sound(&self) -> Sound {
        let quiet = self.at > 0 || (self.row.kind == OutboxKind::Notice && self.row.run.is_some());
        if quiet { Sound::Off } else { Sound::On }
    }
}

/// In which form a part is tried: simpler after each refusal.
struct Form<'a> {
    body: Rendered,
    buttons: &'a [(String, String)],
    in_topic: bool,
    excuse: bool,
}

impl<'a> Form<'a> {
    fn of(part: &Part<'a>) -> Self {
        let buttons = if part.at + 1 == part.of { &part.row.buttons[..] } else { &[] };
        Self { body: part.body.clone(), buttons, in_topic: true, excuse: false }
    }

    /// The next simpler form; `false` when there is none.
    fn simplify(&mut self, said: &str) -> bool {
        let said = said.to_ascii_lowercase();
        if self.in_topic && (said.contains("thread") || said.contains("topic")) {
            self.in_topic = false;
            let body = std::mem::take(&mut self.body);
            self.body = body.with_line_before("The topic this belongs to is gone.");
        } else if !self.body.entities.is_empty() {
            self.body.entities.clear();
        } else if !self.excuse {
            self.excuse = true;
            self.buttons = &[];
            self.body = Rendered::plain(
                "⚠️ Telegram refused to show this message. Ask again, perhaps for a shorter form.",
            );
        } else {
            return false;
        }
        true
    }
}

//! What must reach a Telegram chat and is not confirmed yet.
//!
//! The life of a row: an answer is `open` while it streams (its first message may already be in the chat), `ready` when
//! its text is final; a notice begins `ready`. Each part goes `sending` → message id → `ready` for the next part, or
//! `done`. A row found `sending` at start is one whose confirmation was lost: it is sent again and says so.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Store, StoreError, inbox, now};
use crate::model::{AgentName, ChatId, InboxId, MessageId, OutboxId, RunId, ThreadId};

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxKind {
    /// The answer of a run: streamed, then final; its first confirmed message is edited.
    Answer,
    /// A message of the daemon's own.
    Notice,
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxState {
    /// The answer still grows.
    Open,
    /// The text is final and has to be brought into the chat.
    Ready,
    /// One call is under way.
    Sending,
}

/// One row that is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its id.
    pub id: OutboxId,
    /// The chat.
    pub chat: ChatId,
    /// The topic.
    pub thread: Option<ThreadId>,
    /// What it is.
    pub kind: OutboxKind,
    /// The run it answers.
    pub run: Option<RunId>,
    /// The agent that wrote it; `None` for the daemon.
    pub agent: Option<AgentName>,
    /// The message it replies to.
    pub reply_to: Option<MessageId>,
    /// Markdown; empty while `Open`.
    pub text: String,
    /// Inline buttons as (label, callback data) in one row each; empty for none.
    pub buttons: Vec<(String, String)>,
    /// Messages already confirmed, in order. For an `Answer` in `Ready` the first ones may hold streamed text: they are
    /// edited to their final text, further parts are sent.
    pub messages: Vec<MessageId>,
    /// Where it stands.
    pub state: OutboxState,
    /// A send's confirmation was lost earlier: the next message must say that it may be a repeat.
    pub repeated: bool,
}

/// A message of the daemon's own, to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNotice {
    /// The chat.
    pub chat: ChatId,
    /// The topic.
    pub thread: Option<ThreadId>,
    /// The message it replies to.
    pub reply_to: Option<MessageId>,
    /// The run it speaks of, if any: its buttons go away when the run starts.
    pub run: Option<RunId>,
    /// The agent whose words these are; `None` for the daemon's own. A reply to it goes there.
    pub agent: Option<AgentName>,
    /// Markdown.
    pub text: String,
    /// Inline buttons as (label, callback data).
    pub buttons: Vec<(String, String)>,
}

const COLUMNS: &str =
    "id, chat, thread, kind, run, agent, reply_to, text, buttons, messages, state, repeated";

impl OutboxRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (kind, state, messages): (String, String, String) = (row.get(3)?, row.get(10)?, row.get(9)?);
        Ok(Self {
            id: OutboxId(row.get(0)?),
            chat: ChatId(row.get(1)?),
            thread: row.get::<_, Option<i64>>(2)?.map(ThreadId),
            kind: if kind == "answer" { OutboxKind::Answer } else { OutboxKind::Notice },
            run: row.get::<_, Option<i64>>(4)?.map(RunId),
            agent: row.get::<_, Option<String>>(5)?.and_then(|name| AgentName::new(&name).ok()),
            reply_to: row.get::<_, Option<i64>>(6)?.map(MessageId),
            text: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
            buttons: row
                .get::<_, Option<String>>(8)?
                .and_then(|json| serde_json::from_str(&json).ok())
                .unwrap_or_default(),
            messages: messages.split(',').filter_map(|id| id.parse().ok().map(MessageId)).collect(),
            state: match state.as_str() {
                "open" => OutboxState::Open,
                "sending" => OutboxState::Sending,
                _ => OutboxState::Ready,
            },
            repeated: row.get(11)?,
        })
    }
}

impl Store {
    /// Puts the outbox in order after a start: rows whose call was under way become `Ready` (or stay `Open`) and
    /// `repeated`. Returns the chats that wait for something.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn recover_outbox(&self) -> Result<Vec<ChatId>, StoreError> {
        self.transact("put the outbox in order", |t| {
            t.execute(
                "UPDATE outbox SET state = 'ready', repeated = 1 WHERE settled_at IS NULL AND state = 'sending'",
                [],
            )?;
            // An open answer without a message id: its first send may have arrived.
            t.execute(
                "UPDATE outbox SET repeated = 1 WHERE settled_at IS NULL AND state = 'open' AND messages = ','",
                [],
            )?;
            t.prepare("SELECT DISTINCT chat FROM outbox WHERE settled_at IS NULL AND state = 'ready' ORDER BY id")?
                .query_map([], |row| row.get(0).map(ChatId))?
                .collect()
        })
        .await
    }

    /// The `Ready` rows of a chat, oldest first, at most 32.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ready_for(&self, chat: ChatId) -> Result<Vec<OutboxRow>, StoreError> {
        self.read("list the outbox", move |c| {
            c.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE chat = ?1 AND settled_at IS NULL AND state = 'ready' \
                 ORDER BY id LIMIT 32"
            ))?
            .query_map([chat.0], OutboxRow::read)?
            .collect()
        })
        .await
    }

    /// Stores that an answer's first message is about to be sent, before it is final. Idempotent by run.
    ///
    /// # Errors
    /// When the commit failed; nothing must then be sent.
    pub async fn open_answer(&self, run: RunId) -> Result<Option<OutboxRow>, StoreError> {
        self.transact("open an answer", move |t| {
            let found = t
                .query_row(
                    &format!("SELECT {COLUMNS} FROM outbox WHERE run = ?1 AND kind = 'answer' AND settled_at IS NULL"),
                    [run.0],
                    OutboxRow::read,
                )
                .optional()?;
            if found.is_some() {
                return Ok(found);
            }
            // The place's text form is `telegram:CHAT[:TOPIC]`; the caller knows both, the run only the conversation.
            let place: Option<(String, String, Option<i64>)> = t
                .query_row(
                    "SELECT conversations.place, conversations.agent, runs.reply_to FROM runs \
                     JOIN conversations ON conversations.id = runs.conversation \
                     WHERE runs.id = ?1 AND runs.state = 'running'",
                    [run.0],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()?;
            let Some((place, agent, reply_to)) = place else { return Ok(None) };
            let Some(crate::model::Place::Telegram { chat, thread }) = crate::model::Place::parse(&place)
            else {
                return Ok(None);
            };
            t.execute(
                "INSERT INTO outbox (chat, thread, kind, run, agent, reply_to, state, created_at) \
                 VALUES (?1, ?2, 'answer', ?3, ?4, ?5, 'open', ?6)",
                params![chat.0, thread.map(|t| t.0), run.0, agent, reply_to, now()],
            )?;
            let id = t.last_insert_rowid();
            t.query_row(&format!("SELECT {COLUMNS} FROM outbox WHERE id = ?1"), [id], OutboxRow::read)
                .map(Some)
        })
        .await
    }

    /// Stores that one part's call is under way. Committed before the call.
    ///
    /// # Errors
    /// When the commit failed; nothing must then be sent.
    pub async fn outbox_sending(&self, id: OutboxId) -> Result<(), StoreError> {
        self.transact("mark a message as being sent", move |t| {
            t.prepare_cached("UPDATE outbox SET state = 'sending' WHERE id = ?1 AND state = 'ready'")?
                .execute([id.0])?;
            Ok(())
        })
        .await
    }

    /// The call certainly had no effect (refused, or never connected): the row waits again.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn outbox_unsent(&self, id: OutboxId) -> Result<(), StoreError> {
        self.transact("mark a message as not sent", move |t| {
            t.execute("UPDATE outbox SET state = 'ready' WHERE id = ?1 AND state = 'sending'", [id.0])?;
            Ok(())
        })
        .await
    }

    /// The call's answer was lost: it may have taken effect. The next try says so.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn outbox_unknown(&self, id: OutboxId) -> Result<(), StoreError> {
        self.transact("mark a message as unconfirmed", move |t| {
            t.execute(
                "UPDATE outbox SET repeated = 1, state = CASE state WHEN 'sending' THEN 'ready' ELSE state END \
                 WHERE id = ?1",
                [id.0],
            )?;
            Ok(())
        })
        .await
    }

    /// The first send of an answer certainly had no effect: nothing of it is in the chat.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn answer_not_begun(&self, id: OutboxId) -> Result<(), StoreError> {
        self.transact("mark an answer as not begun", move |t| {
            t.execute("UPDATE outbox SET repeated = 0 WHERE id = ?1 AND messages = ','", [id.0])?;
            Ok(())
        })
        .await
    }

    /// A message was confirmed. `last`: nothing of the row is left to send.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn outbox_sent(&self, id: OutboxId, message: MessageId, last: Last) -> Result<(), StoreError> {
        self.transact("store a sent message", move |t| {
            let (state, settled) = match last {
                Last::Yes => ("'done'", Some(now())),
                Last::No => ("CASE state WHEN 'sending' THEN 'ready' ELSE state END", None),
            };
            t.prepare_cached(&format!(
                "UPDATE outbox SET messages = messages || ?2 || ',', repeated = 0, state = {state}, settled_at = ?3 \
                 WHERE id = ?1"
            ))?
            .execute(params![id.0, message.0, settled])?;
            Ok(())
        })
        .await
    }

    /// Every part is confirmed (the last step was an edit, or there was nothing to send).
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn outbox_done(&self, id: OutboxId) -> Result<(), StoreError> {
        self.transact("settle a message", move |t| {
            settle(t, id, "done")?;
            Ok(())
        })
        .await
    }

    /// Telegram refused the row for good: not even the plainest words were taken.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn outbox_dead(&self, id: OutboxId) -> Result<(), StoreError> {
        self.transact("give up a message", move |t| {
            settle(t, id, "dead")?;
            Ok(())
        })
        .await
    }

    /// Stores messages of the daemon's own, and settles the inbox row they answer, in one commit. Of a run one notice is
    /// kept: a run that waits again after a restart has said so.
    ///
    /// # Errors
    /// When the commit failed; nothing is then stored.
    pub async fn add_notices(
        &self,
        answered: Option<InboxId>,
        notices: Vec<NewNotice>,
    ) -> Result<(), StoreError> {
        self.transact("store a notice", move |t| {
            for notice in notices {
                let buttons =
                    (!notice.buttons.is_empty()).then(|| serde_json::to_string(&notice.buttons).unwrap_or_default());
                t.prepare_cached(
                    "INSERT INTO outbox (chat, thread, kind, run, reply_to, text, buttons, state, created_at, agent) \
                     SELECT ?1, ?2, 'notice', ?3, ?4, ?5, ?6, 'ready', ?7, ?8 \
                     WHERE ?3 IS NULL OR NOT EXISTS (SELECT 1 FROM outbox \
                     WHERE run = ?3 AND kind = 'notice' AND id > (SELECT max(id) FROM outbox) - 1000)",
                )?
                .execute(params![
                    notice.chat.0,
                    notice.thread.map(|t| t.0),
                    notice.run.map(|r| r.0),
                    notice.reply_to.map(|m| m.0),
                    notice.text,
                    buttons,
                    now(),
                    notice.agent.map(String::from)
                ])?;
            }
            if let Some(id) = answered {
                inbox::settle(t, id)?;
            }
            Ok(())
        })
        .await
    }

    /// The confirmed messages of the "queued" notice of a run, so that its button can be taken away.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn notice_of(&self, run: RunId) -> Result<Option<(ChatId, MessageId, String)>, StoreError> {
        self.read("find a notice", move |c| {
            let found: Option<(i64, String, String)> = c
                .query_row(
                    "SELECT chat, messages, coalesce(text, '') FROM outbox WHERE run = ?1 AND kind = 'notice' \
                     AND state = 'done' AND id > (SELECT max(id) FROM outbox) - 1000 ORDER BY id DESC LIMIT 1",
                    [run.0],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()?;
            Ok(found.and_then(|(chat, messages, text)| {
                let message = messages.split(',').find_map(|id| id.parse().ok())?;
                Some((ChatId(chat), MessageId(message), text))
            }))
        })
        .await
    }

    /// How many rows wait: inbox, queued runs, running runs, outbox.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn queue(&self) -> Result<crate::model::QueueOverview, StoreError> {
        self.read("count the queues", |c| {
            c.query_row(
                "SELECT (SELECT count(*) FROM inbox WHERE state = 'new'), \
                 (SELECT count(*) FROM runs WHERE ended_at IS NULL AND state = 'queued'), \
                 (SELECT count(*) FROM runs WHERE ended_at IS NULL AND state = 'running'), \
                 (SELECT count(*) FROM outbox WHERE settled_at IS NULL)",
                [],
                |row| {
                    Ok(crate::model::QueueOverview {
                        inbox: row.get(0)?,
                        queued: row.get(1)?,
                        running: row.get(2)?,
                        outbox: row.get(3)?,
                    })
                },
            )
        })
        .await
    }
}

/// Whether a confirmed message completes its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Nothing is left to send.
    Yes,
    /// Further parts follow.
    No,
}

/// Nothing more is to be done about a row.
fn settle(t: &Transaction<'_>, id: OutboxId, state: &str) -> rusqlite::Result<()> {
    t.prepare_cached("UPDATE outbox SET state = ?2, settled_at = ?3 WHERE id = ?1")?.execute(params![
        id.0,
        state,
        now()
    ])?;
    Ok(())
}

/// Makes a run's answer final inside the change that ends the run.
pub(super) fn finish_answer(
    t: &Transaction<'_>,
    run: RunId,
    chat: ChatId,
    thread: Option<ThreadId>,
    agent: &AgentName,
    reply_to: Option<MessageId>,
    text: &str,
) -> rusqlite::Result<()> {
    let changed = t
        // An open answer without a message id: its first send is under way, and may arrive without our knowing.
        .prepare_cached(
            "UPDATE outbox SET text = ?2, state = 'ready', \
             repeated = repeated OR (state = 'open' AND messages = ',') \
             WHERE run = ?1 AND kind = 'answer' AND settled_at IS NULL",
        )?
        .execute(params![run.0, text])?;
    if changed == 0 && !text.is_empty() {
        t.prepare_cached(
            "INSERT INTO outbox (chat, thread, kind, run, agent, reply_to, text, state, created_at) \
             VALUES (?1, ?2, 'answer', ?3, ?4, ?5, ?6, 'ready', ?7)",
        )?
        .execute(params![
            chat.0,
            thread.map(|t| t.0),
            run.0,
            agent.as_str(),
            reply_to.map(|m| m.0),
            text,
            now()
        ])?;
    }
    Ok(())
}

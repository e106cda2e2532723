//! Runs: prompts carried to their end.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::conversations::COLUMNS as CONVERSATION;
use super::{Conversation, Store, StoreError, inbox, now, outbox, usage};
use crate::model::{
    AgentName, ConversationId, InboxId, MessageId, ModelCall, Place, RunId, RunOverview, RunState, Usage,
};

/// A prompt to be stored as a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// The inbox row it comes from, settled in the same commit.
    pub inbox: InboxId,
    /// The words for Claude.
    pub prompt: String,
    /// The message the answer replies to.
    pub reply_to: Option<MessageId>,
}

/// A run that is not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its row.
    pub id: RunId,
    /// The conversation.
    pub conversation: Conversation,
    /// The inbox row it came from.
    pub inbox: Option<InboxId>,
    /// The words for Claude.
    pub prompt: String,
    /// The message the answer replies to.
    pub reply_to: Option<MessageId>,
    /// `Queued`, or `Running` when it was handed to Claude before the daemon last ended.
    pub state: RunState,
    /// How often it was handed to Claude.
    pub attempts: u32,
}

/// What became of a wish to cancel a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelling {
    /// It is cancelled now; its conversation still has it in its queue.
    Done(ConversationId),
    /// It had been cancelled before.
    Earlier,
    /// It has begun, or is over.
    TooLate,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// `Finished`, `Failed` or `Cancelled`.
    pub state: RunState,
    /// What the chat is told, in Markdown. Empty: nothing is sent.
    pub text: String,
    /// Why it failed.
    pub error: Option<String>,
    /// What it cost, as the CLI reckons, in millionths of a US dollar.
    pub cost_micros: u64,
    /// The model calls of this run, as the broker counted them.
    pub calls: Vec<ModelCall>,
}

const COLUMNS: &str = "runs.id, runs.inbox, runs.prompt, runs.reply_to, runs.state, runs.attempts";

impl Run {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let state: String = row.get(4)?;
        Ok(Self {
            id: RunId(row.get(0)?),
            inbox: row.get::<_, Option<i64>>(1)?.map(InboxId),
            prompt: row.get(2)?,
            reply_to: row.get::<_, Option<i64>>(3)?.map(MessageId),
            state: RunState::parse(&state).unwrap_or(RunState::Failed),
            attempts: row.get(5)?,
            conversation: Conversation::read(row, 6)?,
        })
    }
}

impl Store {
    /// Stores a queued run and settles its inbox row, in one commit. `None` when that row was settled before: it was routed
    /// twice (at a start, beside what comes in at that moment), and makes no second run.
    ///
    /// # Errors
    /// When the commit failed; the inbox row is then still to be routed.
    pub async fn enqueue_run(&self, new: NewRun) -> Result<Option<Run>, StoreError> {
        self.transact("store a run", move |t| {
            if !inbox::settle(t, new.inbox)? {
                return Ok(None);
            }
            t.prepare_cached(
                "INSERT INTO runs (conversation, inbox, prompt, reply_to, state, created_at) \
                 VALUES (?1, ?2, ?3, ?4, 'queued', ?5)",
            )?
            .execute(params![
                new.conversation.0,
                new.inbox.0,
                new.prompt,
                new.reply_to.map(|m| m.0),
                now()
            ])?;
            let id = t.last_insert_rowid();
            t.query_row(
                &format!(
                    "SELECT {COLUMNS}, {CONVERSATION} FROM runs \
                     JOIN conversations ON conversations.id = runs.conversation WHERE runs.id = ?1"
                ),
                [id],
                Run::read,
            )
            .map(Some)
        })
        .await
    }

    /// Runs that are not ended, in the order they came.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unfinished_runs(&self) -> Result<Vec<Run>, StoreError> {
        self.read("list unfinished runs", |c| {
            c.prepare(&format!(
                "SELECT {COLUMNS}, {CONVERSATION} FROM runs \
                 JOIN conversations ON conversations.id = runs.conversation \
                 WHERE runs.ended_at IS NULL ORDER BY runs.id"
            ))?
            .query_map([], Run::read)?
            .collect()
        })
        .await
    }

    /// Marks a run as handed to Claude. Committed *before* the first byte goes down the pipe. `false` when
    /// the run has ended meanwhile: it must not be handed over.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn run_handed(&self, id: RunId) -> Result<bool, StoreError> {
        self.transact("mark a run as handed over", move |t| {
            let changed = t
                .prepare_cached(
                    "UPDATE runs SET state = 'running', attempts = attempts + 1 \
                 WHERE id = ?1 AND ended_at IS NULL",
                )?
                .execute([id.0])?;
            Ok(changed == 1)
        })
        .await
    }

    /// Ends a run: its state, its usage and what the chat is told, in one commit. A run that has already ended is left
    /// as it is, and `false` comes back: nothing is told twice.
    ///
    /// # Errors
    /// When the commit failed; the run is then not ended.
    pub async fn end_run(&self, id: RunId, ending: Ending) -> Result<bool, StoreError> {
        self.transact("end a run", move |t| {
            let Some((place, agent, reply_to)) = open_run(t, id)? else { return Ok(false) };
            let used = usage::add_calls(t, &agent, &ending.calls, ending.cost_micros)?;
            t.prepare_cached(
                "UPDATE runs SET state = ?2, ended_at = ?3, answer = ?4, error = ?5, input = ?6, output = ?7, \
                 cache_read = ?8, cache_write = ?9, cost_micros = ?10 WHERE id = ?1",
            )?
            .execute(params![
                id.0,
                ending.state.as_str(),
                now(),
                // A Telegram answer is kept in the outbox; a second copy would be written to flash for nothing.
                if matches!(place, Place::Terminal(_)) { Some(ending.text.as_str()) } else { None },
                ending.error,
                used.input,
                used.output,
                used.cache_read,
                used.cache_write,
                used.cost_micros
            ])?;
            if let Place::Telegram { chat, thread } = place {
                outbox::finish_answer(t, id, chat, thread, &agent, reply_to, &ending.text)?;
            }
            Ok(true)
        })
        .await
    }

    /// Cancels a run that is still queued, and settles the inbox row that asked for it, in one commit.
    ///
    /// # Errors
    /// When the commit failed; nothing has changed then.
    pub async fn cancel_queued(&self, id: RunId, asked: Option<InboxId>) -> Result<Cancelling, StoreError> {
        self.transact("cancel a run", move |t| {
            let cancelled = t
                .query_row(
                    "UPDATE runs SET state = 'cancelled', ended_at = ?2 WHERE id = ?1 AND state = 'queued' \
                     RETURNING conversation",
                    params![id.0, now()],
                    |row| row.get(0).map(ConversationId),
                )
                .optional()?;
            if let Some(asked) = asked {
                inbox::settle(t, asked)?;
            }
            if let Some(conversation) = cancelled {
                return Ok(Cancelling::Done(conversation));
            }
            let state: Option<String> =
                t.query_row("SELECT state FROM runs WHERE id = ?1", [id.0], |row| row.get(0)).optional()?;
            Ok(if state.as_deref() == Some("cancelled") { Cancelling::Earlier } else { Cancelling::TooLate })
        })
        .await
    }

    /// The latest runs, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn latest_runs(&self, limit: u32) -> Result<Vec<RunOverview>, StoreError> {
        self.runs_where("ORDER BY runs.id DESC LIMIT ?1", i64::from(limit)).await
    }

    async fn runs_where(&self, which: &'static str, parameter: i64) -> Result<Vec<RunOverview>, StoreError> {
        self.read("list runs", move |c| {
            c.prepare(&format!(
                "SELECT runs.id, conversations.agent, conversations.place, runs.state, substr(runs.prompt, 1, 80), \
                 runs.created_at, runs.ended_at, runs.input, runs.output, runs.cache_read, runs.cache_write, \
                 runs.cost_micros, runs.error \
                 FROM runs JOIN conversations ON conversations.id = runs.conversation {which}"
            ))?
            .query_map([parameter], |row| {
                let (agent, place, state): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
                Ok(AgentName::new(&agent).ok().zip(Place::parse(&place)).zip(RunState::parse(&state)).map(
                    |((agent, place), state)| {
                        Ok(RunOverview {
                            id: RunId(row.get(0)?),
                            agent,
                            place,
                            state,
                            prompt: row.get(4)?,
                            created_at: row.get(5)?,
                            ended_at: row.get(6)?,
                            usage: Usage {
                                input: row.get(7)?,
                                output: row.get(8)?,
                                cache_read: row.get(9)?,
                                cache_write: row.get(10)?,
                                cost_micros: row.get(11)?,
                            },
                            error: row.get(12)?,
                        })
                    },
                ))
            })?
            .filter_map(|row| row.and_then(Option::transpose).transpose())
            .collect()
        })
        .await
    }

    /// The ended run that an inbox row became, with its answer where it is a terminal's.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ended_run_of(
        &self,
        inbox: InboxId,
    ) -> Result<Option<(RunId, RunOverview, Option<String>)>, StoreError> {
        let found = self.read("find a run", move |c| {
            c.query_row(
                "SELECT id, answer FROM runs WHERE inbox = ?1 AND ended_at IS NOT NULL",
                [inbox.0],
                |row| Ok((RunId(row.get(0)?), row.get(1)?)),
            )
            .optional()
        });
        let Some((run, answer)) = found.await? else { return Ok(None) };
        let overview = self.runs_where("WHERE runs.id = ?1", run.0).await?.pop();
        Ok(overview.map(|overview| (run, overview, answer)))
    }
}

type OpenRun = (Place, AgentName, Option<MessageId>);

fn open_run(t: &Transaction<'_>, id: RunId) -> rusqlite::Result<Option<OpenRun>> {
    t.prepare_cached(&format!(
        "SELECT {COLUMNS}, {CONVERSATION} FROM runs JOIN conversations ON conversations.id = runs.conversation \
         WHERE runs.id = ?1 AND runs.ended_at IS NULL"
    ))?
    .query_row([id.0], Run::read)
    .optional()
    .map(|run| run.map(|run| (run.conversation.place, run.conversation.agent, run.reply_to)))
}

//! What came in and is not routed yet.

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, now};
use crate::model::{Content, InboxId, Origin, UpdateId};

/// A Telegram update on its way into the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedUpdate {
    /// Its id, by which a repeated delivery is recognised.
    pub id: UpdateId,
    /// The update as Telegram sent it; `None` for a stranger's: the id alone is kept, and nothing is routed.
    pub raw: Option<String>,
}

/// An inbox row to be routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxRow {
    /// A Telegram update in its raw form.
    Update {
        /// The row.
        id: InboxId,
        /// The update.
        raw: String,
    },
    /// What a terminal submitted.
    Submitted {
        /// The row.
        id: InboxId,
        /// Where it was submitted.
        origin: Origin,
        /// What it says.
        content: Content,
    },
}

/// Done rows are kept this long, so that a late duplicate of an update is still recognised. Telegram itself keeps
/// updates for 24 hours.
const KEEP_SECONDS: i64 = 3 * 24 * 3600;

/// An update that comes again under another id is looked for among this many rows.
const REPEATS_AMONG: i64 = 200;

impl Store {
    /// Stores a batch of updates in one commit. Ids seen before are passed over, and so is an update that comes again
    /// under another id: the rest of it is the same to the letter, message id and date included. Returns the new rows in
    /// order.
    ///
    /// # Errors
    /// When the commit failed; none of the batch is then stored.
    pub async fn accept_updates(&self, updates: Vec<AcceptedUpdate>) -> Result<Vec<InboxRow>, StoreError> {
        self.transact("store updates", move |t| {
            let mut insert = t.prepare_cached(
                "INSERT INTO inbox (update_id, raw, print, received_at, state) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT DO NOTHING",
            )?;
            // Among the latest rows only: an index would be written with every one.
            let mut repeated = t.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM inbox WHERE id > (SELECT max(id) FROM inbox) - ?2 AND print = ?1)",
            )?;
            let mut rows = Vec::new();
            for mut update in updates {
                let print = update.raw.as_deref().and_then(print);
                if print.is_some() && repeated.query_row(params![print, REPEATS_AMONG], |row| row.get(0))? {
                    update.raw = None;
                }
                let state = if update.raw.is_some() { "new" } else { "done" };
                let inserted = insert.execute(params![update.id.0, update.raw, print, now(), state])?;
                if let (1, Some(raw)) = (inserted, update.raw) {
                    rows.push(InboxRow::Update { id: InboxId(t.last_insert_rowid()), raw });
                }
            }
            Ok(rows)
        })
        .await
    }

    /// The id of the update stored last: polling goes on behind it. `None` when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_update(&self) -> Result<Option<UpdateId>, StoreError> {
        self.read("find the last update", |c| {
            c.query_row(
                "SELECT update_id FROM inbox WHERE update_id IS NOT NULL ORDER BY id DESC LIMIT 1",
                [],
                |row| row.get(0).map(UpdateId),
            )
            .optional()
        })
        .await
    }

    /// Stores what a terminal submitted.
    ///
    /// # Errors
    /// When the commit failed; nothing is then stored.
    pub async fn submit(&self, origin: Origin, content: Content) -> Result<InboxId, StoreError> {
        self.transact("store a submission", move |t| {
            let json = serde_json::to_string(&(origin, content))
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
            t.prepare_cached("INSERT INTO inbox (content, received_at) VALUES (?1, ?2)")?
                .execute(params![json, now()])?;
            Ok(InboxId(t.last_insert_rowid()))
        })
        .await
    }

    /// Rows not routed yet, in the order they came. A row this version cannot read is settled and left out: it was
    /// written by another version and has no one to answer to.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unrouted(&self) -> Result<Vec<InboxRow>, StoreError> {
        self.read("list the inbox", |c| {
            let mut query =
                c.prepare_cached("SELECT id, raw, content FROM inbox WHERE state = 'new' ORDER BY id")?;
            let rows = query.query_map([], |row| {
                let id = InboxId(row.get(0)?);
                let (raw, content): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
                Ok(match (raw, content) {
                    (Some(raw), _) => Some(InboxRow::Update { id, raw }),
                    (None, Some(content)) => serde_json::from_str(&content)
                        .ok()
                        .map(|(origin, content)| InboxRow::Submitted { id, origin, content }),
                    (None, None) => None,
                })
            })?;
            rows.filter_map(Result::transpose).collect()
        })
        .await
    }

    /// Marks a row as dealt with when nothing else has to be stored with that.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn settle(&self, id: InboxId) -> Result<(), StoreError> {
        self.transact("settle an inbox row", move |t| settle(t, id).map(|_| ())).await
    }

    /// Forgets done rows, runs and messages that nobody can ask for any more. Called at start and once a day.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn forget_old(&self) -> Result<(), StoreError> {
        self.transact("forget old rows", |t| {
            let limit = now() - KEEP_SECONDS;
            // The newest row stays: it holds the offset.
            t.execute(
                "DELETE FROM inbox WHERE state = 'done' AND received_at < ?1 \
                 AND id IS NOT (SELECT max(id) FROM inbox WHERE update_id IS NOT NULL)",
                [limit],
            )?;
            t.execute(
                // Ready for so long: the chat cannot be reached, and nobody came back to it.
                "DELETE FROM outbox WHERE state IN ('ready', 'done', 'dead') AND created_at < ?1",
                [now() - 30 * 24 * 3600],
            )?;
            t.execute(
                "DELETE FROM runs WHERE state NOT IN ('queued', 'running') AND created_at < ?1",
                [now() - 90 * 24 * 3600],
            )?;
            Ok(())
        })
        .await
    }
}

/// What tells an update from another, apart from its id: the update's text behind the first comma, hashed.
fn print(raw: &str) -> Option<i64> {
    let (_, rest) = raw.split_once(',')?;
    let hash = ring::digest::digest(&ring::digest::SHA256, rest.as_bytes());
    hash.as_ref().first_chunk().copied().map(i64::from_be_bytes)
}

/// Marks a row as dealt with inside a larger change; its words are kept elsewhere or were worth nothing. `false` when it
/// was so already.
pub(super) fn settle(t: &rusqlite::Transaction<'_>, id: InboxId) -> rusqlite::Result<bool> {
    let changed = t
        .prepare_cached(
            "UPDATE inbox SET state = 'done', raw = NULL, content = NULL WHERE id = ?1 AND state = 'new'",
        )?
        .execute([id.0])?;
    Ok(changed == 1)
}

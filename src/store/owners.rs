//! Who is known by a number: Telegram users that paired by a code, and agents by their host uid slot.

use rusqlite::OptionalExtension;

use super::{Store, StoreError, now};
use crate::model::{AgentName, UserId};

impl Store {
    /// Adds a paired owner.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn add_owner(&self, user: UserId) -> Result<(), StoreError> {
        self.transact("store an owner", move |t| {
            t.execute("INSERT OR IGNORE INTO owners (user, added_at) VALUES (?1, ?2)", [user.0, now()])?;
            Ok(())
        })
        .await
    }

    /// All paired owners.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn owners(&self) -> Result<Vec<UserId>, StoreError> {
        self.read("list owners", |c| {
            c.prepare("SELECT user FROM owners ORDER BY user")?
                .query_map([], |row| row.get(0).map(UserId))?
                .collect()
        })
        .await
    }

    /// The host uid slot of `agent`, given once and kept.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn agent_slot(&self, agent: &AgentName) -> Result<u16, StoreError> {
        let agent = agent.to_string();
        self.transact("store an agent's slot", move |t| {
            let found = t
                .query_row("SELECT slot FROM slots WHERE agent = ?1", [&agent], |row| row.get(0))
                .optional()?;
            if let Some(slot) = found {
                return Ok(slot);
            }
            t.query_row(
                "INSERT INTO slots (agent, slot) SELECT ?1, coalesce(max(slot) + 1, 0) FROM slots RETURNING slot",
                [agent],
                |row| row.get(0),
            )
        })
        .await
    }
}

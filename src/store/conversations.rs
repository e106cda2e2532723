//! Conversations: one (place, agent) thread each, with its Claude session; and the agent a place talks to.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, StoreError, now};
use crate::model::{AgentName, ConversationId, MessageId, Place, SessionId};

/// One conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its row.
    pub id: ConversationId,
    /// Where it is held.
    pub place: Place,
    /// With whom.
    pub agent: AgentName,
    /// Claude's session.
    pub session: SessionId,
    /// Whether Claude has a transcript of that session: it is resumed, else begun.
    pub begun: bool,
}

pub(super) const COLUMNS: &str =
    "conversations.id, conversations.place, conversations.agent, conversations.session, conversations.begun";

impl Conversation {
    /// Reads [`COLUMNS`], the first of which is at `at`.
    pub(super) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        let bad = |column: usize, what: &str| {
            rusqlite::Error::FromSqlConversionFailure(
                column,
                rusqlite::types::Type::Text,
                what.to_owned().into(),
            )
        };
        let place: String = row.get(at + 1)?;
        let agent: String = row.get(at + 2)?;
        Ok(Self {
            id: ConversationId(row.get(at)?),
            place: Place::parse(&place).ok_or_else(|| bad(at + 1, "not a place"))?,
            agent: AgentName::new(&agent).map_err(|e| bad(at + 2, &e.to_string()))?,
            session: SessionId(row.get(at + 3)?),
            begun: row.get(at + 4)?,
        })
    }
}

impl Store {
    /// The conversation of `agent` at `place`, made with a fresh session if there is none.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn conversation(&self, place: Place, agent: AgentName) -> Result<Conversation, StoreError> {
        let (p, a) = (place.to_string(), agent.to_string());
        let found = self.read("find a conversation", move |c| by_key(c, &p, &a)).await?;
        if let Some(found) = found {
            return Ok(found);
        }
        self.transact("make a conversation", move |t| {
            t.execute(
                "INSERT INTO conversations (place, agent, session, updated_at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO NOTHING",
                params![place.to_string(), agent.as_str(), SessionId::random().0, now()],
            )?;
            by_key(t, &place.to_string(), agent.as_str())?.ok_or(rusqlite::Error::QueryReturnedNoRows)
        })
        .await
    }

    /// Gives a conversation a session that Claude does not know yet.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn set_session(&self, id: ConversationId, session: SessionId) -> Result<(), StoreError> {
        self.transact("renew a session", move |t| {
            t.execute(
                "UPDATE conversations SET session = ?2, begun = 0, updated_at = ?3 WHERE id = ?1",
                params![id.0, session.0, now()],
            )?;
            Ok(())
        })
        .await
    }

    /// Remembers that Claude has a transcript of `session`: it is resumed from now on. The id may differ from the one
    /// the conversation had, because a session can be renamed by Claude.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn session_begun(&self, id: ConversationId, session: SessionId) -> Result<(), StoreError> {
        self.transact("store a session", move |t| {
            t.execute(
                "UPDATE conversations SET session = ?2, begun = 1, updated_at = ?3 WHERE id = ?1",
                params![id.0, session.0, now()],
            )?;
            Ok(())
        })
        .await
    }

    /// The agent `place` talks to when none is named.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn place_agent(&self, place: &Place) -> Result<Option<AgentName>, StoreError> {
        let place = place.to_string();
        self.read("find a place's agent", move |c| {
            let name: Option<String> = c
                .query_row("SELECT agent FROM places WHERE place = ?1", [place], |row| row.get(0))
                .optional()?;
            Ok(name.and_then(|name| AgentName::new(&name).ok()))
        })
        .await
    }

    /// Makes `agent` the one `place` talks to.
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn set_place_agent(&self, place: &Place, agent: &AgentName) -> Result<(), StoreError> {
        let (place, agent) = (place.to_string(), agent.to_string());
        self.transact("store a place's agent", move |t| {
            t.execute("INSERT OR REPLACE INTO places (place, agent) VALUES (?1, ?2)", [place, agent])?;
            Ok(())
        })
        .await
    }

    /// The agent that wrote `message` in the chat of `place`, for answers by reply.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn author_of(
        &self,
        place: &Place,
        message: MessageId,
    ) -> Result<Option<AgentName>, StoreError> {
        let Place::Telegram { chat, .. } = place else { return Ok(None) };
        let chat = *chat;
        self.read("find a message's author", move |c| {
            let name: Option<String> = c
                .query_row(
                    "SELECT agent FROM outbox WHERE chat = ?1 AND agent IS NOT NULL \
                     AND id > (SELECT max(id) FROM outbox) - 2000 AND instr(messages, ?2) > 0 \
                     ORDER BY id DESC LIMIT 1",
                    params![chat.0, format!(",{message},")],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(name.and_then(|name| AgentName::new(&name).ok()))
        })
        .await
    }
}

fn by_key(c: &Connection, place: &str, agent: &str) -> rusqlite::Result<Option<Conversation>> {
    c.query_row(
        &format!("SELECT {COLUMNS} FROM conversations WHERE place = ?1 AND agent = ?2"),
        [place, agent],
        |row| Conversation::read(row, 0),
    )
    .optional()
}

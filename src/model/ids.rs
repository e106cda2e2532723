//! Identifiers as newtypes: a chat can never be passed where a run is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A Telegram chat; negative for groups.
    ChatId
);
number_id!(
    /// A Telegram user.
    UserId
);
number_id!(
    /// A topic (`message_thread_id`) of a Telegram chat.
    ThreadId
);
number_id!(
    /// A message, unique within its Telegram chat.
    MessageId
);
number_id!(
    /// A Telegram update; grows, but may jump after a quiet week.
    UpdateId
);
number_id!(
    /// A row of the inbox: one accepted message, press or submission.
    InboxId
);
number_id!(
    /// A row of the outbox: one thing that must reach a chat.
    OutboxId
);
number_id!(
    /// One prompt carried to its end.
    RunId
);
number_id!(
    /// One (place, agent) thread with its Claude session.
    ConversationId
);

/// A Claude session id: a UUID in its usual text form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub String);

impl SessionId {
    /// A fresh random id.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An agent's name: 1 to 32 of `a-z`, `0-9`, `-`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentName(String);

/// The text is not an agent's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an agent's name: use 1 to 32 of a-z, 0-9 and -, beginning with a letter")]
pub struct AgentNameError(pub String);

impl AgentName {
    /// Checks `text`.
    ///
    /// # Errors
    /// When it is empty, longer than 32, begins with no letter, or has a character outside `a-z0-9-`.
    pub fn new(text: &str) -> Result<Self, AgentNameError> {
        let good = text.len() <= 32
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good { Ok(Self(text.to_owned())) } else { Err(AgentNameError(text.to_owned())) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AgentName {
    type Error = AgentNameError;
    fn try_from(text: String) -> Result<Self, AgentNameError> {
        Self::new(&text)
    }
}

impl From<AgentName> for String {
    fn from(name: AgentName) -> Self {
        name.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a conversation is held. Its text form (`telegram:CHAT[:TOPIC]`, `terminal:NAME`) is the key in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// A Telegram chat, or one topic of it.
    Telegram {
        /// The chat.
        chat: ChatId,
        /// The topic, in forums and in private chats with topics.
        thread: Option<ThreadId>,
    },
    /// A terminal conversation of this machine (`skep chat`, `skep ask`), by name.
    Terminal(String),
}

impl Place {
    /// Reads the text form back. `None` when it is not one this version writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("terminal:") {
            return Some(Self::Terminal(name.to_owned()));
        }
        let rest = text.strip_prefix("telegram:")?;
        let (chat, thread) = match rest.split_once(':') {
            Some((chat, thread)) => (chat, Some(ThreadId(thread.parse().ok()?))),
            None => (rest, None),
        };
        Some(Self::Telegram { chat: ChatId(chat.parse().ok()?), thread })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Telegram { chat, thread: None } => write!(f, "telegram:{chat}"),
            Self::Telegram { chat, thread: Some(thread) } => write!(f, "telegram:{chat}:{thread}"),
            Self::Terminal(name) => write!(f, "terminal:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_name_is_short_lower_case_and_begins_with_a_letter() {
        for good in ["a", "general", "c3-po", &"x".repeat(32)] {
            assert!(AgentName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "3po", "Coder", "a b", "a/b", "é", "a\n", &"x".repeat(33)] {
            assert_eq!(AgentName::new(bad), Err(AgentNameError(bad.to_owned())), "{bad:?}");
        }
    }

    #[test]
    fn a_place_survives_its_text_form() {
        for place in [
            Place::Telegram { chat: ChatId(-100), thread: None },
            Place::Telegram { chat: ChatId(7), thread: Some(ThreadId(9)) },
            Place::Terminal("chat:x".to_owned()),
        ] {
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
        for bad in ["", "telegram:", "telegram:x", "telegram:1:x", "mail:1"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }
}

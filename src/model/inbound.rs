//! What came in, whatever the channel, after it has been stored.

use serde::{Deserialize, Serialize};

use super::{AgentName, Command, InboxId, MessageId, Place, RunId, UserId};

/// One accepted message, press or submission. Its row exists before this value does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The inbox row.
    pub id: InboxId,
    /// Who sent it, from where.
    pub origin: Origin,
    /// What it says.
    pub content: Content,
}

/// Who sent something, and where an answer goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Where the conversation is held.
    pub place: Place,
    /// The Telegram user; `None` on a terminal, where the socket's peer credentials have already been checked.
    pub user: Option<UserId>,
    /// The Telegram message, to which the answer is a reply.
    pub message: Option<MessageId>,
}

/// What an inbound item says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Words for an agent.
    Text {
        /// The agent addressed by `@name`, by replying to one of its messages, or by the command line.
        agent: Option<AgentName>,
        /// The words.
        text: String,
        /// The message this one replies to, so that the store can name the agent that wrote it.
        reply_to: Option<MessageId>,
    },
    /// A slash command.
    Command(Command),
    /// The cancel button of a queued run was pressed.
    CancelRun {
        /// The run named by the button.
        run: RunId,
        /// The press to confirm, in Telegram's own words (`callback_query.id`).
        callback: Option<String>,
    },
    /// A stranger sent the pairing code: they become an owner.
    Pair,
    /// Something this version cannot read (a sticker, a video, …), named in plain words.
    Unsupported(String),
    /// Nothing to do: a stranger, a service message, an update this version does not know.
    Nothing,
}

//! Who is told what: the two ways out of the agents and the router.
//!
//! Durable things (answers, notices) are rows of the outbox before [`Announcer::deliver`] is called, which only nudges.
//! Streaming events go to the chat side by a bounded queue that its actor always drains, and to terminals and the status
//! page by a broadcast that drops the oldest when a watcher is slow.

use tokio::sync::{broadcast, mpsc};

use crate::model::{ChatId, Outbound, Place};

/// What the chat side is told.
#[derive(Debug, Clone, PartialEq)]
pub enum ToChat {
    /// A run does something; best effort.
    Event(Outbound),
    /// The outbox has rows for this chat.
    Deliver(ChatId),
    /// A button's press is to be confirmed.
    AnswerPress {
        /// Telegram's id of the press.
        callback: String,
        /// The words of the small overlay.
        text: String,
    },
}

/// The sending ends; cheap to clone.
#[derive(Debug, Clone)]
pub struct Announcer {
    chat: mpsc::Sender<ToChat>,
    watchers: broadcast::Sender<Outbound>,
}

/// Events a slow terminal may fall behind before it loses the oldest.
const WATCHER_BACKLOG: usize = 256;
/// Things the chat side may have waiting.
const CHAT_BACKLOG: usize = 256;

impl Announcer {
    /// Makes the channels; the receiver belongs to the chat side.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<ToChat>) {
        let (chat, receiver) = mpsc::channel(CHAT_BACKLOG);
        (Self { chat, watchers: broadcast::Sender::new(WATCHER_BACKLOG) }, receiver)
    }

    /// Tells of an event: the chat if the place is one, and every watcher.
    pub async fn event(&self, outbound: Outbound) {
        if self.watchers.receiver_count() > 0 {
            // Fails only when the last watcher has just left.
            let _ = self.watchers.send(outbound.clone());
        }
        if matches!(outbound.place, Place::Telegram { .. }) {
            self.to_chat(ToChat::Event(outbound)).await;
        }
    }

    /// The outbox has something for the chat of `place`.
    pub async fn deliver(&self, place: &Place) {
        if let Place::Telegram { chat, .. } = place {
            self.to_chat(ToChat::Deliver(*chat)).await;
        }
    }

    /// Confirms a press.
    pub async fn answer_press(&self, callback: String, text: String) {
        self.to_chat(ToChat::AnswerPress { callback, text }).await;
    }

    /// A new watcher of all events.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Outbound> {
        self.watchers.subscribe()
    }

    async fn to_chat(&self, message: ToChat) {
        if self.chat.send(message).await.is_err() {
            // The daemon is going down; what matters is in the outbox.
            tracing::debug!("the chat side has ended");
        }
    }
}

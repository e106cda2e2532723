//! The Telegram side, joined to the rest: updates in, answers out. Without a token it is off, and whatever is meant for it
//! waits in the outbox.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::DaemonError;
use crate::announce::ToChat;
use crate::config::{Credentials, Settings};
use crate::inbox::{Decode, Inbox};
use crate::model::{Access, AgentName, TelegramState, UserId};
use crate::store::Store;
use crate::telegram::{Api, Batch, Bot, Delivery, Poll, Refused, decode};

/// What the Telegram side is joined to.
pub(super) struct Link<'a> {
    pub credentials: &'a Credentials,
    pub api_url: &'a str,
    pub store: &'a Store,
    pub inbox: &'a Inbox,
    pub access: &'a watch::Sender<Access>,
    pub state: watch::Sender<TelegramState>,
    pub bot: watch::Sender<Bot>,
    pub to_chat: mpsc::Receiver<ToChat>,
}

/// The running Telegram side.
pub(super) struct Chat {
    poll: Option<JoinHandle<()>>,
    accept: Option<JoinHandle<()>>,
    forward: JoinHandle<()>,
    delivery: Option<Delivery>,
}

/// Batches under way between poll and inbox: the poll waits for each.
const BATCHES: usize = 1;
/// What is ready when the daemon is told to end may take this long to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// Who the bot is: its id is part of the token, its name comes with the first answer of Telegram.
pub(super) fn bot(credentials: &Credentials) -> watch::Sender<Bot> {
    let id =
        credentials.telegram_token.as_ref().and_then(|token| token.expose().split(':').next()?.parse().ok());
    watch::Sender::new(Bot { id: UserId(id.unwrap_or(0)), username: None })
}

/// How the inbox reads a stored update.
pub(super) fn decoder(
    access: &watch::Sender<Access>,
    bot: &watch::Sender<Bot>,
    settings: &watch::Receiver<Arc<Settings>>,
) -> Arc<Decode> {
    let (access, bot, settings) = (access.subscribe(), bot.subscribe(), settings.clone());
    Arc::new(move |raw| {
        let agents: Vec<AgentName> = settings.borrow().agents.keys().cloned().collect();
        decode(raw, &access.borrow(), &bot.borrow(), &agents)
    })
}

impl Chat {
    /// Starts polling and delivery, if there is a token.
    pub(super) async fn start(link: Link<'_>) -> Result<Self, DaemonError> {
        let Link { credentials, api_url, store, inbox, access, state, bot, to_chat } = link;
        let Some(token) = &credentials.telegram_token else {
            tracing::warn!("no bot token: Telegram stays off; store one as the credential telegram-token");
            return Ok(Self {
                poll: None,
                accept: None,
                forward: tokio::spawn(forward(to_chat, None)),
                delivery: None,
            });
        };
        let api = Api::new(token, api_url).map_err(DaemonError::Telegram)?;
        let delivery = Delivery::new(api.clone(), store.clone());
        delivery.recover().await.map_err(DaemonError::Store)?;
        let (sink, batches) = mpsc::channel(BATCHES);
        let start = store.last_update().await.map_err(DaemonError::Store)?;
        let poll = Poll { api, start, access: access.subscribe(), sink, state, bot };
        Ok(Self {
            poll: Some(tokio::spawn(poll.run())),
            accept: Some(tokio::spawn(accept(batches, inbox.clone()))),
            forward: tokio::spawn(forward(to_chat, Some(delivery.clone()))),
            delivery: Some(delivery),
        })
    }

    /// Waits for the death of a part, and names it.
    pub(super) async fn ended(&mut self) -> &'static str {
        tokio::select! {
            () = died(&mut self.poll) => "polling",
            () = died(&mut self.accept) => "the inbox",
            _ = &mut self.forward => "the chat side",
        }
    }

    /// Takes nothing more from Telegram; what was not confirmed comes again after the next start.
    pub(super) fn stop_polling(&self) {
        for task in [&self.poll, &self.accept].into_iter().flatten() {
            task.abort();
        }
    }

    /// Lets what is ready reach the chats, for a while.
    pub(super) async fn flush(&self) {
        if let Some(delivery) = &self.delivery
            && !delivery.drain(FLUSH).await
        {
            tracing::warn!("some messages are still to be delivered; the next start does it");
        }
    }
}

async fn died(task: &mut Option<JoinHandle<()>>) {
    match task {
        Some(task) => {
            let _ = task.await;
        }
        None => std::future::pending().await,
    }
}

async fn accept(mut batches: mpsc::Receiver<Batch>, inbox: Inbox) {
    while let Some(Batch { updates, committed }) = batches.recv().await {
        let stored = inbox.accept(updates).await.map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "updates cannot be stored; Telegram keeps them"
            );
            Refused
        });
        // A poll that has gone asks for the same updates again.
        let _ = committed.send(stored);
    }
}

async fn forward(mut to_chat: mpsc::Receiver<ToChat>, delivery: Option<Delivery>) {
    while let Some(message) = to_chat.recv().await {
        let Some(delivery) = &delivery else { continue };
        match message {
            ToChat::Event(event) => delivery.event(event),
            ToChat::Deliver(chat) => delivery.nudge(chat),
            ToChat::AnswerPress { callback, text } => delivery.answer_callback(callback, text),
        }
    }
}

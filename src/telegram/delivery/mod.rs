//! Brings what the store holds ready, and the streaming of what is not ready yet, into the chats.
//!
//! One per bot token, started by the daemon. Callers never wait: events and nudges change a chat's shared state and wake its
//! task, which is started on demand and ends when nothing is left to do. `chat` is that task, `stream` shows runs while they
//! go on, `bring` delivers rows, `live` is the state both sides share.
//!
//! Invariants:
//! - A row's call is committed as `sending` before it leaves and its message id right after it came back.
//! - Calls of one chat go out one after another and its rows in the order of their ids; chats never wait for each other.
//! - Nothing streamed is needed for the final text: that comes from the store, whatever Telegram says meanwhile.

mod bring;
mod chat;
mod live;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::api::Api;
use super::error::ApiError;
use super::pace::{Bucket, Purpose};
use crate::model::{AgentEvent, ChatId, Outbound, Place};
use crate::store::{Store, StoreError};
use live::Live;

/// Speaks to the actor; clones share it. Must be used inside the runtime that runs it.
#[derive(Debug, Clone)]
pub struct Delivery {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    api: Api,
    store: Store,
    chats: Mutex<HashMap<ChatId, Arc<Chat>>>,
    global: Mutex<Bucket>,
}

/// What callers and a chat's task share.
#[derive(Debug)]
struct Chat {
    id: ChatId,
    live: Mutex<Live>,
    wake: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Delivery {
    /// Ready to deliver; the chats' tasks start on demand and go on for as long as the runtime does.
    #[must_use]
    pub fn new(api: Api, store: Store) -> Self {
        let global = Mutex::new(Bucket::global(Instant::now()));
        Self { shared: Arc::new(Shared { api, store, chats: Mutex::default(), global }) }
    }

    /// Takes an event of a run. Only Telegram places and events of a run are shown.
    pub fn event(&self, event: Outbound) {
        let Place::Telegram { chat, thread } = event.place else { return };
        let now = Instant::now();
        let ends = matches!(
            event.event,
            AgentEvent::Finished { .. } | AgentEvent::Failed(_) | AgentEvent::Cancelled
        );
        self.with_chat(chat, |live| {
            if let Some(run) = event.run {
                live.event(run, thread, chat.0 < 0, event.event, now);
            } else if ends {
                live.ready = true;
            }
        });
    }

    /// Says that the store holds something ready for a chat.
    pub fn nudge(&self, chat: ChatId) {
        self.with_chat(chat, |live| live.ready = true);
    }

    /// Takes up what an earlier life of the daemon left behind. To be called once, before the first event or nudge.
    ///
    /// # Errors
    /// When the database cannot be read or changed.
    pub async fn recover(&self) -> Result<(), StoreError> {
        for chat in self.shared.store.recover_outbox().await? {
            self.nudge(chat);
        }
        Ok(())
    }

    /// Confirms a press in the background; a lost confirmation only lets the button spin for a moment longer.
    pub fn answer_callback(&self, id: String, text: String) {
        let api = self.shared.api.clone();
        tokio::spawn(async move {
            let text: String = text.chars().take(200).collect();
            let mut answered = api.answer_callback(&id, &text).await;
            if let Err(ApiError::Unsent(_) | ApiError::Unknown(_)) = answered {
                sleep(Duration::from_secs(1)).await;
                answered = api.answer_callback(&id, &text).await;
            }
            if let Err(error) = answered {
                tracing::debug!("a button's press was not confirmed: {error}");
            }
        });
    }

    /// Waits until everything ready has been brought into its chat, at most `limit`. `false` when something is left: it is
    /// in the store and goes out after the next start.
    pub async fn drain(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            if lock(&self.shared.chats).values().all(|chat| !lock(&chat.live).is_delivering()) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Changes a chat's shared state and wakes its task, starting it if there is none.
    fn with_chat(&self, id: ChatId, change: impl FnOnce(&mut Live)) {
        let mut chats = lock(&self.shared.chats);
        if let Some(chat) = chats.get(&id) {
            change(&mut lock(&chat.live));
            chat.wake.notify_one();
            return;
        }
        let mut live = Live::default();
        change(&mut live);
        if live.is_idle() {
            return;
        }
        let chat = Arc::new(Chat { id, live: Mutex::new(live), wake: Notify::new() });
        chats.insert(id, Arc::clone(&chat));
        tokio::spawn(chat::Task::new(Arc::clone(&self.shared), chat).run());
    }
}

impl Shared {
    /// Waits for one of the permissions that all chats share.
    async fn global_permit(&self) {
        loop {
            let asked = lock(&self.global).take(Instant::now(), Purpose::Final);
            match asked {
                Ok(()) => return,
                Err(at) => sleep_until(at).await,
            }
        }
    }
}

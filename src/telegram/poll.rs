//! The polling loop: updates are handed to the inbox, and confirmed to Telegram by the next poll only when the inbox says
//! that they are on disk.
//!
//! Started once per token by the daemon. Our own, because teloxide's loop confirms updates that nobody has stored yet.
//!
//! Rule for what cannot be read: an update's id is sought in its JSON and then in its bare text. An update without any is
//! logged and passed over as soon as another one moves the offset; while it is alone the offset stays, the state says
//! `Failing` and it is asked for again, so nothing is confirmed that nobody understood, and polling never stops.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::api::{Api, Hold};
use super::backoff::Backoff;
use super::error::ApiError;
use super::update::{Bot, classify, needs_username};
use crate::failpoint;
use crate::model::{Access, TelegramState, UpdateId, UserId};
use crate::store::AcceptedUpdate;

const CONFLICT_WAIT: Duration = Duration::from_secs(3);
/// A refused token is tried again this rarely: only its owner can mend it, and then restarts us.
const REJECTED_WAIT: Duration = Duration::from_secs(300);
/// How long a group's message waits for the bot to learn its own name.
const NAME_WAIT: Duration = Duration::from_secs(5);

/// The inbox could not store a batch; it will be offered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// Updates of one poll, in order, never empty.
#[derive(Debug)]
pub struct Batch {
    /// What to store.
    pub updates: Vec<AcceptedUpdate>,
    /// `Ok` once all of them are on disk. `Err`, or dropping it, makes the loop offer the same batch again later.
    pub committed: oneshot::Sender<Result<(), Refused>>,
}

/// What the loop works with.
#[derive(Debug)]
pub struct Poll {
    /// The Bot API.
    pub api: Api,
    /// The update stored last, by an earlier life of the daemon.
    pub start: Option<UpdateId>,
    /// Who is answered.
    pub access: watch::Receiver<Access>,
    /// Where batches go.
    pub sink: mpsc::Sender<Batch>,
    /// How it goes.
    pub state: watch::Sender<TelegramState>,
    /// The bot's id and, once Telegram told, its user name.
    pub bot: watch::Sender<Bot>,
}

impl Poll {
    /// Polls until the receiver of batches is gone, or the future is dropped. The first poll does not wait for anything else.
    pub async fn run(self) {
        let Self { api, start, access, sink, state, bot } = self;
        state.send_replace(TelegramState::Connecting);
        let greeting = greet(&api, access.clone(), &bot, &state);
        let polling = Polling {
            api: &api,
            offset: start.map(after),
            access,
            sink,
            state: &state,
            bot: bot.subscribe(),
        };
        tokio::select! {
            () = polling.run() => {}
            () = async { greeting.await; std::future::pending().await } => {}
        }
    }
}

fn after(id: UpdateId) -> UpdateId {
    UpdateId(id.0.saturating_add(1))
}

struct Polling<'a> {
    api: &'a Api,
    offset: Option<UpdateId>,
    access: watch::Receiver<Access>,
    sink: mpsc::Sender<Batch>,
    state: &'a watch::Sender<TelegramState>,
    bot: watch::Receiver<Bot>,
}

impl Polling<'_> {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut warned = false;
        let mut unconfirmed = false;
        while !self.sink.is_closed() {
            if std::mem::take(&mut unconfirmed) {
                failpoint::reach("poll.confirmed");
            }
            // After a failure the first poll comes back at once, so that "online" is true and not a minute old.
            let hold = if backoff.is_fresh() { Hold::Long } else { Hold::No };
            let polled = tokio::select! {
                polled = self.api.get_updates(self.offset, hold) => polled,
                () = self.sink.closed() => return,
            };
            let wait = match polled {
                Ok(updates) if updates.is_empty() => None,
                Ok(updates) => {
                    failpoint::reach("poll.received");
                    match self.hand_over(updates).await {
                        Some(id) => {
                            self.offset = Some(after(id));
                            unconfirmed = true;
                            None
                        }
                        None => Some(self.failing("Telegram sends an update without an id", &mut backoff)),
                    }
                }
                Err(error) => Some(self.failed(&error, &mut backoff, &mut warned).await),
            };
            match wait {
                Some(wait) => sleep(wait).await,
                None => {
                    if !backoff.is_fresh() {
                        tracing::info!("telegram: polling works again");
                    }
                    backoff.reset();
                    warned = false;
                    self.online();
                }
            }
        }
    }

    /// Gives a batch to the inbox until it is stored. Returns the id to confirm; `None` when not one update had an id.
    async fn hand_over(&mut self, raw: Vec<String>) -> Option<UpdateId> {
        if self.bot.borrow().username.is_none() && raw.iter().any(|raw| needs_username(raw)) {
            // Best effort: without the name a mention cannot be recognised.
            let _ = timeout(NAME_WAIT, self.bot.wait_for(|bot| bot.username.is_some())).await;
        }
        let updates = {
            let (access, bot) = (self.access.borrow(), self.bot.borrow());
            accept(raw, &access, &bot)
        };
        // The newest of this batch, not of all time: after a quiet week Telegram begins at another number.
        let last = updates.iter().map(|update| update.id).max()?;
        let mut backoff = Backoff::default();
        loop {
            let (committed, answer) = oneshot::channel();
            let batch = Batch { updates: updates.clone(), committed };
            if self.sink.send(batch).await.is_err() {
                // Shutting down: nothing is confirmed, the next life gets the batch again.
                return std::future::pending().await;
            }
            if let Ok(Ok(())) = answer.await {
                return Some(last);
            }
            if self.sink.is_closed() {
                return std::future::pending().await;
            }
            let wait = self.failing("messages cannot be stored; is the disk full?", &mut backoff);
            sleep(wait).await;
        }
    }

    /// Takes note of a failed poll and says how long to wait.
    async fn failed(&self, error: &ApiError, backoff: &mut Backoff, warned: &mut bool) -> Duration {
        match error {
            ApiError::RetryAfter(wait) => {
                self.failing(&error.to_string(), backoff);
                *wait + Duration::from_secs(1)
            }
            ApiError::Conflict(said) => {
                if !std::mem::replace(warned, true) {
                    tracing::warn!(
                        "telegram: another program uses this bot token, or a webhook is set: {said}"
                    );
                }
                if said.contains("webhook") {
                    // Failing is no matter: the next poll says so.
                    let _ = self.api.delete_webhook().await;
                }
                self.failing("another program polls with this bot token", backoff);
                CONFLICT_WAIT
            }
            ApiError::Unauthorized => {
                if !matches!(*self.state.borrow(), TelegramState::Rejected) {
                    tracing::error!(
                        "telegram: the bot token was refused; store a new one and restart the service"
                    );
                }
                self.state.send_replace(TelegramState::Rejected);
                REJECTED_WAIT
            }
            other => self.failing(&other.to_string(), backoff),
        }
    }

    fn failing(&self, error: &str, backoff: &mut Backoff) -> Duration {
        if backoff.is_fresh() {
            tracing::warn!("telegram: {error}; trying again");
        }
        let now = epoch();
        self.state.send_modify(|state| {
            let since = if let TelegramState::Failing { since, .. } = state { *since } else { now };
            *state = TelegramState::Failing { error: error.to_owned(), since };
        });
        backoff.next()
    }

    fn online(&self) {
        let bot = self.bot.borrow().username.clone().unwrap_or_default();
        self.state.send_replace(TelegramState::Online { bot, last_poll: epoch() });
    }
}

/// What the inbox gets: an owner's updates whole, of others the id.
fn accept(raw: Vec<String>, access: &Access, bot: &Bot) -> Vec<AcceptedUpdate> {
    raw.into_iter()
        .filter_map(|raw| match classify(&raw, access, bot) {
            Some((id, keep)) => Some(AcceptedUpdate { id, raw: keep.then_some(raw) }),
            None => {
                let excerpt: String = raw.chars().filter(|c| !c.is_control()).take(120).collect();
                tracing::warn!("telegram: an update without an id is passed over: {excerpt}");
                None
            }
        })
        .collect()
}

/// Introduces the bot: learns its name, ends a forgotten webhook, shows owners the menu. Goes on as owners are added.
async fn greet(
    api: &Api,
    mut access: watch::Receiver<Access>,
    bot: &watch::Sender<Bot>,
    state: &watch::Sender<TelegramState>,
) {
    let mut backoff = Backoff::default();
    loop {
        match api.get_me().await {
            Ok(me) => {
                // The first long poll tells nothing for most of a minute; this does.
                state.send_if_modified(|state| {
                    let connecting = *state == TelegramState::Connecting;
                    if connecting {
                        let bot = me.username.clone().unwrap_or_default();
                        *state = TelegramState::Online { bot, last_poll: epoch() };
                    }
                    connecting
                });
                bot.send_replace(Bot { id: me.id, username: me.username });
                break;
            }
            Err(error) => pause(&error, &mut backoff).await,
        }
    }
    backoff.reset();
    while let Err(error) = api.delete_webhook().await {
        pause(&error, &mut backoff).await;
    }
    let mut greeted: Vec<UserId> = Vec::new();
    loop {
        let owners: Vec<UserId> = access.borrow_and_update().owners.iter().copied().collect();
        greeted.retain(|known| owners.contains(known));
        for owner in owners {
            if greeted.contains(&owner) {
                continue;
            }
            backoff.reset();
            loop {
                match api.set_menu(owner).await {
                    // An owner who has never written to the bot has no chat with it yet.
                    Ok(()) | Err(ApiError::BadRequest(_) | ApiError::Gone(_) | ApiError::NotModified) => {
                        break;
                    }
                    Err(error) => pause(&error, &mut backoff).await,
                }
            }
            greeted.push(owner);
        }
        if access.changed().await.is_err() {
            return;
        }
    }
}

async fn pause(error: &ApiError, backoff: &mut Backoff) {
    let wait = match error {
        ApiError::RetryAfter(wait) => *wait + Duration::from_secs(1),
        ApiError::Unauthorized => REJECTED_WAIT,
        _ => backoff.next(),
    };
    sleep(wait).await;
}

/// Seconds since the epoch, for people to read: nothing here is timed by the wall clock.
fn epoch() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

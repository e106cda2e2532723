//! The router: takes stored items one by one, decides (`route.rs`, pure) and carries the decision out.
//!
//! Called by the inbox only. Invariant: an item is settled in the commit that stores what it led to, so that a crash
//! between the two routes it again and never loses or doubles it.

mod route;
mod status_text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use route::{Route, Table, route};

use crate::agent::{Agents, Arrival, Running};
use crate::announce::Announcer;
use crate::config::Settings;
use crate::failpoint;
use crate::model::{
    Access, AgentEvent, AgentName, Content, ConversationId, Inbound, Outbound, Place, RunId, SessionId,
    Usage, UserId,
};
use crate::overview::Observer;
use crate::store::{Cancelling, NewNotice, NewRun, Store, StoreError};

/// What the router acts upon.
pub struct Router {
    /// The durable state.
    pub store: Store,
    /// The agents.
    pub agents: Agents,
    /// Settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Sees how things stand.
    pub observer: Observer,
    /// Who is answered.
    pub access: watch::Sender<Access>,
    /// The ways out.
    pub announcer: Announcer,
}

/// How long to wait before an item is tried again that the database refused (a full disk, mostly).
const RETRY: Duration = Duration::from_secs(5);

impl Router {
    /// Routes until the inbox ends.
    pub async fn run(self, mut inbox: mpsc::Receiver<Inbound>) {
        while let Some(inbound) = inbox.recv().await {
            // The row stays `new` until this works: later items of the same place must not overtake it.
            while let Err(error) = self.carry_out(&inbound).await {
                if matches!(error, StoreError::Gone) {
                    return;
                }
                tracing::error!(
                    inbox = inbound.id.0,
                    error = &error as &dyn std::error::Error,
                    "cannot route; trying again"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn carry_out(&self, inbound: &Inbound) -> Result<(), StoreError> {
        let place = &inbound.origin.place;
        let settings = self.settings.borrow().clone();
        let descriptions: BTreeMap<AgentName, String> =
            settings.agents.iter().map(|(name, agent)| (name.clone(), agent.description.clone())).collect();
        let author = match &inbound.content {
            Content::Text { agent: None, reply_to: Some(message), .. } => {
                self.store.author_of(place, *message).await?
            }
            _ => None,
        };
        let chosen = self.store.place_agent(place).await?;
        let table = Table {
            agents: &descriptions,
            default: &settings.default_agent,
            chosen: chosen.as_ref(),
            author: author.as_ref(),
        };
        let decision = route(&table, inbound);
        failpoint::reach("router.decided");
        match decision {
            Route::Prompt { agent, text } => self.prompt(inbound, agent, text).await,
            Route::Stop => self.stop(inbound).await,
            Route::New(agent) => {
                let conversation = self.store.conversation(place.clone(), agent.clone()).await?;
                let session = SessionId::random();
                // In the store before it is said: a crash after this line forgets all the same.
                self.store.set_session(conversation.id, session.clone()).await?;
                self.agents.renew(conversation, session, Running::Stop).await;
                self.say(inbound, format!("Fresh start: **{agent}** has forgotten this conversation.")).await
            }
            Route::Status => {
                let text = status_text::status(&self.observer.look().await?);
                self.say(inbound, text).await
            }
            Route::Choose(agent) => {
                self.store.set_place_agent(place, &agent).await?;
                self.say(inbound, format!("**{agent}** answers here from now on.")).await
            }
            Route::Cancel { run, callback } => self.cancel(inbound, run, callback).await,
            Route::Pair(user) => self.pair(inbound, user).await,
            Route::Say(text) => self.say(inbound, text).await,
            Route::Ignore => self.store.settle(inbound.id).await,
        }
    }

    async fn prompt(&self, inbound: &Inbound, agent: AgentName, text: String) -> Result<(), StoreError> {
        let conversation = self.store.conversation(inbound.origin.place.clone(), agent).await?.id;
        let new = NewRun { conversation, inbox: inbound.id, prompt: text, reply_to: inbound.origin.message };
        let Some(run) = self.store.enqueue_run(new).await? else { return Ok(()) };
        failpoint::reach("run.queued");
        tracing::info!(run = run.id.0, agent = %run.conversation.agent, place = %run.conversation.place, "queued");
        self.agents.prompt(run, Arrival::Fresh).await;
        Ok(())
    }

    async fn stop(&self, inbound: &Inbound) -> Result<(), StoreError> {
        let stopped = self.agents.stop(inbound.origin.place.clone(), None).await;
        match stopped {
            0 => self.say(inbound, "Nothing is running here.".to_owned()).await,
            // The answer that was running says itself that it was stopped.
            _ if matches!(inbound.origin.place, Place::Telegram { .. }) => {
                self.store.settle(inbound.id).await
            }
            _ => self.say(inbound, "Stopping.".to_owned()).await,
        }
    }

    async fn cancel(
        &self,
        inbound: &Inbound,
        run: RunId,
        callback: Option<String>,
    ) -> Result<(), StoreError> {
        let told = match self.store.cancel_queued(run, Some(inbound.id)).await? {
            Cancelling::Done(conversation) => {
                self.agents.cancel(conversation, run).await;
                "Cancelled."
            }
            Cancelling::Earlier => "Cancelled.",
            Cancelling::TooLate => "Too late: it has begun. /stop ends it.",
        };
        if let Some(callback) = callback {
            self.announcer.answer_press(callback, told.to_owned()).await;
        }
        Ok(())
    }

    async fn pair(&self, inbound: &Inbound, user: UserId) -> Result<(), StoreError> {
        self.store.add_owner(user).await?;
        self.access.send_modify(|access| {
            access.owners.insert(user);
            access.pairing = None;
        });
        tracing::info!(user = user.0, "paired");
        self.say(
            inbound,
            "Paired. This machine answers you from now on; /help shows what it can do.".to_owned(),
        )
        .await
    }

    /// Answers in the daemon's own words.
    async fn say(&self, inbound: &Inbound, text: String) -> Result<(), StoreError> {
        let place = &inbound.origin.place;
        match place {
            Place::Telegram { chat, thread } => {
                let notice = NewNotice {
                    chat: *chat,
                    thread: *thread,
                    reply_to: inbound.origin.message,
                    run: None,
                    agent: None,
                    text,
                    buttons: Vec::new(),
                };
                self.store.add_notices(Some(inbound.id), vec![notice]).await?;
                self.announcer.deliver(place).await;
            }
            Place::Terminal(_) => {
                self.store.settle(inbound.id).await?;
                let outbound = Outbound {
                    place: place.clone(),
                    conversation: ConversationId(0),
                    agent: self.settings.borrow().default_agent.clone(),
                    run: None,
                    inbox: Some(inbound.id),
                    event: AgentEvent::Finished { text, usage: Usage::default() },
                };
                self.announcer.event(outbound).await;
            }
        }
        Ok(())
    }
}

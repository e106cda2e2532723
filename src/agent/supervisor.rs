//! Names to conversations: one actor per conversation, started when first needed and kept (a parked task costs a
//! kilobyte; its cell is what costs, and that ends when idle).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::actor::{Actor, Order};
use super::{Context, Entry, Message};
use crate::model::{AgentName, ConversationId, Place};
use crate::store::Conversation;

/// Orders a conversation may have waiting.
const BACKLOG: usize = 64;

/// A running turn may end by itself this long after the daemon was told to stop.
const DRAIN: Duration = Duration::from_secs(8);

pub(super) struct Supervisor {
    context: Arc<Context>,
    conversations: HashMap<ConversationId, (Place, mpsc::Sender<Order>)>,
    actors: JoinSet<()>,
}

impl Supervisor {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, conversations: HashMap::new(), actors: JoinSet::new() }
    }

    /// Serves until told to shut down, or until an actor dies (the daemon then ends, and systemd restarts it).
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            let message = tokio::select! {
                message = messages.recv() => message,
                Some(ended) = self.actors.join_next() => {
                    tracing::error!(?ended, "a conversation's actor died");
                    return;
                }
            };
            match message {
                Some(Message::Prompt(run, arrival)) => {
                    let conversation = run.conversation.clone();
                    self.order(conversation, Order::Prompt(run, arrival)).await;
                }
                Some(Message::Renew(conversation, session, running)) => {
                    self.order(conversation, Order::Renew(session, running)).await;
                }

                Some(Message::Cancel(conversation, run)) => {
                    if let Some((_, orders)) = self.conversations.get(&conversation) {
                        let _ = orders.send(Order::Cancel(run)).await;
                    }
                }
                Some(Message::Stop(place, agent, reply)) => {
                    let count = self.stop(&place, agent.as_ref()).await;
                    let _ = reply.send(count);
                }
                Some(Message::Shutdown(reply)) => {
                    self.drain().await;
                    let _ = reply.send(());
                    return;
                }
                None => return,
            }
        }
    }

    async fn order(&mut self, conversation: Conversation, order: Order) {
        let (context, actors) = (&self.context, &mut self.actors);
        let (_, orders) = self.conversations.entry(conversation.id).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(BACKLOG);
            let place = conversation.place.clone();
            actors.spawn(Actor::new(Arc::clone(context), conversation).run(receiver));
            (place, sender)
        });
        // Fails only when the actor died, which `run` sees next.
        let _ = orders.send(order).await;
    }

    async fn stop(&self, place: &Place, agent: Option<&AgentName>) -> usize {
        let entries = self.context.registry.entries();
        let meant = |entry: &Entry| entry.place == *place && agent.is_none_or(|agent| entry.agent == *agent);
        let busy = entries.iter().filter(|(_, entry)| meant(entry) && (entry.busy || entry.waiting > 0));
        let mut count = 0;
        for (id, _) in busy {
            if let Some((_, orders)) = self.conversations.get(id) {
                let _ = orders.send(Order::Stop).await;
                count += 1;
            }
        }
        count
    }

    /// Lets running turns end for a while, then ends every cell.
    async fn drain(&mut self) {
        let mut waiting = Vec::new();
        for (_, orders) in self.conversations.values() {
            let (done, ended) = oneshot::channel();
            if orders.send(Order::Drain(done)).await.is_ok() {
                waiting.push(ended);
            }
        }
        let all = async {
            for ended in waiting {
                let _ = ended.await;
            }
        };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!("some turns did not end in {DRAIN:?}; they are resumed at the next start");
        }
        self.actors.shutdown().await;
    }
}

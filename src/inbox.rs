//! The only door into the router: persist and deduplicate, then acknowledge, then route.
//!
//! Called by the poller (through the daemon's wiring), the control socket, and at start with what was left over.
//!
//! Invariant: nothing is handed to the router that is not a row, and nothing is acknowledged before its commit.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::failpoint;
use crate::model::{Content, Inbound, InboxId, Origin};
use crate::store::{AcceptedUpdate, InboxRow, Store, StoreError};

/// Reads a stored update. `None` when it says nothing to us; it is then settled.
pub type Decode = dyn Fn(&str) -> Option<(Origin, Content)> + Send + Sync;

/// The door; cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    store: Store,
    router: mpsc::Sender<Inbound>,
    decode: Arc<Decode>,
}

impl Inbox {
    /// A door in front of `router`.
    #[must_use]
    pub fn new(store: Store, router: mpsc::Sender<Inbound>, decode: Arc<Decode>) -> Self {
        Self { store, router, decode }
    }

    /// Stores a batch of updates, and after that routes what is new. When this returns, the offset may move.
    ///
    /// # Errors
    /// When the commit failed: the batch is to be offered again.
    pub async fn accept(&self, updates: Vec<AcceptedUpdate>) -> Result<(), StoreError> {
        let rows = self.store.accept_updates(updates).await?;
        failpoint::reach("inbox.committed");
        for row in rows {
            self.forward(row).await;
        }
        Ok(())
    }

    /// Stores what a terminal submitted and routes it.
    ///
    /// # Errors
    /// When the commit failed: nothing was submitted.
    pub async fn submit(&self, origin: Origin, content: Content) -> Result<InboxId, StoreError> {
        let id = self.store.submit(origin.clone(), content.clone()).await?;
        self.forward(InboxRow::Submitted { id, origin, content }).await;
        Ok(id)
    }

    /// Routes what an earlier life of the daemon stored and did not route.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn replay(&self) -> Result<usize, StoreError> {
        let rows = self.store.unrouted().await?;
        let count = rows.len();
        for row in rows {
            self.forward(row).await;
        }
        Ok(count)
    }

    async fn forward(&self, row: InboxRow) {
        let inbound = match row {
            InboxRow::Submitted { id, origin, content } => Inbound { id, origin, content },
            InboxRow::Update { id, raw } => match (self.decode)(&raw) {
                Some((origin, content)) => Inbound { id, origin, content },
                None => {
                    if let Err(error) = self.store.settle(id).await {
                        tracing::warn!(inbox = id.0, %error, "an update that says nothing could not be settled");
                    }
                    return;
                }
            },
        };
        if self.router.send(inbound).await.is_err() {
            tracing::debug!("the router has ended; the row is routed after the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Place, UpdateId};

    fn text(words: &str) -> (Origin, Content) {
        let origin = Origin { place: Place::Terminal("t".to_owned()), user: None, message: None };
        (origin, Content::Text { agent: None, text: words.to_owned(), reply_to: None })
    }

    #[tokio::test]
    async fn a_row_is_routed_once_and_left_over_ones_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let (sender, mut routed) = mpsc::channel(8);
        let decode: Arc<Decode> = Arc::new(|raw| (raw != "nothing").then(|| text(raw)));
        let inbox = Inbox::new(store.clone(), sender, decode);
        let update = |id, raw: &str| AcceptedUpdate { id: UpdateId(id), raw: Some(raw.to_owned()) };
        inbox.accept(vec![update(1, "one"), update(2, "nothing")]).await.unwrap();
        inbox.accept(vec![update(1, "one")]).await.unwrap();
        inbox.submit(text("two").0, text("two").1).await.unwrap();
        let first = routed.recv().await.unwrap();
        assert_eq!((first.origin, first.content), text("one"));
        assert_eq!(routed.recv().await.unwrap().content, text("two").1);
        assert!(routed.try_recv().is_err(), "a repeated update and one that says nothing are not routed");
        assert_eq!(inbox.replay().await.unwrap(), 2, "neither was settled by the router");
        assert_eq!(store.unrouted().await.unwrap().len(), 2);
    }
}

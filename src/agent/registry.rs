//! What runs where, for the overview and for decisions about memory: written by the actors, read by anybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::{AgentName, CellOverview, ConversationId, Place};

/// One conversation's entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The agent.
    pub agent: AgentName,
    /// Where it is held.
    pub place: Place,
    /// Whether a turn is running or about to.
    pub busy: bool,
    /// Runs that wait.
    pub waiting: usize,
    /// Its live cell.
    pub cell: Option<CellOverview>,
}

/// The table; clones share it.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Arc<Mutex<BTreeMap<ConversationId, Entry>>>,
    changed: watch::Sender<()>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { entries: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Registry {
    /// Replaces one entry.
    pub(super) fn put(&self, id: ConversationId, entry: Entry) {
        let mut entries = self.lock();
        if entries.get(&id) != Some(&entry) {
            entries.insert(id, entry);
            drop(entries);
            self.changed.send_replace(());
        }
    }

    /// All entries as they stand.
    #[must_use]
    pub fn entries(&self) -> Vec<(ConversationId, Entry)> {
        self.lock().iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Wakes when an entry changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A poisoned table is still a table: every write replaces one whole entry.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConversationId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

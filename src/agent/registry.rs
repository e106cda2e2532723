//! What runs where, for the overview and for decisions about memory: written by the actors, read by anybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::claude::Control;
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
#[derive(Clone)]
pub struct Registry {
    entries: Arc<Mutex<BTreeMap<ConversationId, (Entry, Option<Arc<dyn Control>>)>>>,
    changed: watch::Sender<()>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { entries: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Registry {
    /// Replaces one entry.
    pub(super) fn put(&self, id: ConversationId, entry: Entry, meter: Option<Arc<dyn Control>>) {
        let mut entries = self.lock();
        if entries.get(&id).map(|(old, _)| old) != Some(&entry) {
            entries.insert(id, (entry, meter));
            drop(entries);
            self.changed.send_replace(());
        }
    }

    /// All entries as they stand, the memory of their cells measured now.
    #[must_use]
    pub fn entries(&self) -> Vec<(ConversationId, Entry)> {
        let measured = |(id, (entry, meter)): (&ConversationId, &(Entry, Option<Arc<dyn Control>>))| {
            let mut entry = entry.clone();
            if let Some(cell) = &mut entry.cell {
                cell.memory = meter.as_ref().and_then(|meter| meter.memory());
            }
            (*id, entry)
        };
        self.lock().iter().map(measured).collect()
    }

    /// Wakes when an entry changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A poisoned table is still a table: every write replaces one whole entry.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConversationId, (Entry, Option<Arc<dyn Control>>)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What runs where, for the overview and for decisions about memory: written by the actors, read by anybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

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
    /// Whether background tasks keep its process from being ended when idle.
    pub background: bool,
    /// Its live cell.
    pub cell: Option<CellOverview>,
}

/// A row: what is shown, and the ways to reach the conversation.
struct Row {
    entry: Entry,
    /// The live cell's handle, for its memory.
    meter: Option<Arc<dyn Control>>,
    /// Wakes the actor to end its process if nothing runs.
    wish: Arc<Notify>,
}

/// The table; clones share it.
#[derive(Clone)]
pub struct Registry {
    rows: Arc<Mutex<BTreeMap<ConversationId, Row>>>,
    changed: watch::Sender<()>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { rows: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Registry {
    /// Replaces one row. `wish` wakes the conversation's actor.
    pub(super) fn put(
        &self,
        id: ConversationId,
        entry: Entry,
        meter: Option<Arc<dyn Control>>,
        wish: &Arc<Notify>,
    ) {
        let mut rows = self.lock();
        if rows.get(&id).map(|row| &row.entry) != Some(&entry) {
            rows.insert(id, Row { entry, meter, wish: Arc::clone(wish) });
            drop(rows);
            self.changed.send_replace(());
        }
    }

    /// Asks the idle conversation whose cell is the oldest to end it. `false` when every cell is busy.
    pub(super) fn yield_one(&self) -> bool {
        let rows = self.lock();
        let idle = rows.values().filter(|row| !row.entry.busy && !row.entry.background);
        let oldest =
            idle.filter_map(|row| Some((row.entry.cell.as_ref()?.started_at, row))).min_by_key(|(at, _)| *at);
        match oldest {
            Some((_, row)) => {
                row.wish.notify_one();
                true
            }
            None => false,
        }
    }

    /// All entries as they stand, the memory of their cells measured now.
    #[must_use]
    pub fn entries(&self) -> Vec<(ConversationId, Entry)> {
        let measured = |(id, row): (&ConversationId, &Row)| {
            let mut entry = row.entry.clone();
            if let Some(cell) = &mut entry.cell {
                cell.memory = row.meter.as_ref().and_then(|meter| meter.memory());
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
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConversationId, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

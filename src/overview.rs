//! The picture of everything at one moment, put together from the store, the registry of cells and the Telegram side.
//!
//! Published by `watch` for the status page and the STATUS line, and made afresh for whoever asks by the control socket.
//!
//! Invariant: nothing is recomputed while nothing changes. On an idle machine what changes is the time of the last poll,
//! once in 50 s.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::agent::{Entry, Registry, memory_available};
use crate::config::Settings;
use crate::model::{AgentOverview, MachineOverview, Overview, TelegramState};
use crate::store::{Store, StoreError};

/// Changes closer together than this are shown together.
const CALM: Duration = Duration::from_millis(300);

/// Everything a picture is made of; cheap to clone.
#[derive(Clone)]
pub struct Observer {
    /// The durable state.
    pub store: Store,
    /// What runs where.
    pub registry: Registry,
    /// Settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The Telegram side.
    pub telegram: watch::Receiver<TelegramState>,
    /// What this machine offers.
    pub machine: watch::Receiver<MachineOverview>,
    /// When the daemon started, in seconds since the epoch.
    pub started_at: i64,
}

impl Observer {
    /// Looks at everything now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn look(&self) -> Result<Overview, StoreError> {
        let (queue, runs, usage) =
            (self.store.queue().await?, self.store.latest_runs(20).await?, self.store.usage().await?);
        let entries = self.registry.entries();
        let settings = self.settings.borrow().clone();
        let agents = settings
            .agents
            .iter()
            .map(|(name, agent)| {
                let of_agent = || entries.iter().map(|(_, entry)| entry).filter(|entry| entry.agent == *name);
                AgentOverview {
                    name: name.clone(),
                    description: agent.description.clone(),
                    model: agent.model.clone(),
                    cells: of_agent().filter_map(|entry: &Entry| entry.cell.clone()).collect(),
                    queued: of_agent().map(|entry| entry.waiting).sum(),
                }
            })
            .collect();
        let mut machine = self.machine.borrow().clone();
        machine.memory_available = memory_available();
        Ok(Overview {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            agents,
            queue,
            runs,
            usage,
            machine,
            telegram: self.telegram.borrow().clone(),
        })
    }

    /// Publishes a new picture after every change. Never ends.
    pub async fn publish(mut self, overview: watch::Sender<Arc<Overview>>) {
        let mut changes = self.registry.changes();
        let mut told = String::new();
        loop {
            match self.look().await {
                Ok(picture) => {
                    let line = line(&picture);
                    if line != told {
                        crate::systemd::status(&line);
                        told = line;
                    }
                    overview.send_replace(Arc::new(picture));
                }
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no overview"),
            }
            tokio::select! {
                () = changed(&mut changes) => {}
                () = changed(&mut self.settings) => {}
                () = changed(&mut self.telegram) => {}
                () = changed(&mut self.machine) => {}
            }
            tokio::time::sleep(CALM).await;
        }
    }
}

/// Waits for a change; for ever once nobody can make one.
async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        std::future::pending().await
    }
}

/// systemd's STATUS line.
#[must_use]
pub fn line(overview: &Overview) -> String {
    let cells: Vec<_> = overview.agents.iter().flat_map(|agent| &agent.cells).collect();
    let busy = cells.iter().filter(|cell| cell.busy).count();
    let telegram = match &overview.telegram {
        TelegramState::Off => "Telegram off: no token".to_owned(),
        TelegramState::Connecting => "Telegram connecting".to_owned(),
        TelegramState::Online { bot, .. } => format!("Telegram @{bot}"),
        TelegramState::Failing { error, .. } => format!("Telegram failing: {error}"),
        TelegramState::Rejected => "Telegram refused the token".to_owned(),
    };
    format!(
        "{telegram}; {} agents, {} cells, {busy} busy, {} waiting; {}",
        overview.agents.len(),
        cells.len(),
        overview.queue.queued,
        overview.machine.tier
    )
}

//! SIGHUP and `skep reload`: agents, owners, limits and egress take effect at once, the rest says that it needs a
//! restart, and a bad file changes nothing and is told to the owner.

use std::sync::Arc;

use tokio::sync::watch;

use crate::agent::chain;
use crate::announce::Announcer;
use crate::broker::Broker;
use crate::config::{self, ConfigErrors, Loaded, Paths, Settings};
use crate::model::{Access, ChatId, Place};
use crate::store::{NewNotice, Store};
use crate::systemd;

/// What a reload acts upon; cheap to clone.
#[derive(Clone)]
pub(super) struct Reload {
    pub paths: Paths,
    pub settings: watch::Sender<Arc<Settings>>,
    pub access: watch::Sender<Access>,
    pub store: Store,
    pub announcer: Announcer,
    pub broker: Broker,
}

/// What a reload did.
#[derive(Debug, Default)]
pub(super) struct Reloaded {
    pub warnings: Vec<String>,
    /// Settings that need a restart.
    pub restart: Vec<String>,
}

impl Reload {
    /// Reloads, and tells the service manager, the log and (of a mistake) the owner.
    pub(super) async fn now(&self) {
        systemd::reloading();
        let applied = self.apply().await;
        for warning in applied.iter().flat_map(|done| &done.warnings) {
            tracing::warn!("{warning}");
        }
        match applied {
            Ok(done) if done.restart.is_empty() => tracing::info!("settings reloaded"),
            Ok(done) => {
                let names = done.restart.join(", ");
                tracing::warn!("settings reloaded; these need a restart: {names}");
                self.tell(format!("Settings reloaded. These need a restart of the service: {names}.")).await;
            }
            Err(errors) => {
                tracing::error!("the settings were not reloaded, the old ones stay: {errors}");
                self.tell(format!(
                    "⚠️ The new settings are not valid; the old ones stay in force.\n\n```\n{errors}\n```"
                ))
                .await;
            }
        }
        systemd::ready("ready");
    }

    /// Reads the file and puts it in force.
    ///
    /// # Errors
    /// Every mistake of the file; nothing has changed then.
    pub(super) async fn apply(&self) -> Result<Reloaded, ConfigErrors> {
        let Loaded { settings, warnings } = config::load(&self.paths.config)?;
        let old = self.settings.borrow().clone();
        let restart = old.needs_restart(&settings).into_iter().map(str::to_owned).collect();
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        if let Err(error) = self.renew_credential() {
            warnings.push(error);
        }
        match self.store.owners().await {
            Ok(paired) => {
                let owners = settings.telegram.owners.iter().copied().chain(paired).collect();
                self.access.send_modify(|access| access.owners = owners);
            }
            Err(error) => {
                // Who is answered stays as it was: an owner shut out would lose what they send meanwhile.
                tracing::error!(error = &error as &dyn std::error::Error, "paired owners cannot be read");
            }
        }
        self.settings.send_replace(Arc::new(settings));
        Ok(Reloaded { warnings, restart })
    }

    /// Takes up a model credential that was replaced on disk: the next request of every cell has it.
    fn renew_credential(&self) -> Result<(), String> {
        let credentials = super::read_credentials(&self.paths).map_err(|error| chain(&error))?;
        self.broker.set_credential(credentials.model).map_err(|error| chain(&error))
    }

    /// A notice in every owner's private chat.
    async fn tell(&self, text: String) {
        let owners: Vec<_> = self.access.borrow().owners.iter().copied().collect();
        for owner in owners {
            // A private chat has its user's id.
            let chat = ChatId(owner.0);
            let notice = NewNotice {
                chat,
                thread: None,
                reply_to: None,
                run: None,
                agent: None,
                text: text.clone(),
                buttons: Vec::new(),
            };
            match self.store.add_notices(None, vec![notice]).await {
                Ok(()) => self.announcer.deliver(&Place::Telegram { chat, thread: None }).await,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the owner cannot be told")
                }
            }
        }
    }
}

//! Everything that runs at once: made here in order, joined by channels, ended in reverse.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_sandbox::Launcher;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::answers::Answers;
use super::chat::{self, Chat};
use super::reload::Reload;
use super::{DaemonError, machine};
use crate::agent::{Agents, Arrival, Cells, Context, Registry};
use crate::announce::Announcer;
use crate::broker::Broker;
use crate::claude::CredentialKind;
use crate::config::{Credential, Credentials, Paths, Settings};
use crate::control::ControlServer;
use crate::inbox::Inbox;
use crate::model::{Access, Overview, TelegramState};
use crate::overview::Observer;
use crate::router::Router;
use crate::status::StatusPage;
use crate::store::Store;
use crate::systemd;

/// What was made before the runtime.
pub(super) struct Parts {
    pub paths: Paths,
    pub settings: Settings,
    pub credentials: Credentials,
    pub control: ControlServer,
    pub launcher: Arc<Launcher>,
    pub store: Store,
}

/// Items the router may have waiting.
const ROUTER_BACKLOG: usize = 64;
/// Requests of the command line that may wait.
const CALLS: usize = 16;
/// All of the shutdown, of which the agents have the larger part. Below the unit's TimeoutStopSec.
const SHUTDOWN: Duration = Duration::from_secs(15);
/// Old rows are forgotten this often.
const SWEEP: Duration = Duration::from_secs(24 * 3600);

/// The actors whose death ends the daemon.
struct Actors {
    agents: JoinHandle<()>,
    router: JoinHandle<()>,
    chat: Chat,
    control: JoinHandle<()>,
    page: Option<JoinHandle<()>>,
    overview: JoinHandle<()>,
}

/// Starts everything, says READY, and serves until told to stop.
#[expect(
    clippy::too_many_lines,
    reason = "the one list of every actor and channel; a reader wants it in one piece"
)]
pub(super) async fn serve(parts: Parts) -> Result<(), DaemonError> {
    let Parts { paths, settings, credentials, control, launcher, store } = parts;
    let mut signals = Signals::new()?;
    let broker =
        Broker::new(&settings.claude.upstream, credentials.model.clone()).map_err(DaemonError::Broker)?;
    let paired = store.owners().await.map_err(DaemonError::Store)?;
    let owners = settings.telegram.owners.iter().copied().chain(paired).collect();
    let access = watch::Sender::new(Access { owners, pairing: None });
    let page = match &settings.status {
        Some(status) => Some(StatusPage::bind(status).await.map_err(DaemonError::Status)?),
        None => None,
    };
    let machine = watch::Sender::new(machine::describe(&launcher));
    let (settings_in, settings) = watch::channel(Arc::new(settings));
    let (announcer, to_chat) = Announcer::new();
    let registry = Registry::default();
    let telegram = watch::Sender::new(TelegramState::Off);
    let observer = Observer {
        store: store.clone(),
        registry: registry.clone(),
        settings: settings.clone(),
        telegram: telegram.subscribe(),
        machine: machine.subscribe(),
        started_at: now(),
    };
    let overview = watch::Sender::new(Arc::new(Overview::default()));
    let program = settings.borrow().claude.program.clone();
    let cells =
        Cells::new(Arc::clone(&launcher), broker.clone(), store.clone(), paths.agents.clone(), program);
    let context = Arc::new(Context {
        store: store.clone(),
        cells: cells.clone(),
        credential: credentials.model.as_ref().map(kind),
        settings: settings.clone(),
        announcer: announcer.clone(),
        registry,
        launches: Semaphore::new(1),
    });
    let (agents, agents_task) = Agents::start(context);
    let (to_router, from_inbox) = mpsc::channel(ROUTER_BACKLOG);
    let router = Router {
        store: store.clone(),
        agents: agents.clone(),
        settings: settings.clone(),
        observer: observer.clone(),
        access: access.clone(),
        announcer: announcer.clone(),
    };
    let bot = chat::bot(&credentials);
    let inbox = Inbox::new(store.clone(), to_router, chat::decoder(&access, &bot, &settings));
    resume(&store, &agents, &inbox).await?;
    let chat = Chat::start(chat::Link {
        credentials: &credentials,
        api_url: &settings.borrow().telegram.api_url.clone(),
        store: &store,
        inbox: &inbox,
        access: &access,
        state: telegram,
        bot,
        to_chat,
    })
    .await?;
    let (calls_in, calls) = mpsc::channel(CALLS);
    let reload = Reload {
        paths: paths.clone(),
        settings: settings_in,
        access: access.clone(),
        store: store.clone(),
        announcer: announcer.clone(),
        broker: broker.clone(),
    };
    let answers = Answers {
        observer: observer.clone(),
        inbox,
        announcer,
        agents: agents.clone(),
        access,
        cells: cells.clone(),
        reload: reload.clone(),
    };
    let page_address = page.as_ref().map(StatusPage::address);
    let actors = Actors {
        router: tokio::spawn(router.run(from_inbox)),
        agents: agents_task,
        chat,
        control: tokio::spawn(answers.run(control, calls_in, calls)),
        page: page.map(|page| tokio::spawn(page.serve(overview.subscribe()))),
        overview: tokio::spawn(observer.publish(overview)),
    };
    tokio::spawn(super::exec::probe_claude(cells, settings, machine));
    if let Some(address) = page_address {
        tracing::info!("status page at http://{address}/");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), cells = %launcher.tier(), "ready");
    systemd::ready("ready");
    let mut served = Served { store, launcher, reload, actors };
    let ended = served.until_told(&mut signals).await;
    systemd::stopping();
    served.shut_down(&agents).await;
    ended
}

/// Takes up what an earlier life left: runs first, then what was not routed; both in their order.
async fn resume(store: &Store, agents: &Agents, inbox: &Inbox) -> Result<(), DaemonError> {
    store.forget_old().await.map_err(DaemonError::Store)?;
    let runs = store.unfinished_runs().await.map_err(DaemonError::Store)?;
    if !runs.is_empty() {
        tracing::info!(count = runs.len(), "taking up unfinished runs");
    }
    let (agents, inbox) = (agents.clone(), inbox.clone());
    // Not awaited: the queues are bounded, and their readers start after this.
    tokio::spawn(async move {
        for run in runs {
            agents.prompt(run, Arrival::Recovered).await;
        }
        match inbox.replay().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "routing what was stored and not routed"),
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot read the inbox"),
        }
    });
    Ok(())
}

struct Served {
    store: Store,
    launcher: Arc<Launcher>,
    reload: Reload,
    actors: Actors,
}

impl Served {
    /// Waits for the first reason to end.
    async fn until_told(&mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        let death = watch_helper(&self.launcher)?;
        let mut watchdog = Watchdog::new();
        let mut sweep = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP, SWEEP);
        let actors = &mut self.actors;
        loop {
            tokio::select! {
                biased;
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.hangup.recv() => self.reload.now().await,
                _ = death.readable() => return Err(DaemonError::PartEnded("the sandbox helper")),
                _ = &mut actors.agents => return Err(DaemonError::PartEnded("the agents' supervisor")),
                _ = &mut actors.router => return Err(DaemonError::PartEnded("the router")),
                part = actors.chat.ended() => return Err(DaemonError::PartEnded(part)),
                _ = &mut actors.control => return Err(DaemonError::PartEnded("the control socket")),
                _ = &mut actors.overview => return Err(DaemonError::PartEnded("the overview")),
                _ = page_ended(&mut actors.page) => return Err(DaemonError::PartEnded("the status page")),
                () = watchdog.due() => watchdog.prove(&self.store).await?,
                _ = sweep.tick() => {
                    if let Err(error) = self.store.forget_old().await {
                        tracing::warn!(error = &error as &dyn std::error::Error, "old rows stay");
                    }
                }
            }
        }
    }

    /// Nothing new comes in, running turns get a few seconds, answers that are ready are sent, all within a deadline.
    async fn shut_down(self, agents: &Agents) {
        let orderly = async {
            self.actors.chat.stop_polling();
            self.actors.control.abort();
            agents.shutdown().await;
            self.actors.chat.flush().await;
        };
        if tokio::time::timeout(SHUTDOWN, orderly).await.is_err() {
            tracing::warn!("not everything ended in {SHUTDOWN:?}; the rest is taken up at the next start");
        }
        tracing::info!("stopped");
    }
}

/// Becomes readable when the helper ends.
#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may lie about their descriptor; this one cannot"
)]
fn watch_helper(launcher: &Launcher) -> Result<AsyncFd<BorrowedFd<'_>>, DaemonError> {
    AsyncFd::with_interest(launcher.death_fd(), Interest::READABLE)
        .map_err(|source| DaemonError::Runtime { what: "watch the sandbox helper", source })
}

async fn page_ended(page: &mut Option<JoinHandle<()>>) {
    match page {
        Some(page) => {
            let _ = page.await;
        }
        None => std::future::pending().await,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let listen =
            |kind| signal(kind).map_err(|source| DaemonError::Runtime { what: "take signals", source });
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

/// Proof of life for systemd: only a daemon whose main loop turns and whose database answers gets to ping.
struct Watchdog {
    interval: Option<tokio::time::Interval>,
}

impl Watchdog {
    fn new() -> Self {
        let interval = systemd::watchdog_interval().map(|every| {
            let mut interval = tokio::time::interval(every);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval
        });
        Self { interval }
    }

    async fn due(&mut self) {
        match &mut self.interval {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    async fn prove(&self, store: &Store) -> Result<(), DaemonError> {
        match store.queue().await {
            Ok(_) => systemd::ping(),
            Err(crate::store::StoreError::Gone) => return Err(DaemonError::PartEnded("the database thread")),
            // A full disk is not a hang.
            Err(_) => systemd::ping(),
        }
        Ok(())
    }
}

/// Which placeholder a cell is given.
fn kind(credential: &Credential) -> CredentialKind {
    match credential {
        Credential::ApiKey(_) => CredentialKind::ApiKey,
        Credential::OauthToken(_) => CredentialKind::OauthToken,
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

//! The composition root: makes every actor and every channel, in start order, waits for the first reason to end, and ends
//! them in reverse.
//!
//! Start order: settings and secrets, the control socket (it is the lock that keeps two daemons off one state), the
//! sandbox helper, then every capability is given up, then the store, then the runtime and everything that talks to the
//! outside.
//!
//! Invariant: no thread and no runtime exists before the helper is started and the capabilities are gone.

mod answers;
mod chat;
mod exec;
mod logging;
mod machine;
mod privileges;
mod reload;
mod service;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_sandbox::{LaunchError, Launcher, LauncherConfig};

pub use exec::{ExecError, exec_alone};
pub use privileges::PrivilegeError;

use crate::broker::BrokerError;
use crate::config::{self, ConfigErrors, CredentialError, Credentials, Loaded, Paths};
use crate::control::{ControlError, ControlServer};
use crate::status::StatusError;
use crate::store::{Store, StoreError};
use crate::telegram::SetupError;

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(ConfigErrors),
    /// A secret cannot be used.
    #[error(transparent)]
    Credential(CredentialError),
    /// A directory or file of the state cannot be made.
    #[error("cannot prepare {}", path.display())]
    State {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The control socket cannot be opened.
    #[error("the command line's socket is not to be had")]
    Control(#[source] ControlError),
    /// The sandbox helper does not work.
    #[error("the sandbox helper does not work")]
    Helper(#[source] LaunchError),
    /// Privileges are still held.
    #[error("privileges could not be given up")]
    Privileges(#[source] PrivilegeError),
    /// The database does not work.
    #[error("the database does not work")]
    Store(#[source] StoreError),
    /// The Telegram side cannot be set up.
    #[error("Telegram cannot be set up")]
    Telegram(#[source] SetupError),
    /// The model API cannot be served.
    #[error("the model API cannot be served to cells")]
    Broker(#[source] BrokerError),
    /// The status page cannot be served.
    #[error("the status page cannot be served")]
    Status(#[source] StatusError),
    /// The runtime or its signals cannot be set up.
    #[error("cannot {what}")]
    Runtime {
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A part of the daemon ended by itself: a defect, or the helper was killed. The service manager starts us again.
    #[error("{0} ended unexpectedly")]
    PartEnded(&'static str),
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// See [`DaemonError`]: nothing is half done, and whatever was accepted is in the database.
pub fn run(paths: Paths) -> Result<(), DaemonError> {
    logging::init();
    let loaded = config::load(&paths.config).map_err(DaemonError::Settings)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let credentials = read_credentials(&paths)?;
    for warning in &credentials.warnings {
        tracing::warn!("{warning}");
    }
    prepare_state(&paths)?;
    let control = ControlServer::bind(&paths.control).map_err(DaemonError::Control)?;
    let launcher = start_helper(&paths)?;
    privileges::drop_all().map_err(DaemonError::Privileges)?;
    // Harmless where the library has chosen already; teloxide's next release needs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = Store::open(&paths.database).map_err(DaemonError::Store)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| DaemonError::Runtime { what: "start the runtime", source })?;
    let Loaded { settings, .. } = loaded;
    let parts = service::Parts { paths, settings, credentials, control, launcher: Arc::new(launcher), store };
    let ended = runtime.block_on(service::serve(parts));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

fn read_credentials(paths: &Paths) -> Result<Credentials, DaemonError> {
    let given = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    config::credentials::load(given.as_deref(), &paths.credentials).map_err(DaemonError::Credential)
}

/// Makes the directories that only this user may look into, and the canary.
fn prepare_state(paths: &Paths) -> Result<(), DaemonError> {
    for path in [&paths.state, &paths.agents] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
        made.map_err(|source| DaemonError::State { path: path.clone(), source })?;
    }
    let canary = canary(paths);
    let written = fs::write(
        &canary,
        "A cell that can read this is not sealed; Skep refuses to start anything in it.\n",
    )
    .and_then(|()| fs::set_permissions(&canary, fs::Permissions::from_mode(0o644)));
    written.map_err(|source| DaemonError::State { path: canary, source })
}

fn canary(paths: &Paths) -> PathBuf {
    paths.state.join("canary")
}

fn start_helper(paths: &Paths) -> Result<Launcher, DaemonError> {
    let config = LauncherConfig {
        cgroup: machine::delegated_cgroup(),
        canary: Some(canary(paths)),
        ..LauncherConfig::new(helper())
    };
    Launcher::start(config).map_err(DaemonError::Helper)
}

/// The helper beside our own program (a source tree's `target` directory), else the installed one.
fn helper() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("skep-sandbox")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| Path::new("/usr/lib/skep/skep-sandbox").to_owned())
}

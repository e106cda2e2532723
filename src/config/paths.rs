//! Where everything is, for the installed service and for a developer's tree.

use std::path::{Path, PathBuf};

/// The places one daemon and its command line use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The settings file.
    pub config: PathBuf,
    /// What lasts: the database and the agents' directories.
    pub state: PathBuf,
    /// The SQLite file.
    pub database: PathBuf,
    /// `NAME/{workspace,home,AGENT.md}` below it.
    pub agents: PathBuf,
    /// What does not outlive the daemon.
    pub run: PathBuf,
    /// The command line's door.
    pub control: PathBuf,
    /// Files with secrets, for a daemon that systemd gave none.
    pub credentials: PathBuf,
    /// The `--state` directory, when there is one: how a message tells the owner to start this very daemon.
    pub developer: Option<PathBuf>,
}

impl Paths {
    /// The places of the installed service.
    #[must_use]
    pub fn installed() -> Self {
        Self {
            config: "/etc/skep/skep.toml".into(),
            state: "/var/lib/skep".into(),
            database: "/var/lib/skep/skep.db".into(),
            agents: "/var/lib/skep/agents".into(),
            run: "/run/skep".into(),
            control: "/run/skep/control.sock".into(),
            credentials: "/etc/skep/credentials".into(),
            developer: None,
        }
    }

    /// The same tree under one directory.
    #[must_use]
    pub fn under(state: &Path) -> Self {
        Self {
            config: state.join("skep.toml"),
            state: state.to_owned(),
            database: state.join("skep.db"),
            agents: state.join("agents"),
            run: state.join("run"),
            control: state.join("run/control.sock"),
            credentials: state.join("credentials"),
            developer: Some(state.to_owned()),
        }
    }

    /// The same places with another settings file.
    #[must_use]
    pub fn with_config(self, config: PathBuf) -> Self {
        Self { config, ..self }
    }

    /// The command that starts this daemon.
    #[must_use]
    pub fn start_command(&self) -> String {
        match &self.developer {
            Some(state) => format!("skep daemon --state {}", state.display()),
            None => "sudo systemctl start skep".to_owned(),
        }
    }
}

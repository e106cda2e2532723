//! Why a command failed, and the exit code that says so (sysexits.h).

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::terminal::plain;
use crate::config::ConfigErrors;
use crate::config::password::PasswordError;
use crate::control::ControlError;
use crate::daemon::{DaemonError, ExecError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What was given to it cannot be used.
    #[error("{0}")]
    Data(String),
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Nobody answers at the control socket.
    #[error("the skep daemon is not running (nobody answers at {}); start it: {start}", socket.display())]
    NotRunning {
        /// The control socket.
        socket: PathBuf,
        /// The command that starts it.
        start: String,
    },
    /// The control socket is closed to this user.
    #[error("you may not open {}; use sudo, or join the group skep and log in again", .0.display())]
    Denied(PathBuf),
    /// The daemon said no.
    #[error("{message}; {fix}")]
    Refused {
        /// What failed.
        message: String,
        /// What to do about it.
        fix: String,
    },
    /// The agent's run failed. `fix` may be empty.
    #[error("{what}{}{fix}", if fix.is_empty() { "" } else { "; " })]
    RunFailed {
        /// What failed.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// Some of the messages of a piped conversation failed; each was told when it happened.
    #[error("{0} of the messages failed")]
    SomeFailed(usize),
    /// The run was stopped.
    #[error("the run was stopped")]
    Stopped,
    /// The connection broke before the last reply.
    #[error("the daemon went away; what it accepted is kept and goes on when it is back: {start}")]
    WentAway {
        /// The command that starts it.
        start: String,
    },
    /// The daemon answered something this program cannot read.
    #[error("the daemon answers in another version's words; restart it: sudo systemctl restart skep")]
    Protocol(#[source] serde_json::Error),
    /// A system call failed.
    #[error("cannot {operation}")]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The reader of our output has left (`skep runs | head`): nothing to complain about.
    #[error("nobody reads the output")]
    OutputClosed,
    /// No hash could be made.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The daemon ended by an error.
    #[error("the daemon failed")]
    Daemon(#[source] DaemonError),
    /// A command could not be run in a cell.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        match error {
            // In the words and with the exit code of `skep check`.
            DaemonError::Settings(errors) => Self::Config(errors),
            other => Self::Daemon(other),
        }
    }
}

impl CliError {
    /// The exit code, as in sysexits.h.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Usage(_) => 64,
            Self::Data(_) => 65,
            Self::NotRunning { .. } => 69,
            Self::Refused { .. } | Self::RunFailed { .. } | Self::SomeFailed(_) => 70,
            Self::Daemon(error) | Self::Exec(ExecError::Daemon(error)) => daemon_code(error),
            Self::Exec(ExecError::NoAgent(_)) => 64,
            Self::Password(_) | Self::Exec(ExecError::Cell(_)) => 70,
            Self::Io { .. } => 74,
            Self::Stopped | Self::WentAway { .. } => 75,
            Self::Protocol(_) => 76,
            Self::Denied(_) => 77,
            Self::Config(_) => 78,
        }
    }

    /// The error and its causes, outermost first, fit for a terminal.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut chain = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            cause = error.source();
        }
        plain(&chain)
    }

    /// For `map_err`: a failed system call by what was to be done. A closed output is no failure.
    pub(super) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Io { operation, source },
        }
    }
}

/// What the service manager, and a person, can tell from the daemon's exit code.
fn daemon_code(error: &DaemonError) -> u8 {
    match error {
        DaemonError::Settings(_) | DaemonError::Credential(_) => 78,
        DaemonError::Control(ControlError::Running(_)) | DaemonError::PartEnded(_) => 75,
        DaemonError::State { .. } => 73,
        DaemonError::Status(_) | DaemonError::Helper(_) => 69,
        _ => 70,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_is_not_running_is_unavailable_and_the_fix_is_named() {
        let error = CliError::NotRunning {
            socket: "/run/skep/control.sock".into(),
            start: "sudo systemctl start skep".to_owned(),
        };
        assert_eq!(error.exit_code(), 69);
        assert_eq!(
            error.to_string(),
            "the skep daemon is not running (nobody answers at /run/skep/control.sock); \
             start it: sudo systemctl start skep"
        );
    }

    #[test]
    fn a_failed_run_without_a_remedy_ends_without_a_semicolon() {
        let failed =
            |fix: &str| CliError::RunFailed { what: "no".to_owned(), fix: fix.to_owned() }.to_string();
        assert_eq!((failed(""), failed("try")), ("no".to_owned(), "no; try".to_owned()));
    }
}

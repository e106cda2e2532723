//! stub of the composition root, for the command line to call.

use crate::config::Paths;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Not written yet.
    #[error("the daemon is not written yet")]
    Stub,
}

/// Runs the daemon until it is stopped.
///
/// # Errors
/// Always, until it is written.
pub fn run(_paths: Paths) -> Result<(), DaemonError> {
    Err(DaemonError::Stub)
}

//! The durable state: one SQLite file, one thread that owns its only connection.
//!
//! Called by everything above layer 1 that must remember. Each table has one file with its SQL beside its struct.
//!
//! Invariants:
//! - Every public call is one transaction; when it returns `Ok` the change is on disk (`synchronous=FULL`).
//! - A change of two tables that only makes sense together is one call.
//! - The file has small pages (512 bytes): a commit writes whole pages, and flash wears (design.md section 4).

mod conversations;
mod inbox;
mod migrate;
mod outbox;
mod owners;
mod runs;
#[cfg(test)]
mod tests;
mod usage;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

pub use conversations::Conversation;
pub use inbox::{AcceptedUpdate, InboxRow};
pub use outbox::{Last, NewNotice, OutboxKind, OutboxRow, OutboxState};
pub use runs::{Cancelling, Ending, NewRun, Run};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or prepared.
    #[error("cannot open the database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by a newer Skep.
    #[error(
        "the database {} has format {found}, this Skep knows {known}: install the newer Skep again, \
         or restore a backup made by this version", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The highest this program knows.
        known: i64,
    },
    /// A statement failed.
    #[error("the database refused to {operation}")]
    Sql {
        /// What was to be done, as the end of "refused to".
        operation: &'static str,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The thread that owns the connection has ended.
    #[error("the database thread has ended")]
    Gone,
}

impl StoreError {
    /// Whether waiting may help: the disk is full or the medium failed, and nothing was changed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        matches!(self, Self::Sql { source, .. } if matches!(
            source.sqlite_error_code(),
            Some(DiskFull | SystemIoFailure | CannotOpen | DatabaseBusy | DatabaseLocked)
        ))
    }
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the store; clones share the thread, which ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

/// Requests that may wait for the connection: enough for every actor, small enough to push back.
const WAITING: usize = 64;

impl Store {
    /// Opens or creates the file, brings it to this version's format and starts the thread.
    ///
    /// # Errors
    /// [`StoreError::Open`], or [`StoreError::Newer`] when a newer Skep wrote it; the file is then untouched.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = migrate::open(path)?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING);
        let thread = std::thread::Builder::new().name("store".to_owned()).stack_size(256 * 1024);
        let spawned = thread.spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut connection);
            }
        });
        spawned.map_err(|_| StoreError::Gone)?;
        Ok(Self { jobs })
    }

    /// Runs `work` as one transaction on the store's thread.
    async fn transact<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .and_then(|transaction| {
                    let value = work(&transaction)?;
                    transaction.commit()?;
                    Ok(value)
                })
                .map_err(|source| StoreError::Sql { operation, source });
            // The caller may have been cancelled; the change stands all the same.
            let _ = reply.send(result);
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Gone)?;
        answer.await.map_err(|_| StoreError::Gone)?
    }

    /// Runs `work` for its answer only.
    async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = reply.send(work(connection).map_err(|source| StoreError::Sql { operation, source }));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Gone)?;
        answer.await.map_err(|_| StoreError::Gone)?
    }
}

/// Seconds since the epoch by the wall clock, 0 for a clock before it.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

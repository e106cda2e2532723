//! Opening the file and bringing it to this version's format: a list of steps counted by `user_version`.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// One SQL script per format; the first makes an empty file format 1. Never edit one that was released.
const STEPS: &[&str] = &[include_str!("schema_1.sql")];

/// Opens `path`, refuses a newer format, applies the steps that are missing in one transaction each.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let fail = |source| StoreError::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail)?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if found > known || found < 0 {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    prepare(&connection).map_err(fail)?;
    for (format, step) in (1..).zip(STEPS).skip(usize::try_from(found).unwrap_or(0)) {
        let transaction = connection.transaction().map_err(fail)?;
        transaction.execute_batch(step).map_err(fail)?;
        transaction.pragma_update(None, "user_version", format).map_err(fail)?;
        transaction.commit().map_err(fail)?;
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    // Only an empty file takes the page size; a later file keeps its own.
    connection.pragma_update(None, "page_size", 512)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -256)?; // KiB
    // Checkpoints copy each changed page once, however often it changed: rare ones write less. 4 MiB of log at most.
    connection.pragma_update(None, "wal_autocheckpoint", 8192)?;
    connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
    Ok(())
}

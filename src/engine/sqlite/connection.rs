//! One connection: how it is opened and set up, and the few statements that frame a transaction.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::config::Synchronous;

use super::error::SqlResult;

/// How long SQLite itself waits for a lock before the thread looks at its deadlines again.
const LOCK_SLICE: Duration = Duration::from_millis(100);

/// What a write-ahead log is cut to when it begins anew: twice what it grows to as long as no reader is in the way.
pub(super) const LOG_KEPT_BYTES: u64 = 32 << 20;

/// Page cache of a connection in KiB; SQLite takes kibibytes as a negative number.
const CACHE_SIZE: i64 = -16 * 1024;

/// Room for every statement of a backend, so that none is compiled twice.
const CACHED_STATEMENTS: usize = 64;

/// Opens a file that exists. It is not made here, and its path is not read as a `file:` address.
pub(super) fn open(path: &Path) -> SqlResult<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_SLICE)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Sets up the connection that writes.
pub(super) fn set_up_writer(connection: &Connection, synchronous: Synchronous) -> SqlResult<()> {
    let level = match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", level)?;
    // On Apple's systems an fsync alone does not reach the disk; elsewhere these two change nothing.
    connection.pragma_update(None, "fullfsync", synchronous == Synchronous::Full)?;
    connection.pragma_update(None, "checkpoint_fullfsync", synchronous == Synchronous::Full)?;
    connection.pragma_update(None, "cache_size", CACHE_SIZE)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_KEPT_BYTES as i64, |_| Ok(()))?;
    Ok(())
}

/// Sets up a connection that only reads.
///
/// It is opened for writing nonetheless: the first connection after a crash must be able to recover the log.
pub(super) fn set_up_reader(connection: &Connection) -> SqlResult<()> {
    connection.pragma_update(None, "cache_size", CACHE_SIZE)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(())
}

/// Runs a statement that takes and answers nothing.
pub(super) fn execute(connection: &Connection, statement: &'static str) -> SqlResult<()> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

/// Undoes the open transaction, if SQLite has not done so by itself.
pub(super) fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = execute(connection, "ROLLBACK")
    {
        tracing::error!(%error, "a SQLite transaction could not be rolled back");
    }
}

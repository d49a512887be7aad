//! The write-ahead log beside the file, kept from growing without end.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connection::LOG_LIMIT_BYTES;
use super::file::DatabaseFile;

/// How long nobody must have written before the log is moved into the file and cut.
const REST: Duration = Duration::from_secs(1);

/// Watches the log.
///
/// SQLite moves the log into the file at commits by itself, but begins it anew only when no reader is in it at that very
/// moment. Under reads without a pause it would grow for ever.
pub(super) struct Log {
    path: PathBuf,
    last_write: Option<Instant>,
    /// The length that calls for a cut; raised when readers were in the way, so that writes are not held up each time.
    limit: u64,
}

impl Log {
    pub(super) fn new(file: &DatabaseFile) -> Self {
        let mut path = OsString::from(file.path());
        path.push("-wal");
        Self { path: PathBuf::from(path), last_write: Some(Instant::now()), limit: LOG_LIMIT_BYTES }
    }

    /// When [`Log::rest`] should be called if nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.last_write.map(|last| last + REST)
    }

    /// Notes a commit, and cuts the log if it has become too long.
    pub(super) fn written(&mut self, connection: &Connection) {
        self.last_write = Some(Instant::now());
        let length = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length > self.limit {
            self.limit = if cut(connection) { LOG_LIMIT_BYTES } else { length.saturating_add(LOG_LIMIT_BYTES) };
        }
    }

    /// Cuts the log after a while without writes.
    pub(super) fn rest(&mut self, connection: &Connection) {
        if self.due().is_some_and(|due| due <= Instant::now()) {
            cut(connection);
            self.last_write = None;
        }
    }
}

/// Moves the log into the file and empties it; `false` if a reader or another process was in the way.
fn cut(connection: &Connection) -> bool {
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    match busy {
        Ok(busy) => !busy,
        Err(error) => {
            tracing::warn!(%error, "the write-ahead log of the SQLite database could not be moved into the file");
            false
        }
    }
}

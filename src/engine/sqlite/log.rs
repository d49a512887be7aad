//! The write-ahead log beside the file: moved into it from time to time, then used anew, and kept from growing without end.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connection::LOG_KEPT_BYTES;
use super::file::DatabaseFile;

/// Pages in the log that are moved into the file together: 16 MiB. SQLite's own 1000 would make every larger group pay for it.
const CHECKPOINT_PAGES: u32 = 4096;

/// Pages to wait for between two attempts when a reader was in the log, so that it could not begin anew: 4 MiB.
const RETRY_PAGES: u32 = 1024;

/// Pages at which the writer waits for readers to leave the log: 64 MiB.
const CROWDED_PAGES: u32 = 4 * CHECKPOINT_PAGES;

/// How long nobody must have written before the log is moved into the file, whatever its length.
const REST: Duration = Duration::from_secs(1);

thread_local! {
    /// Pages in the log after the last commit of this thread, which is the writer's, if [`Log`] has not taken note of it yet.
    static PAGES: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Watches the log.
///
/// A commit into a log that has room costs half of one that makes it longer, because the file system need not force a new
/// length to the disk. So the log is not cut but used anew, which SQLite does at the first commit after all of it was
/// moved and no reader is in it. It is moved after the callers have their answers. Under reads without a pause it would
/// grow for ever, so the writer waits for them at last.
pub(super) struct Log {
    path: PathBuf,
    last_write: Option<Instant>,
    pages: u32,
    /// The length at which to move it next.
    limit: u32,
}

impl Log {
    pub(super) fn new(file: &DatabaseFile, connection: &Connection) -> Self {
        let mut path = OsString::from(file.path());
        path.push("-wal");
        // In the place of SQLite's own hook, which would move the log before a commit is answered.
        connection.wal_hook(Some(|_, pages| {
            PAGES.set(u32::try_from(pages).ok());
            Ok(())
        }));
        Self { path: PathBuf::from(path), last_write: Some(Instant::now()), pages: 0, limit: CHECKPOINT_PAGES }
    }

    /// When [`Log::rest`] should be called if nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.last_write.map(|last| last + REST)
    }

    /// Notes a commit, if there was one, and moves the log if it has become long.
    pub(super) fn written(&mut self, connection: &Connection) {
        let Some(pages) = PAGES.take() else { return };
        self.last_write = Some(Instant::now());
        let before = std::mem::replace(&mut self.pages, pages);
        if pages < before {
            self.limit = CHECKPOINT_PAGES;
        }
        if pages < self.limit {
            return;
        }
        let pause = if pages < CROWDED_PAGES {
            checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)");
            RETRY_PAGES
        } else if checkpoint(connection, "PRAGMA wal_checkpoint(RESTART)") {
            RETRY_PAGES
        } else {
            // So that writes are not held up each time.
            CROWDED_PAGES
        };
        self.limit = pages.saturating_add(pause);
    }

    /// Moves the log after a while without writes, and cuts one that has become too long.
    pub(super) fn rest(&mut self, connection: &Connection) {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        let length = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let too_long = length > LOG_KEPT_BYTES;
        checkpoint(
            connection,
            if too_long { "PRAGMA wal_checkpoint(TRUNCATE)" } else { "PRAGMA wal_checkpoint(PASSIVE)" },
        );
        self.last_write = None;
    }
}

/// Moves the log into the file as far as the kind of checkpoint says; `false` if a reader or another process was in the way.
fn checkpoint(connection: &Connection, statement: &'static str) -> bool {
    let outcome =
        connection.prepare_cached(statement).and_then(|mut pragma| pragma.query_row([], |row| row.get::<_, bool>(0)));
    match outcome {
        Ok(busy) => !busy,
        Err(error) => {
            tracing::warn!(%error, "the write-ahead log of the SQLite database could not be moved into the file");
            false
        }
    }
}

//! The journals of dead processes: found, locked, and looked through.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, OpenFlags};

use crate::engine::sqlite::{SqlError, SqlResult};
use crate::error::{Error, Result};

use super::acceptance;
use super::disk::is_disk_full;
use super::files;
use super::layout;
use super::lock::OwnerLock;
use super::operation::Meta;
use super::record::{HEADER_COLUMNS, header};
use super::reserve::Reserve;
use super::table;

/// How long to wait for a tool that looks into the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A journal whose owner is dead.
#[derive(Debug)]
pub(super) enum Dead {
    /// It is whole; it is ours to take over now.
    Readable(Box<Candidate>),
    /// It cannot be read, and is left as it is.
    Unreadable { path: PathBuf, error: Error },
}

/// A journal to take over, locked.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    /// What its process knew, or was to take for known.
    pub(super) meta: Meta,
    pub(super) operations: u64,
    /// Who gave the stamps of the process that had it.
    pub(super) writer: Option<u64>,
    // Given back last.
    pub(super) lock: OwnerLock,
}

/// Finds the journals of dead processes, but for those that are known.
pub(super) fn dead(folder: &Path, known: &HashSet<PathBuf>) -> Result<Vec<Dead>> {
    let (journals, orphans) = files::list(folder)?;
    for lock in orphans {
        remove_orphan(&lock);
    }
    let unknown = journals.into_iter().filter(|path| !known.contains(path));
    Ok(unknown.filter_map(look).collect())
}

/// Removes what is left of a journal that somebody was about to remove when they died.
fn remove_orphan(lock: &Path) {
    let journal = lock.with_extension("db");
    if let Ok(Some(lock)) = files::lock(&journal)
        && !journal.exists()
        && let Err(error) = files::remove_journal(&journal, &lock)
    {
        tracing::debug!(%error, "what is left of a removed journal stays");
    }
}

fn look(path: PathBuf) -> Option<Dead> {
    let lock = match files::lock(&path) {
        Ok(lock) => lock?,
        Err(error) => return Some(Dead::Unreadable { path, error }),
    };
    if !path.exists() {
        return None;
    }
    let mut found = read(&path).map_err(SqlError::into_error);
    if found.as_ref().is_err_and(is_disk_full) {
        // Beside a file that was closed in order SQLite must make its own anew, and the room for that was kept.
        Reserve::of(&path).give_way();
        found = read(&path).map_err(SqlError::into_error);
    }
    Some(match found {
        Ok(Contents { connection, meta, operations, writer }) => {
            Dead::Readable(Box::new(Candidate { path, connection, meta, operations, writer, lock }))
        }
        Err(error) => Dead::Unreadable { path, error },
    })
}

/// A journal that was read.
struct Contents {
    connection: Connection,
    meta: Meta,
    operations: u64,
    writer: Option<u64>,
}

/// Reads the whole file, so that one which is damaged is found out before it is relied on.
fn read(path: &Path) -> SqlResult<Contents> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // An absolute path is neither a `file:` address nor one of SQLite's special names.
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::unavailable("the path of a journal cannot be made absolute").with_source(error))?;
    let connection = Connection::open_with_flags(absolute, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    if layout::format(&connection)? == 0 {
        return Ok(Contents { connection, meta: Meta::default(), operations: 0, writer: None });
    }
    if connection.is_readonly(MAIN_DB)? {
        let why = "the journal cannot be written; let this user write it, so that what it holds is replayed";
        return Err(SqlError::from(Error::unavailable(why).permanent()));
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        let why = "the journal is damaged; `sqlite3 FILE .recover` may save what it holds";
        return Err(SqlError::from(Error::corrupt(why)));
    }
    let mut operations = 0;
    table::scan(&connection, HEADER_COLUMNS, 0, usize::MAX, |row| {
        header(row)?;
        operations += 1;
        Ok(true)
    })?;
    let transaction = connection.unchecked_transaction()?;
    layout::migrate(&transaction)?;
    transaction.commit()?;
    let (mut meta, writer) = (table::meta(&connection)?, table::writer(&connection)?);
    // It was told, and died before it heard.
    meta.identity = acceptance::announced(path).or(meta.identity);
    Ok(Contents { connection, meta, operations, writer })
}

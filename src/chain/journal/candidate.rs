//! The journals of dead processes: found, locked, and looked through.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, OpenFlags};

use crate::engine::sqlite::{SqlError, SqlResult};
use crate::error::{Error, Result};

use super::acceptance::{self, Word};
use super::disk::is_disk_full;
use super::files::{self, Looking};
use super::import;
use super::layout;
use super::lock::OwnerLock;
use super::operation::Meta;
use super::record::{HEADER_COLUMNS, header};
use super::reserve::Reserve;
use super::table;

/// How often, and how soon, a journal that somebody has is looked at again: they may only look whether it is owned.
const ROUNDS: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

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
    /// Whether it holds any operations.
    pub(super) owes: bool,
    /// How many they are, once it was read whole.
    pub(super) operations: u64,
    /// Who gave the stamps of the process that had it.
    pub(super) writer: Option<u64>,
    /// The marks of the files that were copied into it, and may still be there.
    pub(super) copied: Vec<String>,
    /// What its process was to take for known, if it was told.
    pub(super) word: Option<Word>,
    // Given back last.
    pub(super) lock: OwnerLock,
}

impl Dead {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Readable(candidate) => &candidate.path,
            Self::Unreadable { path, .. } => path,
        }
    }
}

impl Candidate {
    /// What tells that it was copied as it is.
    pub(super) fn mark(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        import::mark_of(&name, self.writer, self.meta.clock_reserve)
    }

    /// Reads the whole file, so that one which is damaged is found out before it is relied on.
    pub(super) fn check(&mut self) -> Result<()> {
        self.operations = check(&self.connection).map_err(SqlError::into_error)?;
        Ok(())
    }
}

/// Finds the journals of dead processes, but for those that are known, for one that uses an address. Nobody else may look meanwhile.
pub(super) fn dead(
    _looking: &Looking,
    folder: &Path,
    known: &HashSet<PathBuf>,
    address: Option<&str>,
) -> Result<Vec<Dead>> {
    let (journals, orphans) = files::list(folder)?;
    for lock in orphans {
        remove_orphan(&lock);
    }
    let mut owned: Vec<PathBuf> = journals.into_iter().filter(|path| !known.contains(path)).collect();
    let mut dead = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 && !owned.is_empty() {
            thread::sleep(PAUSE);
        }
        owned.retain(|path| match look(path, address) {
            Looked::Owned => true,
            Looked::Gone => false,
            Looked::Dead(found) => {
                dead.push(found);
                false
            }
        });
    }
    Ok(dead)
}

enum Looked {
    /// Somebody has it.
    Owned,
    /// Somebody has removed it.
    Gone,
    Dead(Dead),
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

fn look(path: &Path, address: Option<&str>) -> Looked {
    let lock = match files::lock_now(path) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Looked::Owned,
        Err(error) => return Looked::Dead(Dead::Unreadable { path: path.to_owned(), error }),
    };
    if !path.exists() {
        return Looked::Gone;
    }
    let mut found = read(path, address).map_err(SqlError::into_error);
    if found.as_ref().is_err_and(is_disk_full) {
        // Beside a file that was closed in order SQLite must make its own anew, and the room for that was kept.
        Reserve::of(path).give_way();
        found = read(path, address).map_err(SqlError::into_error);
    }
    let path = path.to_owned();
    Looked::Dead(match found {
        Ok(Contents { connection, meta, owes, writer, copied, word }) => {
            let operations = 0;
            Dead::Readable(Box::new(Candidate { path, connection, meta, owes, operations, writer, copied, word, lock }))
        }
        Err(error) => Dead::Unreadable { path, error },
    })
}

/// A journal that was read.
struct Contents {
    connection: Connection,
    meta: Meta,
    owes: bool,
    writer: Option<u64>,
    copied: Vec<String>,
    word: Option<Word>,
}

/// Reads what is known beside the operations.
fn read(path: &Path, address: Option<&str>) -> SqlResult<Contents> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // An absolute path is neither a `file:` address nor one of SQLite's special names.
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::unavailable("the path of a journal cannot be made absolute").with_source(error))?;
    let connection = Connection::open_with_flags(absolute, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    if layout::format(&connection)? == 0 {
        return Ok(Contents {
            connection,
            meta: Meta::default(),
            owes: false,
            writer: None,
            copied: Vec::new(),
            word: None,
        });
    }
    if connection.is_readonly(MAIN_DB)? {
        let why = "the journal cannot be written; let this user write it, so that what it holds is replayed";
        return Err(SqlError::from(Error::unavailable(why).permanent()));
    }
    let transaction = connection.unchecked_transaction()?;
    layout::migrate(&transaction)?;
    transaction.commit()?;
    let (mut meta, writer) = (table::meta(&connection)?, table::writer(&connection)?);
    // It was told, and died before it heard.
    let word = acceptance::announced_at(path, address);
    meta.identity = word.as_ref().map(|word| word.identity).or(meta.identity);
    let copied = import::marks(&connection)?;
    let owes = connection.query_row("SELECT EXISTS (SELECT 1 FROM op)", [], |row| row.get(0))?;
    Ok(Contents { connection, meta, owes, writer, copied, word })
}

/// Counts the operations.
pub(super) fn check(connection: &Connection) -> SqlResult<u64> {
    if layout::format(connection)? == 0 {
        return Ok(0);
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        let why = "the journal is damaged; `sqlite3 FILE .recover` may save what it holds";
        return Err(SqlError::from(Error::corrupt(why)));
    }
    let mut operations = 0;
    table::scan(connection, HEADER_COLUMNS, 0, usize::MAX, |row| {
        header(row)?;
        operations += 1;
        Ok(true)
    })?;
    Ok(operations)
}

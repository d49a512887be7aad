//! A journal read from outside: nothing is locked, changed or taken over, whoever owns it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::contract::Identity;
use crate::engine::sqlite::SqlResult;
use crate::error::{Error, Result};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::acceptance;
use super::candidate;
use super::files;
use super::import::newest;
use super::layout;
use super::lock::OwnerLock;
use super::operation::{Exported, Meta};
use super::table;

/// How long to wait for the owner.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many operations of another process's journal are looked at, the newest first.
const LATELY: u32 = 10_000;

/// What a journal holds, in numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Glance {
    /// The form of the file; 0 for one that was only just made.
    pub(crate) format: u32,
    /// How many operations wait.
    pub(crate) pending: u64,
    /// How many were put aside.
    pub(crate) parked: u64,
    /// The oldest stamp of both.
    pub(crate) oldest: Option<Stamp>,
    /// What is known beside them.
    pub(crate) meta: Meta,
}

/// The journals of a folder; none if there is no folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    Ok(files::list(folder)?.0)
}

/// Whether the process that a journal belongs to lives.
pub(crate) fn is_owned(journal: &Path) -> Result<bool> {
    let lock = journal.with_extension("lock");
    OwnerLock::is_held(&lock).map_err(|error| {
        let shown = lock.display();
        Error::unavailable(format!("the lock of a journal cannot be looked at: {shown}: {error}")).with_source(error)
    })
}

/// The bytes of a journal and of its log.
pub(crate) fn bytes(journal: &Path) -> u64 {
    let sizes = [journal.to_owned(), journal.with_extension("db-wal")];
    sizes.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

/// Counts what a journal holds.
///
/// # Errors
///
/// `Config` if it is no journal, or of a newer program; `Corrupt` if it is damaged; `Unavailable` if it cannot be read now.
pub(crate) fn glance(journal: &Path) -> Result<Glance> {
    let look = || {
        let connection = open(journal)?;
        let format = layout::format(&connection)?;
        if format == 0 {
            return Ok(Glance::default());
        }
        let (pending, parked, oldest) = table::counts(&connection)?;
        let meta = table::meta(&connection)?;
        Ok(Glance { format, pending, parked, oldest, meta })
    };
    look().map_err(crate::engine::sqlite::SqlError::into_error)
}

/// Reads a journal whole, and counts what it holds.
///
/// # Errors
///
/// As [`glance`].
pub(super) fn check(journal: &Path) -> Result<u64> {
    open(journal)
        .and_then(|connection| candidate::check(&connection))
        .map_err(crate::engine::sqlite::SqlError::into_error)
}

/// Which database is known to those that use the same address, the dead ones apart: what one of them was told to accept there counts
/// already. Nothing where they know different ones.
pub(super) fn known_by_others(folder: &Path, fingerprint: &str, dead: &HashSet<&Path>) -> Option<Identity> {
    let mut known = None;
    for journal in list(folder).unwrap_or_default().iter().filter(|journal| !dead.contains(journal.as_path())) {
        match meta(journal) {
            Ok(meta) if meta.fingerprint.as_deref() == Some(fingerprint) => {
                let theirs =
                    acceptance::announced_at(journal, Some(fingerprint)).map(|word| word.identity).or(meta.identity);
                if known.zip(theirs).is_some_and(|(known, theirs): (Identity, Identity)| known.id != theirs.id) {
                    return None;
                }
                known = newest(known, theirs);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "it cannot be seen which database another process knows"),
        }
    }
    known
}

/// The newest stamp of what the processes of a folder have lately come to owe, or taken over: what is written now must be newer than what
/// they bring to the database later. And the latest of the moments that they have written down as the end of their stamps.
pub(crate) fn newest_stamps(folder: &Path) -> (Option<Stamp>, Option<Timestamp>) {
    let look = |journal: &Path| -> SqlResult<(Option<Stamp>, Option<Timestamp>)> {
        let connection = open(journal)?;
        if layout::format(&connection)? == 0 {
            return Ok((None, None));
        }
        Ok((table::newest_stamp(&connection, LATELY)?, table::meta(&connection)?.clock_reserve))
    };
    let (mut newest, mut reserve) = (None, None);
    for journal in list(folder).unwrap_or_default() {
        match look(&journal) {
            Ok((stamp, moment)) => (newest, reserve) = (newest.max(stamp), reserve.max(moment)),
            Err(error) => {
                tracing::debug!(error = %error.into_error(), "it cannot be seen what another process owes");
            }
        }
    }
    (newest, reserve)
}

fn meta(journal: &Path) -> Result<Meta> {
    let look = || {
        let connection = open(journal)?;
        if layout::format(&connection)? == 0 { Ok(Meta::default()) } else { table::meta(&connection) }
    };
    look().map_err(crate::engine::sqlite::SqlError::into_error)
}

/// Reads operations whole, from the first after a number, up to so many bytes of values but at least one.
///
/// # Errors
///
/// As [`glance`].
pub(crate) fn export(journal: &Path, after: u64, limit: usize, max_bytes: usize) -> Result<Vec<Exported>> {
    let look = || {
        let connection = open(journal)?;
        if layout::format(&connection)? == 0 {
            return Ok(Vec::new());
        }
        table::export(&connection, after, limit, max_bytes)
    };
    look().map_err(crate::engine::sqlite::SqlError::into_error)
}

/// Opens a file to read it. Closing it again moves nothing from the log into the file: that is its owner's work.
fn open(journal: &Path) -> SqlResult<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // An absolute path is neither a `file:` address nor one of SQLite's special names.
    let path = std::path::absolute(journal)
        .map_err(|error| Error::unavailable("the path of a journal cannot be made absolute").with_source(error))?;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

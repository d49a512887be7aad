//! Opening a file: refused if it is somebody else's, switched to a write-ahead log, and brought to its layout.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::config::Synchronous;
use crate::error::{Error, Outage, Result};

use super::connection::{execute, open, roll_back, set_up_reader, set_up_writer};
use super::error::{SqlError, SqlResult, locked};
use super::file::{DatabaseFile, not_a_database};
use super::writer::Maintenance;

/// How long to wait between two attempts to open a file that others are opening too.
const PAUSE: Duration = Duration::from_millis(10);

/// What to open, and how.
pub(crate) struct Options {
    /// The file; it and its folder are made if missing.
    pub(crate) path: PathBuf,
    /// Whether a commit waits for the disk.
    pub(crate) synchronous: Synchronous,
    /// How many connections read; at least one.
    pub(crate) readers: usize,
    /// How long a job waits for a lock of another process, if its deadline is not sooner.
    pub(crate) busy_timeout: Duration,
    /// The tables.
    pub(crate) layout: Layout,
    /// Asked before tables are made or changed. Where it is there, a file that is missing is not made.
    pub(crate) admission: Option<Admission>,
    /// What the writer does from time to time.
    pub(crate) maintenance: Option<Maintenance>,
}

/// Looks at a file that lacks tables, and refuses it if it is not the one to make them in.
pub(crate) type Admission = Box<dyn Fn(&Connection) -> SqlResult<()> + Send>;

/// How a file is recognised and brought to its tables. Both run again if another process was in the way.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Looks at the file without changing it, and refuses what is not ours.
    pub(crate) inspect: fn(&Connection) -> SqlResult<LayoutState>,
    /// Makes what is missing, within a transaction that holds the write lock. It must look again: another process may
    /// have done it since the inspection.
    pub(crate) migrate: fn(&Connection) -> SqlResult<()>,
}

/// What an inspection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayoutState {
    /// The tables are there.
    Current,
    /// Tables are missing.
    Outdated,
}

/// A file that is ready for use.
pub(super) struct Opened {
    pub(super) file: DatabaseFile,
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
}

/// Opens the file, again and again while others are in the way, until the deadline. It blocks.
pub(super) fn open_all(options: &Options, deadline: Instant) -> Result<Opened> {
    let deadline = deadline.min(Instant::now() + options.busy_timeout);
    loop {
        match attempt(options) {
            Ok(opened) => return Ok(opened),
            Err(error) if error.is_busy() && Instant::now() + PAUSE < deadline => thread::sleep(PAUSE),
            Err(error) if error.is_busy() => return Err(locked()),
            Err(error) => return Err(error.into_error()),
        }
    }
}

fn attempt(options: &Options) -> SqlResult<Opened> {
    let file = DatabaseFile::locate(&options.path, options.admission.is_none())?;
    let writer = open(file.path())?;
    let state = inspect(&writer, &file, options.layout)?;
    if state == LayoutState::Outdated
        && let Some(admit) = &options.admission
    {
        admit(&writer)?;
    }
    if writer.is_readonly("main")? {
        let why = "the database file cannot be written; check its permissions";
        return Err(Error::unavailable(why).permanent().with_outage(Outage::Down).into());
    }
    switch_to_log(&writer)?;
    set_up_writer(&writer, options.synchronous)?;
    if state == LayoutState::Outdated {
        migrate(&writer, options.layout)?;
    }
    let readers = (0..options.readers.max(1)).map(|_| open_reader(&file)).collect::<SqlResult<_>>()?;
    file.check()?;
    Ok(Opened { file, writer, readers })
}

/// Reads only, so that a file which is not ours stays as it is.
fn inspect(connection: &Connection, file: &DatabaseFile, layout: Layout) -> SqlResult<LayoutState> {
    let encoding = connection.pragma_query_value(None, "encoding", |row| row.get::<_, String>(0));
    let encoding = encoding
        .map_err(SqlError::from)
        .map_err(|error| if error.is_not_a_database() { not_a_database(file.path()).into() } else { error })?;
    if encoding != "UTF-8" {
        // SQLite would sort such a database's texts by their UTF-16 bytes.
        return Err(Error::config("the SQLite database is encoded in UTF-16; choose another path").into());
    }
    (layout.inspect)(connection)
}

fn switch_to_log(connection: &Connection) -> SqlResult<()> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    let why = "this file system cannot hold SQLite's write-ahead log; choose a path on a local disk";
    Err(Error::unavailable(why).permanent().with_outage(Outage::Down).into())
}

fn migrate(connection: &Connection, layout: Layout) -> SqlResult<()> {
    execute(connection, "BEGIN IMMEDIATE")?;
    let outcome = (layout.migrate)(connection).and_then(|()| execute(connection, "COMMIT"));
    if outcome.is_err() {
        roll_back(connection);
    }
    outcome
}

fn open_reader(file: &DatabaseFile) -> SqlResult<Connection> {
    let connection = open(file.path())?;
    set_up_reader(&connection)?;
    Ok(connection)
}

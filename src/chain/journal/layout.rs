//! The tables of a journal's file, and how the file is told from others.

use rusqlite::Connection;

use crate::engine::sqlite::{Layout, LayoutState, SqlResult};
use crate::error::Error;

/// "agsj" in ASCII: a journal is never taken for a database of this crate, nor the other way round.
const APPLICATION_ID: i32 = 0x6167_736A;

/// The newest form of a journal's file that this program knows, kept in its `user_version`.
const NEWEST_FORMAT: u32 = 3;

const TABLES: &str = "
    CREATE TABLE op (
        seq        INTEGER PRIMARY KEY,
        version    INTEGER NOT NULL,
        stamp      BLOB    NOT NULL CHECK (length(stamp) = 16),
        kind       INTEGER NOT NULL,
        key        TEXT    NOT NULL,
        expires_at INTEGER,
        item_id    TEXT,
        parked     TEXT,
        payload    BLOB
    ) STRICT;
    CREATE TABLE meta (
        id            INTEGER PRIMARY KEY CHECK (id = 1),
        fingerprint   TEXT,
        identity      BLOB CHECK (length(identity) = 16),
        canary        INTEGER,
        clock_reserve INTEGER
    ) STRICT;
    INSERT INTO meta (id) VALUES (1);
    -- Files that were taken over, but may not have been removed yet, each by its mark.
    CREATE TABLE imported (source TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// What format 2 added: when the outage began, and which writers knew of which.
const SINCE_AND_SUCCESSION: &str = "
    ALTER TABLE meta ADD COLUMN since BLOB CHECK (length(since) = 16);
    UPDATE meta SET since = (SELECT min(stamp) FROM op WHERE parked IS NULL);
    CREATE TABLE succession (
        heir        BLOB NOT NULL CHECK (length(heir) = 8),
        predecessor BLOB NOT NULL CHECK (length(predecessor) = 8),
        since       BLOB NOT NULL CHECK (length(since) = 16),
        PRIMARY KEY (heir, predecessor)
    ) STRICT, WITHOUT ROWID;
";

/// What format 3 added: whose stamps the last process gave that had the journal.
const WRITER: &str = "ALTER TABLE meta ADD COLUMN writer BLOB CHECK (length(writer) = 8)";

/// The layout of a journal, for the engine.
pub(super) const LAYOUT: Layout = Layout { inspect, migrate };

/// Looks without changing anything; refuses what is not a journal, and one of a newer program.
pub(super) fn inspect(connection: &Connection) -> SqlResult<LayoutState> {
    match format(connection)? {
        NEWEST_FORMAT => Ok(LayoutState::Current),
        format => {
            if format == 0 {
                // It holds for a file that is still empty, and is forgotten with the connection for any other.
                connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            }
            Ok(LayoutState::Outdated)
        }
    }
}

/// The form of a journal's file; 0 for one that is still empty. Refuses as [`inspect`] does.
pub(super) fn format(connection: &Connection) -> SqlResult<u32> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id == APPLICATION_ID {
        let format: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        return if (1..=NEWEST_FORMAT).contains(&format) { Ok(format) } else { Err(newer(format).into()) };
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if id != 0 || tables != 0 {
        return Err(Error::config("the file is not a journal and was left as it is; choose another folder").into());
    }
    Ok(0)
}

/// Brings a file to the newest form, in the transaction of its caller.
pub(super) fn migrate(connection: &Connection) -> SqlResult<()> {
    let format = format(connection)?;
    if format < 1 {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.execute_batch(TABLES)?;
    }
    if format < 2 {
        connection.execute_batch(SINCE_AND_SUCCESSION)?;
    }
    if format < 3 {
        connection.execute_batch(WRITER)?;
        connection.pragma_update(None, "user_version", NEWEST_FORMAT)?;
    }
    Ok(())
}

fn newer(format: u32) -> Error {
    Error::config(format!(
        "the journal has format {format}, made by a newer agent-storage; this one knows up to {NEWEST_FORMAT}: upgrade it, so \
         that what it holds is replayed"
    ))
}

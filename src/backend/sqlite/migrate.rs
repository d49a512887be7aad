//! The tables: how a file of ours is told from others, and how it is brought up to date.

use rusqlite::Connection;

use crate::engine::sqlite::{Layout, LayoutState, SqlResult};
use crate::error::Error;

/// "agst" in ASCII: marks a file as ours in its header, as `file` and SQLite's own tools show it.
const APPLICATION_ID: i32 = 0x6167_7374;

/// A numbered step from one layout to the next. A number, once released, never changes its text.
struct Migration {
    number: i64,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 5] = [
    Migration { number: 1, sql: include_str!("../../../migrations/sqlite/0001_kv.sql") },
    Migration { number: 2, sql: include_str!("../../../migrations/sqlite/0002_lists.sql") },
    Migration { number: 3, sql: include_str!("../../../migrations/sqlite/0003_meta.sql") },
    Migration { number: 4, sql: include_str!("../../../migrations/sqlite/0004_replay.sql") },
    Migration { number: 5, sql: include_str!("../../../migrations/sqlite/0005_late.sql") },
];

/// The newest layout that this program knows.
const NEWEST: i64 = match MIGRATIONS.last() {
    Some(newest) => newest.number,
    None => 0,
};

/// The layout of a database, for the engine.
pub(super) const LAYOUT: Layout = Layout { inspect, migrate };

/// What a file says of its layout.
enum Found {
    /// None of our tables; `empty` if it has no tables at all.
    Nothing { empty: bool },
    /// Our tables, as of a migration.
    Ours { schema: i64 },
}

/// Looks without changing anything; refuses somebody else's file, and one of a newer program.
fn inspect(connection: &Connection) -> SqlResult<LayoutState> {
    Ok(match find(connection)? {
        Found::Ours { schema } if schema >= NEWEST => LayoutState::Current,
        Found::Ours { .. } | Found::Nothing { .. } => LayoutState::Outdated,
    })
}

/// Runs the migrations that are missing, within the transaction that the engine opened.
fn migrate(connection: &Connection) -> SqlResult<()> {
    let schema = match find(connection)? {
        Found::Ours { schema } => schema,
        Found::Nothing { empty } => {
            if empty {
                connection.pragma_update(None, "application_id", APPLICATION_ID)?;
            }
            0
        }
    };
    for migration in MIGRATIONS.iter().filter(|migration| migration.number > schema) {
        connection.execute_batch(migration.sql)?;
    }
    // A program that knows only an older layout must not write into this one, unless a migration says otherwise.
    connection.execute("UPDATE meta SET schema = ?1, min_compatible = NULL WHERE schema < ?1", [NEWEST])?;
    Ok(())
}

fn find(connection: &Connection) -> SqlResult<Found> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id != 0 && id != APPLICATION_ID {
        let why = "the SQLite file belongs to another application and was left as it is; choose another path";
        return Err(Error::config(why).into());
    }
    let tables = "SELECT count(*), coalesce(sum(name IN ('kv', 'list', 'item', 'meta', 'conflict')), 0) \
                  FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'";
    let (all, named_as_ours): (i64, i64) = connection.query_row(tables, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if named_as_ours == 0 {
        return Ok(Found::Nothing { empty: all == 0 });
    }
    let columns = "SELECT schema, min_compatible FROM meta WHERE id = 1 AND length(identity) = 16";
    let ours =
        connection.prepare(columns).and_then(|mut meta| meta.query_row([], |row| Ok((row.get(0)?, row.get(1)?))));
    match ours {
        Ok((schema, compatible)) => refuse_newer(schema, compatible).map(|()| Found::Ours { schema }),
        Err(error) if is_answer(&error) => {
            let why = "the SQLite file has tables of the same names (kv, list, item, meta or conflict) that are not this \
                       crate's, and was left as it is; choose another path";
            Err(Error::config(why).with_source(error).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether SQLite answered that there is no such table, column or row, and did not fail to read.
pub(super) fn is_answer(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), None | Some(rusqlite::ErrorCode::Unknown))
}

fn refuse_newer(schema: i64, compatible: Option<i64>) -> SqlResult<()> {
    if schema <= NEWEST || compatible.is_some_and(|oldest| oldest <= NEWEST) {
        return Ok(());
    }
    let why = format!(
        "the SQLite file has schema {schema}, made by a newer agent-storage; this one knows up to {NEWEST}: upgrade it"
    );
    Err(Error::config(why).into())
}

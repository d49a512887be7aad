//! The operations of one journal copied to the end of another.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use crate::contract::Identity;
use crate::engine::sqlite::SqlResult;
use crate::time::Timestamp;

use super::episode;
use super::layout;
use super::operation::Meta;
use super::record::signed;
use super::table;

/// The columns of an operation but its number, as they are.
const COLUMNS: &str = "version, stamp, kind, key, expires_at, item_id, parked, payload";

/// How many they are.
const WIDTH: usize = 8;

/// Which state of the database is known where two journals are made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The newest that either knows of.
    Newest,
    /// Ours: it was accepted, and may be that of a restored backup, which is older than what the other knew.
    Ours,
}

/// Copies what another journal holds, in its order, and what its process knew, and says how many operations that were. A file that was
/// copied before, and could not be removed since, is not copied twice, which its mark tells.
pub(super) fn copy(
    source: &Connection,
    mark: &str,
    theirs: &Meta,
    target: &Connection,
    known: Known,
    mut next_seq: impl FnMut() -> u64,
) -> SqlResult<u64> {
    if target.prepare_cached("SELECT 1 FROM imported WHERE source = ?1")?.exists([mark])? {
        return Ok(0);
    }
    if layout::format(source)? == 0 {
        // Its process ended, or its disk was full, before it had tables.
        return Ok(0);
    }
    let mut insert = target
        .prepare_cached(&format!("INSERT INTO op ({COLUMNS}, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"))?;
    let mut count = 0;
    table::scan(source, COLUMNS, 0, usize::MAX, |row| {
        let mut columns = Vec::with_capacity(WIDTH + 1);
        for column in 0..WIDTH {
            columns.push(ToSqlOutput::Borrowed(row.get_ref(column)?));
        }
        columns.push(ToSqlOutput::Borrowed(ValueRef::Integer(signed(next_seq())?)));
        insert.execute(params_from_iter(columns))?;
        count += 1;
        Ok(true)
    })?;
    table::set_meta(target, &merged(table::meta(target)?, theirs, known))?;
    episode::join(target, &episode::read(source)?)?;
    episode::end_if_settled(target)?;
    target.prepare_cached("INSERT INTO imported (source) VALUES (?1)")?.execute([mark])?;
    Ok(count)
}

/// Forgets that a file was copied, because it is gone.
pub(super) fn forget(target: &Connection, is_gone: impl Fn(&str) -> bool) -> SqlResult<()> {
    for mark in marks(target)?.iter().filter(|mark| mark.split(' ').next().is_some_and(&is_gone)) {
        target.prepare_cached("DELETE FROM imported WHERE source = ?1")?.execute([mark])?;
    }
    Ok(())
}

/// What tells that a file was copied as it is: its name, who wrote to it last, and the end of the stamps that were to be given then.
/// Whoever opens it as its own writes down a later one before it writes more.
pub(super) fn mark_of(name: &str, writer: Option<u64>, clock_reserve: Option<Timestamp>) -> String {
    let reserve = clock_reserve.map_or(0, Timestamp::as_millis);
    format!("{name} {:016x} {reserve:x}", writer.unwrap_or_default())
}

/// The marks of the files that were copied, as far as they are kept.
pub(super) fn marks(target: &Connection) -> SqlResult<Vec<String>> {
    let mut statement = target.prepare("SELECT source FROM imported")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// The newest state of our database that either knows of; ours if they are two.
pub(super) fn newest(ours: Option<Identity>, theirs: Option<Identity>) -> Option<Identity> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs.continues(ours) => Some(theirs),
        (ours, theirs) => ours.or(theirs),
    }
}

/// What two journals of the same primary know together.
fn merged(ours: Meta, theirs: &Meta, known: Known) -> Meta {
    let identity = match known {
        Known::Newest => newest(ours.identity, theirs.identity),
        Known::Ours => ours.identity.or(theirs.identity),
    };
    let clock_reserve = ours.clock_reserve.max(theirs.clock_reserve);
    Meta { fingerprint: ours.fingerprint, identity, clock_reserve }
}

//! What a journal's file remembers of an outage, and of those who had it before.

use rusqlite::{Connection, Row, params};

use crate::contract::Succession;
use crate::engine::sqlite::SqlResult;
use crate::stamp::Stamp;

use super::operation::Episode;
use super::record::{signed, stamp};

/// How many successions are remembered while something is owed. Of older ones more is kept as a conflict.
pub(super) const MOST_SUCCESSIONS: u32 = 1000;

/// How many are when nothing is: those who wrote within the minute before the next outage.
const MOST_WHEN_SETTLED: u32 = 16;

/// Remembers that the outage began no later than `since`.
pub(super) fn begin(connection: &Connection, since: Stamp) -> SqlResult<()> {
    let sql = "UPDATE meta SET since = ?1 WHERE id = 1 AND (since IS NULL OR since > ?1)";
    connection.prepare_cached(sql)?.execute([since.to_bytes()])?;
    Ok(())
}

/// Forgets when the outage began once no operation waits, and once there is none, what only older writers knew of each other.
pub(super) fn end_if_settled(connection: &Connection) -> SqlResult<()> {
    let waits = "SELECT EXISTS (SELECT 1 FROM op WHERE parked IS NULL), EXISTS (SELECT 1 FROM op)";
    let (waits, any): (bool, bool) =
        connection.prepare_cached(waits)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if !waits {
        connection.prepare_cached("UPDATE meta SET since = NULL WHERE since IS NOT NULL")?.execute([])?;
    }
    if any { Ok(()) } else { bound_succession(connection, MOST_WHEN_SETTLED) }
}

/// Has operations wait again; they are of an outage that began no later than the oldest of them was written.
pub(super) fn unpark(connection: &Connection, seqs: &[u64]) -> SqlResult<()> {
    let sql = "UPDATE op SET parked = NULL WHERE seq = ?1 AND parked IS NOT NULL RETURNING stamp";
    let mut statement = connection.prepare_cached(sql)?;
    for seq in seqs {
        let mut rows = statement.query([signed(*seq)?])?;
        while let Some(row) = rows.next()? {
            begin(connection, stamp(row, 0)?)?;
        }
    }
    Ok(())
}

/// What is remembered.
pub(super) fn read(connection: &Connection) -> SqlResult<Episode> {
    let mut statement = connection.prepare_cached("SELECT since FROM meta WHERE id = 1 AND since IS NOT NULL")?;
    let mut rows = statement.query([])?;
    let since = rows.next()?.map(|row| stamp(row, 0)).transpose()?;
    Ok(Episode { since, succession: succession(connection)? })
}

fn succession(connection: &Connection) -> SqlResult<Succession> {
    let mut succession = Succession::default();
    let mut statement = connection.prepare_cached("SELECT heir, predecessor, since FROM succession")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        succession.add(writer(row, 0)?, writer(row, 1)?, stamp(row, 2)?);
    }
    Ok(succession)
}

/// Adds to what the writers knew of each other.
pub(super) fn add_succession(connection: &Connection, added: &Succession) -> SqlResult<()> {
    let sql = "INSERT INTO succession (heir, predecessor, since) VALUES (?1, ?2, ?3) \
               ON CONFLICT (heir, predecessor) DO UPDATE SET since = min(since, excluded.since)";
    let mut statement = connection.prepare_cached(sql)?;
    for (heir, predecessor, from) in added.iter() {
        statement.execute(params![heir.to_be_bytes(), predecessor.to_be_bytes(), from.to_bytes()])?;
    }
    Ok(())
}

/// Forgets the oldest successions but for so many.
pub(super) fn bound_succession(connection: &Connection, most: u32) -> SqlResult<()> {
    let sql = "DELETE FROM succession WHERE (heir, predecessor) NOT IN \
               (SELECT heir, predecessor FROM succession ORDER BY since DESC LIMIT ?1)";
    connection.prepare_cached(sql)?.execute([most])?;
    Ok(())
}

/// Joins what another journal remembers: its outage goes on here.
pub(super) fn join(connection: &Connection, other: &Episode) -> SqlResult<()> {
    if let Some(since) = other.since {
        begin(connection, since)?;
    }
    add_succession(connection, &other.succession)
}

fn writer(row: &Row<'_>, column: usize) -> SqlResult<u64> {
    Ok(u64::from_be_bytes(row.get(column)?))
}

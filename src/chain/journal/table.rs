//! The statements of a journal's file.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::contract::Identity;
use crate::engine::sqlite::{SqlError, SqlResult};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::operation::{Exported, Header, Meta, Operation};
use super::record::{COLUMNS, HEADER_COLUMNS, Record, header, insert as insert_one, prepare_insert, signed, unsigned};

/// Adds operations under the numbers that `next_seq` gives, and answers these.
pub(super) fn insert(
    connection: &Connection,
    operations: &[Operation],
    mut next_seq: impl FnMut() -> u64,
) -> SqlResult<Vec<u64>> {
    let mut statement = prepare_insert(connection)?;
    let mut seqs = Vec::with_capacity(operations.len());
    for operation in operations {
        let seq = next_seq();
        insert_one(&mut statement, seq, operation)?;
        seqs.push(seq);
    }
    Ok(seqs)
}

/// Removes operations.
pub(super) fn remove(connection: &Connection, seqs: &[u64]) -> SqlResult<()> {
    let mut statement = connection.prepare_cached("DELETE FROM op WHERE seq = ?1")?;
    for seq in seqs {
        statement.execute([signed(*seq)?])?;
    }
    Ok(())
}

/// Puts operations aside, each with its reason.
pub(super) fn park(connection: &Connection, parked: &[(u64, String)]) -> SqlResult<()> {
    let mut statement = connection.prepare_cached("UPDATE op SET parked = ?2 WHERE seq = ?1")?;
    for (seq, reason) in parked {
        statement.execute(params![signed(*seq)?, reason])?;
    }
    Ok(())
}

/// Removes an operation if it was put aside.
pub(super) fn drop_parked(connection: &Connection, seq: u64) -> SqlResult<bool> {
    let sql = "DELETE FROM op WHERE seq = ?1 AND parked IS NOT NULL";
    Ok(connection.prepare_cached(sql)?.execute([signed(seq)?])? > 0)
}

/// Reads one operation.
pub(super) fn read(connection: &Connection, seq: u64) -> SqlResult<Option<Operation>> {
    Ok(record(connection, seq)?.map(|record| record.operation))
}

/// Reads operations by their numbers, up to so many bytes of values but at least one.
pub(super) fn read_many(connection: &Connection, seqs: &[u64], max_bytes: usize) -> SqlResult<Vec<(u64, Operation)>> {
    let mut found = Within::new(max_bytes);
    for seq in seqs {
        let Some(Record { seq, operation, .. }) = record(connection, *seq)? else { continue };
        let bytes = operation.value_bytes();
        if !found.push((seq, operation), bytes) {
            break;
        }
    }
    Ok(found.items)
}

fn record(connection: &Connection, seq: u64) -> SqlResult<Option<Record>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM op WHERE seq = ?1"))?;
    let mut rows = statement.query([signed(seq)?])?;
    rows.next()?.map(Record::read).transpose()
}

/// Lists operations without their values, from the first after a number.
pub(super) fn headers(connection: &Connection, after: u64, limit: usize) -> SqlResult<Vec<Header>> {
    let mut headers = Vec::new();
    scan(connection, HEADER_COLUMNS, after, limit, |row| {
        headers.push(header(row)?);
        Ok(true)
    })?;
    Ok(headers)
}

/// Lists operations whole, from the first after a number, up to so many bytes of values but at least one.
pub(super) fn export(connection: &Connection, after: u64, limit: usize, max_bytes: usize) -> SqlResult<Vec<Exported>> {
    let mut found = Within::new(max_bytes);
    scan(connection, COLUMNS, after, limit, |row| {
        let Record { seq, operation, parked } = Record::read(row)?;
        let bytes = operation.value_bytes();
        Ok(found.push(Exported { seq, operation, parked }, bytes))
    })?;
    Ok(found.items)
}

/// Shows rows in the order of their numbers, until there are no more or one is not wanted.
pub(super) fn scan(
    connection: &Connection,
    columns: &str,
    after: u64,
    limit: usize,
    mut row: impl FnMut(&Row<'_>) -> SqlResult<bool>,
) -> SqlResult<()> {
    let sql = format!("SELECT {columns} FROM op WHERE seq > ?1 ORDER BY seq LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query([i64::try_from(after).unwrap_or(i64::MAX), limit])?;
    while let Some(next) = rows.next()? {
        if !row(next)? {
            break;
        }
    }
    Ok(())
}

/// The number of the last operation; zero if there is none.
pub(super) fn last_seq(connection: &Connection) -> SqlResult<u64> {
    let last: i64 = connection.query_row("SELECT coalesce(max(seq), 0) FROM op", [], |row| row.get(0))?;
    Ok(unsigned(last)?)
}

/// How many operations wait, how many were put aside, and the oldest stamp of both.
pub(super) fn counts(connection: &Connection) -> SqlResult<(u64, u64, Option<Stamp>)> {
    let sql = "SELECT count(*), count(parked), min(stamp) FROM op";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (all, parked, oldest): (i64, i64, Option<[u8; 16]>) = connection.query_row(sql, [], read)?;
    Ok((unsigned(all.saturating_sub(parked))?, unsigned(parked)?, oldest.map(Stamp::from_bytes)))
}

/// The newest stamp of as many operations, the last ones of the journal.
pub(super) fn newest_stamp(connection: &Connection, count: u32) -> SqlResult<Option<Stamp>> {
    let sql = "SELECT max(stamp) FROM (SELECT stamp FROM op ORDER BY seq DESC LIMIT ?1)";
    let newest: Option<[u8; 16]> = connection.query_row(sql, [count], |row| row.get(0))?;
    Ok(newest.map(Stamp::from_bytes))
}

/// What is known beside the operations.
pub(super) fn meta(connection: &Connection) -> SqlResult<Meta> {
    let sql = "SELECT fingerprint, identity, canary, clock_reserve FROM meta WHERE id = 1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    type Columns = (Option<String>, Option<[u8; 16]>, Option<i64>, Option<i64>);
    let found: Option<Columns> = connection.prepare_cached(sql)?.query_row([], read).optional()?;
    let Some((fingerprint, id, canary, reserve)) = found else { return Ok(Meta::default()) };
    let identity = match (id, canary) {
        (Some(id), Some(canary)) => Some(Identity::new(u128::from_be_bytes(id), unsigned(canary)?)),
        _ => None,
    };
    let clock_reserve = reserve.map(unsigned).transpose()?.map(Timestamp::from_millis);
    Ok(Meta { fingerprint, identity, clock_reserve })
}

/// Keeps what is known beside the operations.
pub(super) fn set_meta(connection: &Connection, meta: &Meta) -> SqlResult<()> {
    let Meta { fingerprint, identity, clock_reserve } = meta;
    let id = identity.map(|identity| identity.id.to_be_bytes());
    let canary = identity.map(|identity| signed(identity.canary)).transpose()?;
    let reserve = clock_reserve.map(|moment| signed(moment.as_millis())).transpose()?;
    let sql = "INSERT INTO meta (id, fingerprint, identity, canary, clock_reserve) VALUES (1, ?1, ?2, ?3, ?4) \
               ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, clock_reserve = excluded.clock_reserve, \
               canary = CASE WHEN excluded.identity IS NULL THEN meta.canary ELSE excluded.canary END, \
               identity = coalesce(excluded.identity, meta.identity)";
    connection.prepare_cached(sql)?.execute(params![fingerprint, id, canary, reserve])?;
    Ok(())
}

/// Who gave the stamps of the process that had the journal last.
pub(super) fn writer(connection: &Connection) -> SqlResult<Option<u64>> {
    let sql = "SELECT writer FROM meta WHERE id = 1";
    let found: Option<Option<[u8; 8]>> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    Ok(found.flatten().map(u64::from_be_bytes))
}

/// Says who gives the stamps of the process that has the journal from now on.
pub(super) fn set_writer(connection: &Connection, writer: u64) -> SqlResult<()> {
    connection.prepare_cached("UPDATE meta SET writer = ?1 WHERE id = 1")?.execute([writer.to_be_bytes()])?;
    Ok(())
}

/// The pages of the file, and how many of them hold nothing.
pub(super) fn pages(connection: &Connection) -> SqlResult<(u64, u64)> {
    Ok((pragma(connection, "PRAGMA page_count")?, pragma(connection, "PRAGMA freelist_count")?))
}

/// The bytes of the pages that hold something.
pub(super) fn used_bytes(connection: &Connection) -> SqlResult<u64> {
    let (pages, free) = pages(connection)?;
    Ok(pages.saturating_sub(free).saturating_mul(pragma(connection, "PRAGMA page_size")?))
}

fn pragma(connection: &Connection, sql: &'static str) -> SqlResult<u64> {
    let number: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    u64::try_from(number).map_err(|_| SqlError::from(rusqlite::Error::IntegralValueOutOfRange(0, number)))
}

/// Items up to so many bytes, but at least one.
struct Within<T> {
    items: Vec<T>,
    bytes: usize,
    max_bytes: usize,
}

impl<T> Within<T> {
    fn new(max_bytes: usize) -> Self {
        Self { items: Vec::new(), bytes: 0, max_bytes }
    }

    /// Adds an item; `false` if it does not fit any more.
    fn push(&mut self, item: T, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let fits = self.bytes <= self.max_bytes || self.items.is_empty();
        if fits {
            self.items.push(item);
        }
        fits
    }
}

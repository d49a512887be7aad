//! Reading values.

use rusqlite::OptionalExtension;

use crate::contract::{Entry, GetOptions, Lookup};
use crate::engine::sqlite::{SqlError, SqlResult};
use crate::error::Result;
use crate::key::Key;
use crate::revision::Revision;
use crate::stamp::Stamp;

use super::codec;
use super::error::of_item;
use super::session::Session;

const GET: &str = "SELECT stamp, expires_at, kind, json, bin FROM kv WHERE key = ?1";

const STAMP: &str = "SELECT stamp FROM kv WHERE key = ?1";

const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM kv \
                                     WHERE key = ?1 AND kind <> 0 AND (expires_at IS NULL OR expires_at > ?2)) \
                          OR EXISTS (SELECT 1 FROM list WHERE key = ?1 AND first_position <> next_position)";

/// Reads one value.
pub(super) fn get(session: &Session<'_>, key: &Key, options: GetOptions) -> SqlResult<Lookup> {
    let mut statement = session.connection.prepare_cached(GET)?;
    let mut rows = statement.query([key.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(Lookup::missing()) };
    let expires_at = codec::moment(row, 1)?;
    if expires_at.is_some_and(|at| at <= session.now) {
        return Ok(Lookup::missing());
    }
    let Some(value) = codec::value(row, 2)? else { return Ok(Lookup::missing()) };
    let stamp = codec::stamp(row, 0)?;
    session.stamps.observe(stamp);
    let entry = Entry::new(value, Revision::from_stamp(stamp));
    Ok(Lookup::Found(if options.expiry { entry.with_expiry(expires_at) } else { entry }))
}

/// Reads several values in the order of their keys.
pub(super) fn get_many(session: &Session<'_>, keys: &[Key], options: GetOptions) -> SqlResult<Vec<Result<Lookup>>> {
    keys.iter().map(|key| of_item(get(session, key, options))).collect()
}

/// The newest stamps of values and tombstones, in the order of the keys.
pub(super) fn stamps(session: &Session<'_>, keys: &[Key]) -> SqlResult<Vec<Option<Stamp>>> {
    let mut statement = session.connection.prepare_cached(STAMP)?;
    let mut one = |key: &Key| {
        let mut rows = statement.query([key.as_str()])?;
        // One that was corrupted counts as the oldest, as in a replay.
        Ok(rows.next()?.map(|row| codec::stamp(row, 0).unwrap_or(Stamp::MIN)))
    };
    keys.iter().map(&mut one).collect()
}

/// Says of each key whether a value or a list with items is under it.
pub(super) fn exists(session: &Session<'_>, keys: &[Key]) -> SqlResult<Vec<Result<bool>>> {
    let mut statement = session.connection.prepare_cached(EXISTS)?;
    let now = codec::millis(session.now);
    let mut one = |key: &Key| {
        let found = statement.query_row((key.as_str(), now), |row| row.get(0)).optional();
        of_item(found.map(Option::unwrap_or_default).map_err(SqlError::from))
    };
    keys.iter().map(&mut one).collect()
}

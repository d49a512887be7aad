//! Writes that were acknowledged and lost: kept, listed and forgotten.

use rusqlite::Row;

use crate::contract::{ConflictOptions, ConflictRecord, ItemId, LostOperation};
use crate::engine::sqlite::SqlResult;
use crate::error::Error;
use crate::key::Key;
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::codec::{self, Columns, GONE};
use super::session::Session;

const KEEP: &str = "INSERT INTO conflict (stamp, key, operation, item_id, kind, expires_at, json, bin, winner, at) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";

// An empty blob sorts before every stamp.
pub(super) const PAGE: &str = "SELECT stamp, key, operation, item_id, expires_at, kind, json, bin, winner, at FROM conflict \
                    WHERE (stamp, key) > (?1, ?2) ORDER BY stamp, key LIMIT ?3";

const FORGET: &str = "DELETE FROM conflict WHERE stamp = ?1 AND key = ?2";

/// Keeps a write that lost. One that is kept already stays as it is.
pub(super) fn keep(
    session: &Session<'_>,
    key: &Key,
    stamp: Stamp,
    lost: &LostOperation,
    winner: Stamp,
) -> SqlResult<()> {
    let (value, expires_at, item_id) = match lost {
        LostOperation::Put { value, expires_at } => (Some(value), *expires_at, None),
        LostOperation::Delete => (None, None, None),
        LostOperation::Append { value, item_id } => (Some(value), None, Some(item_id.as_str())),
    };
    let Columns { kind, json, bin } = value.map_or(Columns { kind: GONE, json: None, bin: None }, Columns::from);
    let (expires_at, at) = (expires_at.map(codec::millis), codec::millis(session.now));
    let mut statement = session.connection.prepare_cached(KEEP)?;
    let parameters =
        (stamp.to_bytes(), key.as_str(), lost.as_str(), item_id, kind, expires_at, json, bin, winner.to_bytes(), at);
    statement.execute(parameters)?;
    Ok(())
}

/// Lists one page, in the order of the stamps, then of the keys.
pub(super) fn page(session: &Session<'_>, options: &ConflictOptions) -> SqlResult<Vec<ConflictRecord>> {
    let limit = options.limit.clamp(1, ConflictOptions::MAX_LIMIT);
    let (stamp, key) = options.after.as_ref().map(|(stamp, key)| (stamp.to_bytes(), key.as_str())).unzip();
    let after = (stamp.as_ref().map_or(&[][..], |stamp| &stamp[..]), key.unwrap_or_default());
    let mut statement = session.connection.prepare_cached(PAGE)?;
    let mut rows = statement.query((after.0, after.1, codec::signed(limit as u64)?))?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

/// Forgets a write that lost; `false` if it is not there.
pub(super) fn forget(session: &Session<'_>, key: &Key, stamp: Stamp) -> SqlResult<bool> {
    let forgotten = session.connection.prepare_cached(FORGET)?.execute((stamp.to_bytes(), key.as_str()))?;
    Ok(forgotten > 0)
}

fn record(row: &Row<'_>) -> SqlResult<ConflictRecord> {
    let key = Key::parse(row.get::<_, String>(1)?).map_err(corrupt)?;
    let expires_at = codec::moment(row, 4)?;
    let operation: String = row.get(2)?;
    let lost = match (operation.as_str(), codec::value(row, 5)?) {
        ("put", Some(value)) => LostOperation::Put { value, expires_at },
        ("delete", None) => LostOperation::Delete,
        ("append", Some(value)) => LostOperation::Append { value, item_id: item_id(row)? },
        _ => return Err(Error::corrupt("a stored conflict is of no operation that is known").into()),
    };
    let (stamp, winner) = (codec::stamp(row, 0)?, codec::stamp(row, 8)?);
    Ok(ConflictRecord::new(key, stamp, lost, winner, Timestamp::from_millis(codec::number(row, 9)?)))
}

fn item_id(row: &Row<'_>) -> SqlResult<ItemId> {
    Ok(ItemId::parse(row.get::<_, String>(3)?).map_err(corrupt)?)
}

fn corrupt(error: Error) -> Error {
    Error::corrupt("a stored conflict has an unreadable name").with_source(error)
}

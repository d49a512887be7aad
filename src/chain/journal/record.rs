//! An operation as a row, in a form with a version of its own: a newer program replays what an older one journaled.

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, Row, params};

use crate::contract::ItemId;
use crate::engine::sqlite::SqlResult;
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::{Format, Value};

use super::operation::{Action, Effect, Header, Operation};

/// The form of the rows that this program writes.
const VERSION: i64 = 1;

const PUT_JSON: i64 = 1;
const PUT_BINARY: i64 = 2;
const DELETE: i64 = 3;
const APPEND_JSON: i64 = 4;
const APPEND_BINARY: i64 = 5;
const CLEAR: i64 = 6;

/// The columns that [`Record::read`] takes.
pub(super) const COLUMNS: &str = "seq, version, stamp, kind, key, expires_at, parked, item_id, payload";

/// The columns that [`header`] takes.
pub(super) const HEADER_COLUMNS: &str = "seq, version, stamp, kind, key, expires_at, parked";

/// Prepares the statement that [`insert`] takes.
pub(super) fn prepare_insert(connection: &Connection) -> SqlResult<CachedStatement<'_>> {
    Ok(connection.prepare_cached(
        "INSERT INTO op (seq, version, stamp, kind, key, expires_at, item_id, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?)
}

/// Writes an operation.
pub(super) fn insert(statement: &mut CachedStatement<'_>, seq: u64, operation: &Operation) -> SqlResult<()> {
    let Operation { stamp, action } = operation;
    let (kind, key, expires_at, item_id, value) = match action {
        Action::Put { key, value, expires_at } => {
            let kind = if value.format() == Format::Json { PUT_JSON } else { PUT_BINARY };
            (kind, key.as_str(), *expires_at, None, Some(value))
        }
        Action::Delete { key } => (DELETE, key.as_str(), None, None, None),
        Action::Append { key, value, item_id } => {
            let kind = if value.format() == Format::Json { APPEND_JSON } else { APPEND_BINARY };
            (kind, key.as_str(), None, Some(item_id.as_str()), Some(value))
        }
        Action::Clear { prefix } => (CLEAR, prefix.as_str(), None, None, None),
    };
    let expires_at = expires_at.map(|moment| signed(moment.as_millis())).transpose()?;
    let payload = value.map(Value::as_bytes);
    statement.execute(params![signed(seq)?, VERSION, stamp.to_bytes(), kind, key, expires_at, item_id, payload])?;
    Ok(())
}

/// A row of [`COLUMNS`].
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) operation: Operation,
    pub(super) parked: Option<String>,
}

impl Record {
    pub(super) fn read(row: &Row<'_>) -> SqlResult<Self> {
        let Fixed { seq, stamp, kind } = Fixed::read(row)?;
        let key = || text(row, 4).and_then(|text| Ok(Key::parse(text)?));
        let value = |format| Ok::<_, crate::engine::sqlite::SqlError>(value(row.get(8)?, format));
        let action = match kind {
            PUT_JSON => Action::Put { key: key()?, value: value(Format::Json)?, expires_at: moment(row, 5)? },
            PUT_BINARY => Action::Put { key: key()?, value: value(Format::Binary)?, expires_at: moment(row, 5)? },
            DELETE => Action::Delete { key: key()? },
            APPEND_JSON => Action::Append { key: key()?, value: value(Format::Json)?, item_id: item_id(row)? },
            APPEND_BINARY => Action::Append { key: key()?, value: value(Format::Binary)?, item_id: item_id(row)? },
            CLEAR => Action::Clear { prefix: KeyPrefix::parse(text(row, 4)?)? },
            _ => return Err(unreadable().into()),
        };
        Ok(Self { seq, operation: Operation { stamp, action }, parked: row.get(6)? })
    }
}

/// Reads a row of [`HEADER_COLUMNS`].
pub(super) fn header(row: &Row<'_>) -> SqlResult<Header> {
    let Fixed { seq, stamp, kind } = Fixed::read(row)?;
    let key = text(row, 4)?;
    let effect = match kind {
        PUT_JSON | PUT_BINARY => Effect::Put(Key::parse(key)?, moment(row, 5)?),
        DELETE => Effect::Delete(Key::parse(key)?),
        APPEND_JSON | APPEND_BINARY => Effect::Append(Key::parse(key)?),
        CLEAR => Effect::Clear(KeyPrefix::parse(key)?),
        _ => return Err(unreadable().into()),
    };
    let parked: Option<String> = row.get(6)?;
    Ok(Header::new(seq, stamp, effect, parked.as_deref()))
}

/// What every form of a row begins with.
struct Fixed {
    seq: u64,
    stamp: Stamp,
    kind: i64,
}

impl Fixed {
    fn read(row: &Row<'_>) -> SqlResult<Self> {
        if row.get::<_, i64>(1)? != VERSION {
            return Err(unreadable().into());
        }
        Ok(Self { seq: unsigned(row.get(0)?)?, stamp: stamp(row, 2)?, kind: row.get(3)? })
    }
}

/// Reads a stamp.
pub(super) fn stamp(row: &Row<'_>, column: usize) -> SqlResult<Stamp> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|error| unreadable().with_source(error))?;
    Ok(Stamp::from_slice(bytes)?)
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> SqlResult<&'r str> {
    Ok(row.get_ref(column)?.as_str().map_err(|error| unreadable().with_source(error))?)
}

fn moment(row: &Row<'_>, column: usize) -> SqlResult<Option<Timestamp>> {
    let millis: Option<i64> = row.get(column)?;
    Ok(millis.map(unsigned).transpose()?.map(Timestamp::from_millis))
}

fn item_id(row: &Row<'_>) -> SqlResult<ItemId> {
    Ok(ItemId::parse(text(row, 7)?)?)
}

fn value(bytes: Vec<u8>, format: Format) -> Value {
    Value::from_stored(Bytes::from(bytes), format)
}

fn unreadable() -> Error {
    Error::corrupt("a journaled operation cannot be read: it is damaged, or of a newer version")
}

/// A number as SQLite keeps it.
pub(super) fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::internal("a number is too large for a journal"))
}

/// A number as SQLite kept it.
pub(super) fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| unreadable())
}

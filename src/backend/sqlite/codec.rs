//! Values, stamps and moments as columns, and back.

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::engine::sqlite::SqlResult;
use crate::error::{Error, Result};
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::{Format, Value};

/// The `kind` of a row without a value: a tombstone in `kv`, a trimmed item in `item`.
pub(super) const GONE: i64 = 0;
/// The `kind` of a row whose value is in `json`.
const JSON: i64 = 1;
/// The `kind` of a row whose value is in `bin`.
const BINARY: i64 = 2;

/// A value as the columns `kind`, `json` and `bin`.
pub(super) struct Columns<'a> {
    pub(super) kind: i64,
    pub(super) json: Option<Text<'a>>,
    pub(super) bin: Option<&'a [u8]>,
}

impl<'a> From<&'a Value> for Columns<'a> {
    fn from(value: &'a Value) -> Self {
        match value.format() {
            Format::Json => Self { kind: JSON, json: Some(Text(value.as_bytes())), bin: None },
            Format::Binary => Self { kind: BINARY, json: None, bin: Some(value.as_bytes()) },
        }
    }
}

/// Bytes bound as text. They are UTF-8, as a JSON value was checked to be when it was made.
pub(super) struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// Reads the value of a row from `kind`, `json` and `bin`, which stand side by side from column `first`; `None` for a row
/// without a value.
pub(super) fn value(row: &Row<'_>, first: usize) -> SqlResult<Option<Value>> {
    let (column, format) = match row.get(first)? {
        GONE => return Ok(None),
        JSON => (first + 1, Format::Json),
        BINARY => (first + 2, Format::Binary),
        _ => return Err(Error::corrupt("a stored record is of an unknown kind").into()),
    };
    let bytes = row
        .get_ref(column)?
        .as_bytes()
        .map_err(|error| Error::corrupt("a stored record has no value of its kind").with_source(error))?;
    Ok(Some(Value::from_stored(Bytes::copy_from_slice(bytes), format)))
}

/// Reads a stamp.
pub(super) fn stamp(row: &Row<'_>, column: usize) -> SqlResult<Stamp> {
    let bytes = row.get_ref(column)?.as_bytes().map_err(rusqlite::Error::from)?;
    Ok(Stamp::from_slice(bytes)?)
}

/// Reads a moment that may be missing.
pub(super) fn moment(row: &Row<'_>, column: usize) -> SqlResult<Option<Timestamp>> {
    let millis: Option<i64> = row.get(column)?;
    Ok(millis.map(|millis| Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())))
}

/// A moment as SQLite's signed integer.
pub(super) fn millis(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}

/// Reads a number that is never negative.
pub(super) fn number(row: &Row<'_>, column: usize) -> SqlResult<u64> {
    let number: i64 = row.get(column)?;
    Ok(u64::try_from(number).map_err(|_| Error::corrupt("a stored position or count is negative"))?)
}

/// A position or count as SQLite's signed integer.
pub(super) fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::internal("a position is beyond 2^63"))
}

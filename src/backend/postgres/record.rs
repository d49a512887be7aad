//! Stored rows, read back. One that cannot be read is an error of its own, never of the rows beside it.

use bytes::Bytes;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type, TypeInfo};

use crate::contract::{Entry, GetOptions, Item, ItemId};
use crate::error::{Error, Result};
use crate::revision::Revision;
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::{Format, Value};

use super::error::column;

/// A column of the type `json`, which the server sends as the text it is. Nothing else passes for it, as `jsonb`, which begins
/// with a version.
struct Json<'r>(&'r str);

impl Type<Postgres> for Json<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("json")
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        ty.name().eq_ignore_ascii_case("json")
    }
}

impl<'r> Decode<'r, Postgres> for Json<'r> {
    fn decode(value: PgValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
        value.as_str().map(Self)
    }
}

/// Reads a value from the columns kind, JSON and binary.
fn value(kind: i16, json: Option<Json<'_>>, bin: Option<&[u8]>) -> Result<Value> {
    match (kind, json, bin) {
        (1, Some(Json(text)), None) => Ok(Value::from_stored(Bytes::copy_from_slice(text.as_bytes()), Format::Json)),
        (2, None, Some(bytes)) => Ok(Value::from_stored(Bytes::copy_from_slice(bytes), Format::Binary)),
        _ => Err(unreadable()),
    }
}

/// Makes an error of a row whose payload is not what its kind says.
pub(super) fn unreadable() -> Error {
    Error::corrupt("a stored value has no readable payload")
}

/// Reads an entry from the columns key, stamp, kind, expiry, JSON, binary.
pub(super) fn entry(row: &PgRow, options: GetOptions) -> Result<(Entry, Stamp)> {
    let stamp = Stamp::from_slice(column(row, 1)?)?;
    let value = value(column(row, 2)?, column(row, 4)?, column(row, 5)?)?;
    let entry = Entry::new(value, Revision::from_stamp(stamp));
    if !options.expiry {
        return Ok((entry, stamp));
    }
    Ok((entry.with_expiry(moment(row, 3)?), stamp))
}

/// Reads an item from the columns position, id, kind, JSON, binary.
pub(super) fn item(row: &PgRow) -> Result<Item> {
    let id = ItemId::parse(column::<&str>(row, 1)?).map_err(|_| Error::corrupt("a stored item id is not one"))?;
    let value = value(column(row, 2)?, column(row, 3)?, column(row, 4)?)?;
    Ok(Item::new(number(row, 0)?, id, value))
}

/// Reads a value from the columns kind, JSON and binary, beginning at this one; `None` is a tombstone.
pub(super) fn value_or_tombstone(row: &PgRow, kind: usize) -> Result<Option<Value>> {
    match column::<i16>(row, kind)? {
        0 => Ok(None),
        number => value(number, column(row, kind + 1)?, column(row, kind + 2)?).map(Some),
    }
}

/// Reads a moment that may be absent.
pub(super) fn moment(row: &PgRow, index: usize) -> Result<Option<Timestamp>> {
    Ok(column::<Option<i64>>(row, index)?.map(|millis| Timestamp::from_millis(millis.unsigned_abs())))
}

/// A number as the server takes it; none of ours is beyond its range.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a count or position.
pub(super) fn number(row: &PgRow, index: usize) -> Result<u64> {
    u64::try_from(column::<i64>(row, index)?).map_err(|_| Error::corrupt("a stored number is negative"))
}

/// Reads a stamp that a write is to go past, and that may be absent. One that was corrupted counts as the oldest, so that the
/// write mends the row.
pub(super) fn stamp(row: &PgRow, index: usize) -> Result<Option<Stamp>> {
    Ok(column::<Option<&[u8]>>(row, index)?.map(|bytes| Stamp::from_slice(bytes).unwrap_or(Stamp::MIN)))
}

//! Lists: [`Append`], [`Item`] and [`ListRange`].

use std::fmt;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;
use crate::value::Value;

use super::write::{Attempt, Durability};

/// The name of an item within its list: an append with a name that the list has, or lately had, is a no-op.
///
/// 1 to 256 bytes of UTF-8 without control characters. The default is the text of the append's stamp.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(String);

impl ItemId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Checks a text and makes it an id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) if it is empty, longer than [`ItemId::MAX_BYTES`], or
    /// holds a control character.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::MAX_BYTES || text.chars().any(char::is_control) {
            let limit = Self::MAX_BYTES;
            return Err(Error::invalid_value(format!(
                "an item id has 1 to {limit} bytes of UTF-8 and no control characters"
            )));
        }
        Ok(Self(text))
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Stamp> for ItemId {
    fn from(stamp: Stamp) -> Self {
        Self(stamp.to_string())
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One item to be put at the tail of the list under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Append {
    /// The list's key.
    pub key: Key,
    /// The item's value.
    pub value: Value,
    /// The item's name within the list.
    pub item_id: ItemId,
    /// The append's identity and its place in the order of writes.
    pub stamp: Stamp,
    /// Whether an earlier attempt may have been applied.
    pub attempt: Attempt,
}

impl Append {
    /// Makes an append whose item is named by its stamp.
    #[must_use]
    pub fn new(key: Key, value: Value, stamp: Stamp) -> Self {
        Self { key, value, item_id: ItemId::from(stamp), stamp, attempt: Attempt::First }
    }

    /// Names the item, so that the same append sent twice has effect once.
    #[must_use]
    pub fn with_item_id(mut self, item_id: ItemId) -> Self {
        self.item_id = item_id;
        self
    }
}

/// The answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendAck {
    /// The item's position: it increases strictly along the list and is never used again. The first is 0, and positions do
    /// not move when items before them are trimmed. `None` where it is not known yet.
    pub position: Option<u64>,
    /// Whether the list had an item of this id already, so that nothing was added; `None` where it is not known yet.
    pub existed: Option<bool>,
    /// How safely the item is kept.
    pub durability: Durability,
}

impl AppendAck {
    /// Makes an acknowledgement by the primary.
    #[must_use]
    pub const fn primary(position: u64, existed: bool) -> Self {
        Self { position: Some(position), existed: Some(existed), durability: Durability::Primary }
    }
}

/// An item as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The item's position; see [`AppendAck::position`].
    pub position: u64,
    /// The item's name within the list.
    pub id: ItemId,
    /// The value, byte for byte as it was appended.
    pub value: Value,
}

impl Item {
    /// Makes an item.
    #[must_use]
    pub const fn new(position: u64, id: ItemId, value: Value) -> Self {
        Self { position, id, value }
    }
}

/// Which items of a list: both ends included, counted from the head from 0, or from the tail from -1, as Redis's `LRANGE`.
///
/// Ends beyond the list are cut to it; a start after the end is an empty range.
///
/// # Examples
///
/// ```
/// use agent_storage::contract::ListRange;
///
/// assert_eq!(ListRange::new(0, -1).resolve(5), Some((0, 4)));
/// assert_eq!(ListRange::last(10).resolve(3), Some((0, 2)));
/// assert_eq!(ListRange::new(4, 2).resolve(5), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRange {
    /// The first item.
    pub start: i64,
    /// The last item.
    pub end: i64,
}

impl ListRange {
    /// The whole list.
    pub const ALL: Self = Self { start: 0, end: -1 };

    /// Makes a range of both ends.
    #[must_use]
    pub const fn new(start: i64, end: i64) -> Self {
        Self { start, end }
    }

    /// The last `count` items.
    #[must_use]
    pub fn last(count: u64) -> Self {
        match i64::try_from(count) {
            Ok(0) => Self { start: 1, end: 0 },
            Ok(count) => Self { start: -count, end: -1 },
            Err(_) => Self::ALL,
        }
    }

    /// The first and last index, both included and from 0, in a list of `length` items; `None` if the range is empty.
    #[must_use]
    pub fn resolve(self, length: u64) -> Option<(u64, u64)> {
        let last = i128::from(length) - 1;
        let absolute = |index: i64| i128::from(index) + if index < 0 { last + 1 } else { 0 };
        let (start, end) = (absolute(self.start).max(0), absolute(self.end).min(last));
        if start > end {
            return None;
        }
        u64::try_from(start).ok().zip(u64::try_from(end).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_resolve_as_lrange_does() {
        assert_eq!(ListRange::ALL.resolve(0), None);
        assert_eq!(ListRange::new(-10, -1).resolve(3), Some((0, 2)));
        assert_eq!(ListRange::new(-3, -2).resolve(10), Some((7, 8)));
        assert_eq!(ListRange::new(2, 100).resolve(5), Some((2, 4)));
        assert_eq!(ListRange::new(5, 9).resolve(5), None);
        assert_eq!(ListRange::new(0, -6).resolve(5), None);
        assert_eq!(ListRange::new(i64::MIN, i64::MAX).resolve(5), Some((0, 4)));
        assert_eq!(ListRange::last(0).resolve(5), None);
        assert_eq!(ListRange::last(u64::MAX).resolve(5), Some((0, 4)));
    }

    #[test]
    fn an_id_has_bounds() {
        assert!(ItemId::parse("message 1").is_ok());
        assert!(ItemId::parse("").is_err() && ItemId::parse("a\nb").is_err());
        assert!(ItemId::parse("x".repeat(257)).is_err());
    }
}

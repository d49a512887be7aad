//! Listing, counting and clearing by prefix.

use rusqlite::types::{ToSql, ToSqlOutput, Value as SqlValue};

use crate::contract::{Cursor, KeyPage, ListOptions};
use crate::engine::sqlite::{SqlError, SqlResult};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::codec;
use super::session::Session;
use super::write::{self, Stamped};

/// Keys that one job of a clear removes, so that other writes get their turn in between.
pub(super) const CLEAR_PAGE: usize = 1000;

// A list whose positions were corrupted counts as there: only an empty one is known not to be.
// Both tables are in the order of their keys, so the union is a merge that stops at the limit.
const LIST: &str = "SELECT key FROM kv WHERE key >= ?1 AND key < ?2 AND kind <> 0 \
                    AND (expires_at IS NULL OR expires_at > ?3) \
                    UNION SELECT key FROM list WHERE key >= ?1 AND key < ?2 AND first_position <> next_position \
                    ORDER BY key LIMIT ?4";

const COUNT: &str = "SELECT (SELECT count(*) FROM kv WHERE key >= ?1 AND key < ?2 AND kind <> 0 \
                             AND (expires_at IS NULL OR expires_at > ?3)) \
                          + (SELECT count(*) FROM list WHERE key >= ?1 AND key < ?2 AND first_position <> next_position \
                             AND NOT EXISTS (SELECT 1 FROM kv WHERE kv.key = list.key AND kind <> 0 \
                                             AND (expires_at IS NULL OR expires_at > ?3)))";

/// The keys with a prefix, from a point on, as a half-open range.
#[derive(Clone, Debug)]
pub(super) struct KeyRange {
    from: String,
    to: UpperBound,
}

#[derive(Clone, Debug)]
struct UpperBound(Option<String>);

impl ToSql for UpperBound {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match &self.0 {
            Some(text) => text.to_sql(),
            // SQLite sorts every blob after every text.
            None => Ok(ToSqlOutput::Owned(SqlValue::Blob(Vec::new()))),
        }
    }
}

impl KeyRange {
    /// The keys with a prefix after a cursor.
    pub(super) fn of_page(prefix: &KeyPrefix, cursor: Option<&Cursor>) -> Result<Self> {
        let after = cursor.map(|cursor| Key::parse(cursor.as_str())).transpose();
        let after = after.map_err(|_| Error::invalid_value("the cursor is not one that this database gave"))?;
        Ok(Self::new(prefix, after.as_ref().map(Key::as_str)))
    }

    /// All keys with a prefix, or those after one of them.
    pub(super) fn new(prefix: &KeyPrefix, after: Option<&str>) -> Self {
        // Nothing sorts between a text and the same with a NUL behind it.
        let next = after.map(|after| format!("{after}\0")).unwrap_or_default();
        Self { from: next.max(prefix.as_str().to_owned()), to: UpperBound(prefix.upper_bound()) }
    }
}

/// Lists one page of keys in byte order.
pub(super) fn list(session: &Session<'_>, range: &KeyRange, limit: usize) -> SqlResult<KeyPage> {
    let limit = limit.clamp(1, ListOptions::MAX_LIMIT);
    let (mut keys, more) = keys(session, range, limit + 1)?;
    keys.truncate(limit);
    let next = keys.last().filter(|_| more).map(|last| Cursor::new(last.as_str()));
    Ok(KeyPage::new(keys, next))
}

/// Counts keys.
pub(super) fn count(session: &Session<'_>, range: &KeyRange) -> SqlResult<u64> {
    let mut statement = session.connection.prepare_cached(COUNT)?;
    let mut rows = statement.query((&range.from, &range.to, codec::millis(session.now)))?;
    rows.next()?.map_or(Ok(0), |row| codec::number(row, 0))
}

/// What one job of a clear did.
pub(super) struct Cleared {
    /// How many keys went.
    pub(super) removed: u64,
    /// Whether something newer stayed.
    pub(super) refused: bool,
    /// The newest stamp of what stayed, as far as that is told.
    pub(super) newest: Option<Stamp>,
    /// The last key it looked at, if there are more.
    pub(super) last: Option<Key>,
}

/// Removes the first keys of a range.
pub(super) fn clear(session: &Session<'_>, range: &KeyRange, stamped: Stamped) -> SqlResult<Cleared> {
    let (keys, more) = keys(session, range, CLEAR_PAGE)?;
    let (mut removed, mut refused, mut newest) = (0, false, None);
    for key in &keys {
        match write::delete(session, key, None, stamped) {
            Ok(ack) => removed += u64::from(ack.existed == Some(true)),
            Err(SqlError::Storage(error)) if stamped.refuses(&error) => {
                newest = newest.max(error.as_behind().and_then(|behind| behind.standing()));
                refused = true;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Cleared { removed, refused, newest, last: keys.last().filter(|_| more).cloned() })
}

/// Reads the first rows of a range; says whether there were as many as asked for.
///
/// A row whose key is none was not written by this crate. It is passed over, so that it does not hide the others; so is a page
/// of nothing else.
pub(super) fn keys(session: &Session<'_>, range: &KeyRange, limit: usize) -> SqlResult<(Vec<Key>, bool)> {
    let mut from = range.from.clone();
    loop {
        let mut statement = session.connection.prepare_cached(LIST)?;
        let mut rows = statement.query((&from, &range.to, codec::millis(session.now), codec::signed(limit as u64)?))?;
        let (mut keys, mut read, mut last) = (Vec::new(), 0, None);
        while let Some(row) = rows.next()? {
            read += 1;
            let text = row.get::<_, String>(0).ok();
            match text.as_deref().and_then(|text| Key::parse(text).ok()) {
                Some(key) => keys.push(key),
                None => tracing::warn!("a row of the SQLite database has no valid key and was passed over"),
            }
            last = text.or(last);
        }
        match last {
            Some(last) if keys.is_empty() && read == limit => from = format!("{last}\0"),
            _ => return Ok((keys, read == limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sqlite::migrate;
    use rusqlite::Connection;

    #[test]
    fn a_page_is_read_in_order_without_sorting_all_keys() {
        let connection = Connection::open_in_memory().unwrap();
        (migrate::LAYOUT.migrate)(&connection).unwrap();
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {LIST}")).unwrap();
        let mut rows = plan.raw_query();
        let mut searches = 0;
        while let Some(row) = rows.next().unwrap() {
            let step: String = row.get(3).unwrap();
            assert!(!step.contains("TEMP B-TREE") && !step.starts_with("SCAN"), "{step}");
            searches += usize::from(step.contains("(key>? AND key<?)"));
        }
        assert_eq!(searches, 2);
    }

    #[test]
    fn a_range_begins_at_the_prefix_or_after_the_cursor() {
        let prefix = KeyPrefix::parse("b").unwrap();
        assert_eq!(KeyRange::new(&prefix, None).from, "b");
        assert_eq!(KeyRange::new(&prefix, Some("ba")).from, "ba\0");
        assert_eq!(KeyRange::new(&prefix, Some("a")).from, "b");
    }
}

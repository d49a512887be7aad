//! What stands in a database, read from its tables.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// The tables of a database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// Which one it is, in hexadecimal digits; `None` has no tables yet.
    pub(crate) identity: Option<String>,
    /// The number that every probe raises.
    pub(crate) canary: u64,
    pub(crate) values: BTreeMap<String, i64>,
    /// The live items of each list, in their order.
    pub(crate) items: BTreeMap<String, Vec<i64>>,
    pub(crate) conflicts: Vec<Conflict>,
}

/// A write that was kept because it lost.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    pub(crate) key: String,
    /// `None` of a delete.
    pub(crate) value: Option<i64>,
}

const VALUES: &str = "SELECT key, CAST(json AS INTEGER) FROM kv WHERE kind = 1";
const ITEMS: &str = "SELECT item.key, CAST(json AS INTEGER) FROM item JOIN list ON list.key = item.key \
                     WHERE position >= first_position AND position < next_position ORDER BY item.key, position";
const CONFLICTS: &str = "SELECT key, CASE kind WHEN 0 THEN NULL ELSE CAST(json AS INTEGER) END FROM conflict";

impl Contents {
    /// Reads a file, which may be missing or empty.
    pub(crate) fn of_file(path: &Path) -> Self {
        if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
            return Self::default();
        }
        // Not for reading only: whoever comes first to a write-ahead log has to write.
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        Self::read(&connection).unwrap()
    }

    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut contents = Self::default();
        let transaction = connection.unchecked_transaction()?;
        if !transaction.table_exists(None, "meta")? {
            return Ok(contents);
        }
        let meta = "SELECT lower(hex(identity)), canary FROM meta";
        let (identity, canary) = transaction.query_row(meta, [], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
        (contents.identity, contents.canary) = (Some(identity), u64::try_from(canary).unwrap());
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        contents.values = transaction.prepare(VALUES)?.query_map([], pair)?.collect::<rusqlite::Result<_>>()?;
        for item in transaction.prepare(ITEMS)?.query_map([], pair)? {
            let (key, value) = item?;
            contents.items.entry(key).or_default().push(value);
        }
        let lost = |row: &rusqlite::Row<'_>| Ok(Conflict { key: row.get(0)?, value: row.get(1)? });
        contents.conflicts = transaction.prepare(CONFLICTS)?.query_map([], lost)?.collect::<rusqlite::Result<_>>()?;
        Ok(contents)
    }

    /// The items of a list.
    pub(crate) fn list(&self, key: &str) -> &[i64] {
        self.items.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a write is among those that lost; a delete with `None`.
    pub(crate) fn kept(&self, key: &str, value: Option<i64>) -> bool {
        self.conflicts.iter().any(|conflict| conflict.key == key && conflict.value == value)
    }
}

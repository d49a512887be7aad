//! What stands in the database in the end, read from its tables.

use std::collections::BTreeMap;

use crate::line::Digits;
use crate::support::Postgres;

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) values: BTreeMap<String, Row>,
    /// The live items of each list, in their order.
    pub(crate) items: BTreeMap<String, Vec<Item>>,
    pub(crate) conflicts: Vec<Conflict>,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) stamp: Digits,
    /// `None` is a tombstone, or what has ended.
    pub(crate) value: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) stamp: Digits,
    pub(crate) value: i64,
}

/// A write that was kept because it lost.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) key: String,
    pub(crate) stamp: Digits,
    pub(crate) operation: String,
    /// `None` of a delete.
    pub(crate) value: Option<i64>,
    pub(crate) winner: Digits,
}

impl Outcome {
    pub(crate) fn read(server: &Postgres, database: &str) -> Self {
        let rows = |sql: &str| -> Vec<Vec<String>> {
            let text = server.query(database, sql);
            text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
        };
        let live = "CASE WHEN expires_at IS NULL OR expires_at > extract(epoch FROM now()) * 1000 THEN json::text END";
        let values = rows(&format!("SELECT key, encode(stamp, 'hex'), {live} FROM agent_storage.kv"));
        let values = values.into_iter().map(|row| {
            let [key, stamp, value] = <[String; 3]>::try_from(row).unwrap();
            (key, Row { stamp, value: value.parse().ok() })
        });
        let mut items = BTreeMap::<String, Vec<Item>>::new();
        let live = "SELECT i.key, encode(i.stamp, 'hex'), i.json::text FROM agent_storage.item AS i \
                    JOIN agent_storage.list AS l ON l.key = i.key \
                    WHERE i.position >= l.first_position AND i.position < l.next_position ORDER BY i.key, i.position";
        for row in rows(live) {
            let [key, stamp, value] = <[String; 3]>::try_from(row).unwrap();
            items.entry(key).or_default().push(Item { stamp, value: value.parse().unwrap() });
        }
        let lost = "SELECT key, encode(stamp, 'hex'), operation, json::text, encode(winner, 'hex') \
                    FROM agent_storage.conflict ORDER BY stamp";
        let conflicts = rows(lost).into_iter().map(|row| {
            let [key, stamp, operation, value, winner] = <[String; 5]>::try_from(row).unwrap();
            Conflict { key, stamp, operation, value: value.parse().ok(), winner }
        });
        Self { values: values.collect(), items, conflicts: conflicts.collect() }
    }

    /// Whether a write is among those that lost.
    pub(crate) fn kept(&self, key: &str, value: i64) -> bool {
        self.conflicts.iter().any(|conflict| conflict.key == key && conflict.value == Some(value))
    }
}

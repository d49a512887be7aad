//! One shard: an ordered map of records, with its weight and its sweeping hand.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::key::{Key, KeyPrefix};
use crate::time::Timestamp;

use super::list::List;
use super::record::{Cell, Record};

/// How many records each write looks at for ones that are gone, so that what expired unread does not pile up.
const SWEEP_PER_WRITE: usize = 2;

/// What the values of a shard take. Lists are not counted: only the unbounded database has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// One shard of a table.
#[derive(Debug, Default)]
pub(super) struct Shard {
    records: BTreeMap<Key, Record>,
    usage: Usage,
    hand: Option<Key>,
}

impl Shard {
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    pub(super) fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// The live value under a key, marked as used.
    pub(super) fn use_cell(&mut self, key: &Key, now: Timestamp) -> Option<&Cell> {
        let cell = self.records.get_mut(key)?.cell.as_mut().filter(|cell| cell.is_live(now))?;
        cell.used = true;
        Some(cell)
    }

    /// Puts a value under a key and hands out the one that stood there, live or not.
    pub(super) fn put_cell(&mut self, key: &Key, cell: Cell) -> Option<Cell> {
        self.usage.entries += 1;
        self.usage.bytes += cell.weight(key);
        let old = self.records.entry(key.clone()).or_default().cell.replace(cell);
        self.discount(key, old.as_ref());
        old
    }

    /// Takes the value away, live or not.
    pub(super) fn take_cell(&mut self, key: &Key) -> Option<Cell> {
        let record = self.records.get_mut(key)?;
        let old = record.cell.take();
        if record.list.is_none() {
            self.records.remove(key);
        }
        self.discount(key, old.as_ref());
        old
    }

    /// The list under a key, made if there is none.
    pub(super) fn list_mut(&mut self, key: &Key) -> &mut List {
        self.records.entry(key.clone()).or_default().list.get_or_insert_default()
    }

    /// The list under a key, if there is one.
    pub(super) fn existing_list_mut(&mut self, key: &Key) -> Option<&mut List> {
        self.records.get_mut(key)?.list.as_deref_mut()
    }

    /// The records with a prefix in order, from the first key after `after`.
    pub(super) fn records_after<'a>(
        &'a self,
        prefix: &'a KeyPrefix,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Record)> {
        let start = match after {
            Some(after) if after >= prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(prefix.as_str()),
        };
        self.records.range::<str, _>((start, Bound::Unbounded)).take_while(|(key, _)| prefix.matches(key))
    }

    /// Looks at the next few records and removes those that are gone.
    pub(super) fn sweep_some(&mut self, now: Timestamp) {
        for _ in 0..SWEEP_PER_WRITE {
            let Some(key) = self.advance_hand() else { return };
            self.remove_if_gone(&key, now);
        }
    }

    /// Evicts one value that was not used since the hand last passed; `false` if there is nothing to evict.
    ///
    /// This is the CLOCK algorithm (Corbató, 1968): a used value gets a second chance. Two rounds always find one.
    pub(super) fn evict_one(&mut self, now: Timestamp) -> bool {
        for _ in 0..self.records.len().saturating_mul(2) {
            let Some(key) = self.advance_hand() else { return false };
            if self.remove_if_gone(&key, now) {
                return true;
            }
            match self.records.get_mut(&key).and_then(|record| record.cell.as_mut()) {
                Some(cell) if cell.used => cell.used = false,
                Some(_) => {
                    self.take_cell(&key);
                    return true;
                }
                None => {}
            }
        }
        false
    }

    /// Removes what has expired or is forgotten under a key; says whether a value went.
    fn remove_if_gone(&mut self, key: &Key, now: Timestamp) -> bool {
        let Some(record) = self.records.get_mut(key) else { return false };
        if record.list.as_ref().is_some_and(|list| list.is_forgotten(now)) {
            record.list = None;
        }
        let expired = record.cell.as_ref().is_some_and(|cell| !cell.is_live(now));
        if expired {
            self.take_cell(key);
        } else if record.cell.is_none() && record.list.is_none() {
            self.records.remove(key);
        }
        expired
    }

    fn advance_hand(&mut self) -> Option<Key> {
        let after = self.hand.take();
        let next = after.and_then(|hand| {
            self.records.range::<Key, _>((Bound::Excluded(hand), Bound::Unbounded)).next().map(|(key, _)| key.clone())
        });
        self.hand = next.or_else(|| self.records.keys().next().cloned());
        self.hand.clone()
    }

    fn discount(&mut self, key: &Key, old: Option<&Cell>) {
        if let Some(old) = old {
            self.usage.entries = self.usage.entries.saturating_sub(1);
            self.usage.bytes = self.usage.bytes.saturating_sub(old.weight(key));
        }
    }
}

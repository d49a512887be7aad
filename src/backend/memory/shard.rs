//! One shard: an ordered map of records, with its weight and its sweeping hand.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::key::{Key, KeyPrefix};
use crate::time::Timestamp;

use super::list::List;
use super::record::{Cell, Record};
use super::tombstones::Tombstones;

/// How many records each write looks at for ones that are gone, so that what expired unread does not pile up.
const SWEEP_PER_WRITE: usize = 2;

/// What the values of a shard take. Lists are not counted: only the unbounded database has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// One shard of a table.
#[derive(Debug)]
pub(super) struct Shard {
    records: BTreeMap<Key, Record>,
    usage: Usage,
    /// Where the sweep for expired records stands.
    hand: Option<Key>,
    /// Keys in the order they came, with the ticket of the value that was meant. A value that is gone leaves its ticket behind.
    queue: VecDeque<(Key, u64)>,
    next_ticket: u64,
    pub(super) tombstones: Tombstones,
}

impl Shard {
    /// Makes an empty shard that remembers so many deletes.
    pub(super) fn new(tombstones: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            usage: Usage::default(),
            hand: None,
            queue: VecDeque::new(),
            next_ticket: 0,
            tombstones: Tombstones::new(tombstones),
        }
    }

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

    /// Puts a value under a key and hands out the one that stood there, live or not. A new key goes to the end of the eviction
    /// queue; one that is overwritten keeps its place and counts as used.
    pub(super) fn put_cell(&mut self, key: &Key, mut cell: Cell) -> Option<Cell> {
        self.usage.entries += 1;
        self.usage.bytes += cell.weight(key);
        let slot = &mut self.records.entry(key.clone()).or_default().cell;
        match slot {
            Some(standing) => (cell.ticket, cell.used) = (standing.ticket, true),
            None => {
                self.next_ticket += 1;
                cell.ticket = self.next_ticket;
                self.queue.push_back((key.clone(), cell.ticket));
            }
        }
        let old = slot.replace(cell);
        self.discount(key, old.as_ref());
        self.compact_queue();
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

    /// Looks at the next few records and removes those that are gone, and forgets old deletes.
    pub(super) fn sweep_some(&mut self, now: Timestamp) {
        self.tombstones.sweep(now);
        for _ in 0..SWEEP_PER_WRITE {
            let Some(key) = self.advance_hand() else { return };
            self.remove_if_gone(&key, now);
        }
    }

    /// Evicts one value, but not the one under `spared`; `false` if there is none to evict.
    ///
    /// This is first in, first out with a second chance for what was used (the CLOCK algorithm; Corbató, 1968). Two rounds always
    /// find one.
    pub(super) fn evict_one(&mut self, spared: &Key, now: Timestamp) -> bool {
        for _ in 0..self.queue.len().saturating_mul(2) {
            let Some((key, ticket)) = self.queue.pop_front() else { return false };
            let standing = self.records.get_mut(&key).and_then(|record| record.cell.as_mut());
            let Some(cell) = standing.filter(|cell| cell.ticket == ticket) else { continue };
            if cell.is_live(now) && (cell.used || key == *spared) {
                cell.used = false;
                self.queue.push_back((key, ticket));
                continue;
            }
            self.take_cell(&key);
            return true;
        }
        false
    }

    /// Drops the tickets of values that are gone once they are the most, so that the queue is as long as twice the values at most.
    fn compact_queue(&mut self) {
        let values = usize::try_from(self.usage.entries).unwrap_or(usize::MAX);
        if self.queue.len() > values.saturating_mul(2).saturating_add(16) {
            let records = &self.records;
            let standing = |key: &Key| records.get(key).and_then(|record| record.cell.as_ref());
            self.queue.retain(|(key, ticket)| standing(key).is_some_and(|cell| cell.ticket == *ticket));
        }
    }

    /// Removes what has expired or is forgotten under a key.
    fn remove_if_gone(&mut self, key: &Key, now: Timestamp) {
        let Some(record) = self.records.get_mut(key) else { return };
        if let Some(list) = &mut record.list {
            list.sweep(now);
        }
        record.list.take_if(|list| list.is_unused());
        let expired = record.cell.as_ref().is_some_and(|cell| !cell.is_live(now));
        if expired {
            self.take_cell(key);
        } else if record.cell.is_none() && record.list.is_none() {
            self.records.remove(key);
        }
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

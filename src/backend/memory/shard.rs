//! One shard: an ordered map of records, with its weight and its sweeping hand.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// What one step of the eviction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// The value of the ticket is gone now.
    Evicted,
    /// The value had been used, and has a new place at the end of the queue.
    Deferred,
    /// There was no value, or somebody else has dealt with it meanwhile.
    Passed,
}

/// One shard of a table.
#[derive(Debug)]
pub(super) struct Shard {
    index: usize,
    records: BTreeMap<Key, Record>,
    usage: Usage,
    /// Where the sweep for expired records stands.
    hand: Option<Key>,
    /// Keys in the order they came, with the ticket of the value that was meant. A value that is gone leaves its ticket behind.
    queue: VecDeque<(Key, u64)>,
    /// The last ticket that any shard gave: the queues of all shards are one, in the order of the tickets.
    tickets: Arc<AtomicU64>,
    pub(super) tombstones: Tombstones,
    /// How long a value is kept after its expiry, where older writes may still be replayed.
    linger: Duration,
}

impl Shard {
    /// Makes the empty shard of an index. It remembers so many deletes, keeps what expired so long, and numbers its values from the
    /// counter that all shards share.
    pub(super) fn new(index: usize, tombstones: usize, linger: Duration, tickets: Arc<AtomicU64>) -> Self {
        Self {
            index,
            records: BTreeMap::new(),
            usage: Usage::default(),
            hand: None,
            queue: VecDeque::new(),
            tickets,
            tombstones: Tombstones::new(tombstones),
            linger,
        }
    }

    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    pub(super) const fn index(&self) -> usize {
        self.index
    }

    /// The ticket at the head of the eviction queue; past all others if the queue is empty.
    pub(super) fn head(&self) -> u64 {
        self.queue.front().map_or(u64::MAX, |(_, ticket)| *ticket)
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
        let tickets = &self.tickets;
        let slot = &mut self.records.entry(key.clone()).or_default().cell;
        match slot {
            Some(standing) => (cell.ticket, cell.used) = (standing.ticket, true),
            None => {
                cell.ticket = next_ticket(tickets);
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

    /// Takes a ticket off the head of the eviction queue: evicts its value, or gives it a second chance if it was used or is
    /// `spared`. If the head is another by now, it is left alone, because another shard's may come before it.
    ///
    /// First in, first out with a second chance is the CLOCK algorithm (Corbató, 1968).
    pub(super) fn evict_step(&mut self, ticket: u64, spared: &Key, now: Timestamp) -> Eviction {
        let Some((key, ticket)) = self.queue.pop_front_if(|(_, head)| *head == ticket) else { return Eviction::Passed };
        let standing = self.records.get_mut(&key).and_then(|record| record.cell.as_mut());
        let Some(cell) = standing.filter(|cell| cell.ticket == ticket) else { return Eviction::Passed };
        if cell.is_live(now) && (cell.used || key == *spared) {
            cell.used = false;
            cell.ticket = next_ticket(&self.tickets);
            self.queue.push_back((key, cell.ticket));
            return Eviction::Deferred;
        }
        self.take_cell(&key);
        Eviction::Evicted
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
        let linger = self.linger;
        let expired =
            record.cell.as_ref().filter(|cell| cell.expires_at.is_some_and(|at| at <= now && now.since(at) >= linger));
        if let Some(stamp) = expired.map(|cell| cell.stamp) {
            self.tombstones.forget(stamp);
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

/// Taken under the lock of a shard, so that the tickets of its queue rise.
fn next_ticket(tickets: &AtomicU64) -> u64 {
    tickets.fetch_add(1, Ordering::Relaxed) + 1
}

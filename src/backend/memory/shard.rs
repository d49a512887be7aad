//! One shard: records, with their weight, their eviction queue and a sweeping hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::key::{Key, KeyPrefix};
use crate::time::Timestamp;

use super::list::List;
use super::record::{Cell, Record};
use super::records::Records;
use super::tombstones::Tombstones;

/// How many places of the hash table each write looks at for records that are gone, so that what expired unread does not pile up.
/// At least every fourth place holds a record, unless most of a table's records have been removed.
const SWEEP_PER_WRITE: usize = 4;

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
    records: Records,
    usage: Usage,
    /// The place where the sweep for expired records stands.
    hand: usize,
    /// Of a table that evicts.
    queue: Option<Queue>,
    pub(super) tombstones: Tombstones,
    /// How long a value is kept after its expiry, where older writes may still be replayed.
    linger: Duration,
}

/// What the shards of a table share.
#[derive(Debug)]
pub(super) struct Design {
    pub(super) hasher: RandomState,
    /// How many deletes a shard remembers.
    pub(super) tombstones: usize,
    /// How long a value is kept after its expiry.
    pub(super) linger: Duration,
    /// The last ticket that any shard gave, if the table evicts: the queues of all shards are one, in the order of the tickets.
    pub(super) tickets: Option<Arc<AtomicU64>>,
}

/// Keys in the order they came, with the ticket of the value that was meant. A value that is gone leaves its ticket behind.
#[derive(Debug)]
struct Queue {
    waiting: VecDeque<(Key, u64)>,
    tickets: Arc<AtomicU64>,
}

impl Queue {
    /// Gives a key the place at the end. It is called under the lock of the shard, so that the tickets of a queue rise.
    fn push(&mut self, key: Key) -> u64 {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting.push_back((key, ticket));
        ticket
    }
}

impl Shard {
    /// Makes the empty shard of an index.
    pub(super) fn new(index: usize, design: &Design) -> Self {
        let Design { hasher, tombstones, linger, tickets } = design;
        Self {
            index,
            records: Records::new(hasher.clone()),
            usage: Usage::default(),
            hand: 0,
            queue: tickets.clone().map(|tickets| Queue { waiting: VecDeque::new(), tickets }),
            tombstones: Tombstones::new(*tombstones),
            linger: *linger,
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
        let head = self.queue.as_ref().and_then(|queue| queue.waiting.front());
        head.map_or(u64::MAX, |(_, ticket)| *ticket)
    }

    pub(super) fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    pub(super) fn record_hashed(&self, hash: u64, key: &Key) -> Option<&Record> {
        self.records.get_hashed(hash, key)
    }

    /// The live value under a key, marked as used.
    pub(super) fn use_cell(&mut self, key: &Key, now: Timestamp) -> Option<&Cell> {
        self.records.get_mut(key)?.use_cell(now)
    }

    /// As [`Shard::use_cell`], for who has the key's hash.
    pub(super) fn use_cell_hashed(&mut self, hash: u64, key: &Key, now: Timestamp) -> Option<&Cell> {
        self.records.get_mut_hashed(hash, key)?.use_cell(now)
    }

    /// Puts a value under a key and hands out the one that stood there, live or not. A new key goes to the end of the eviction
    /// queue; one that is overwritten keeps its place and counts as used.
    pub(super) fn put_cell(&mut self, key: &Key, mut cell: Cell) -> Option<Cell> {
        self.usage.entries += 1;
        self.usage.bytes += cell.weight(key);
        let slot = &mut self.records.get_or_insert(key).cell;
        match (&*slot, &mut self.queue) {
            (Some(standing), _) => (cell.ticket, cell.used) = (standing.ticket, true),
            (None, Some(queue)) => cell.ticket = queue.push(key.clone()),
            (None, None) => {}
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
        self.records.get_or_insert(key).list.get_or_insert_default()
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
        self.records.after(prefix, after)
    }

    /// Looks at the next few records and removes those that are gone, and forgets old deletes.
    pub(super) fn sweep_some(&mut self, now: Timestamp) {
        self.tombstones.sweep(now);
        for _ in 0..SWEEP_PER_WRITE {
            self.hand = if self.hand < self.records.places() { self.hand + 1 } else { 0 };
            if let Some(key) = self.records.key_at(self.hand).cloned() {
                self.remove_if_gone(&key, now);
            }
        }
    }

    /// Takes a ticket off the head of the eviction queue: evicts its value, or gives it a second chance if it was used or is
    /// `spared`. If the head is another by now, it is left alone, because another shard's may come before it.
    ///
    /// First in, first out with a second chance is the CLOCK algorithm (Corbató, 1968).
    pub(super) fn evict_step(&mut self, ticket: u64, spared: &Key, now: Timestamp) -> Eviction {
        let Some(queue) = &mut self.queue else { return Eviction::Passed };
        let Some((key, ticket)) = queue.waiting.pop_front_if(|(_, head)| *head == ticket) else {
            return Eviction::Passed;
        };
        let standing = self.records.get_mut(&key).and_then(|record| record.cell.as_mut());
        let Some(cell) = standing.filter(|cell| cell.ticket == ticket) else { return Eviction::Passed };
        if cell.is_live(now) && (cell.used || key == *spared) {
            cell.used = false;
            cell.ticket = queue.push(key);
            return Eviction::Deferred;
        }
        self.take_cell(&key);
        Eviction::Evicted
    }

    /// Drops the tickets of values that are gone once they are the most, so that the queue is as long as twice the values at most.
    fn compact_queue(&mut self) {
        let values = usize::try_from(self.usage.entries).unwrap_or(usize::MAX);
        if let Some(queue) = &mut self.queue
            && queue.waiting.len() > values.saturating_mul(2).saturating_add(16)
        {
            let records = &self.records;
            let standing = |key: &Key| records.get(key).and_then(|record| record.cell.as_ref());
            queue.waiting.retain(|(key, ticket)| standing(key).is_some_and(|cell| cell.ticket == *ticket));
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

    fn discount(&mut self, key: &Key, old: Option<&Cell>) {
        if let Some(old) = old {
            self.usage.entries = self.usage.entries.saturating_sub(1);
            self.usage.bytes = self.usage.bytes.saturating_sub(old.weight(key));
        }
    }
}

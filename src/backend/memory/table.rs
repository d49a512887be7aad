//! The sharded table that cache and database stand on.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use crate::contract::{Context, GetOptions, Lookup, Ping, Write, WriteAck};
use crate::error::{Error, Outage, Result};
use crate::key::Key;
use crate::stamp::HybridClock;
use crate::time::Clock;

use super::record::Record;
use super::shard::{Design, Shard, Usage};
use super::write::{self, Moment};

/// The number of shards: enough that two threads on a machine of up to some dozen cores seldom meet.
const SHARDS: usize = 32;

/// Records by key, spread over shards.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    /// The ticket at the head of each shard's eviction queue, to find the oldest without a lock.
    heads: Box<[AtomicU64]>,
    hasher: RandomState,
    clock: Clock,
    stamps: Arc<HybridClock>,
    entries: AtomicU64,
    bytes: AtomicU64,
    closed: AtomicBool,
    /// Whether another table is expected to answer, so that no call but that for the identity may go on.
    foreign: AtomicBool,
}

impl Table {
    /// Makes an empty table that keeps values so long after their expiry. One with a bound can evict, and remembers about so many
    /// deletes; one without remembers all of them.
    pub(super) fn new(clock: Clock, stamps: Arc<HybridClock>, bound: Option<u64>, linger: Duration) -> Self {
        let hasher = RandomState::default();
        let tombstones = bound.and_then(|bound| usize::try_from(bound).ok()).unwrap_or(usize::MAX).div_ceil(SHARDS);
        let tickets = bound.map(|_| Arc::default());
        let design = Design { hasher: hasher.clone(), tombstones, linger, tickets };
        Self {
            shards: (0..SHARDS).map(|index| Mutex::new(Shard::new(index, &design))).collect(),
            heads: std::iter::repeat_with(|| AtomicU64::new(u64::MAX)).take(SHARDS).collect(),
            hasher,
            clock,
            stamps,
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            foreign: AtomicBool::new(false),
        }
    }

    /// The present moment, if the call may go on: the table is open and the one that is expected, and the deadline has not passed.
    pub(super) fn admit(&self, cx: &Context) -> Result<Moment<'_>> {
        self.admit_at(Instant::now(), cx)
    }

    fn admit_at(&self, instant: Instant, cx: &Context) -> Result<Moment<'_>> {
        let moment = self.admit_any_at(instant, cx)?;
        if self.foreign.load(Ordering::Acquire) {
            let why = "another database than this one, or a later state of it, is expected";
            return Err(Error::unavailable(why).with_outage(Outage::Foreign));
        }
        Ok(moment)
    }

    /// As [`Table::admit`], whichever database is expected.
    pub(super) fn admit_any(&self, cx: &Context) -> Result<Moment<'_>> {
        self.admit_any_at(Instant::now(), cx)
    }

    fn admit_any_at(&self, instant: Instant, cx: &Context) -> Result<Moment<'_>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        if cx.is_expired_at(instant) {
            return Err(Error::unavailable("the deadline had passed before the call began"));
        }
        Ok(Moment { now: self.clock.at(instant), stamps: &self.stamps })
    }

    /// Says whether another table than this one is expected to answer.
    pub(super) fn set_foreign(&self, foreign: bool) {
        self.foreign.store(foreign, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// A record in memory can always be written, so there is nothing to try.
    pub(super) fn ping(&self, cx: &Context) -> Result<Ping> {
        self.admit(cx)?;
        Ok(Ping::new(Duration::ZERO, Some(env!("CARGO_PKG_VERSION").to_owned())))
    }

    pub(super) fn shards(&self) -> &[Mutex<Shard>] {
        &self.shards
    }

    pub(super) fn shard_index(&self, key: &Key) -> usize {
        shard_index(self.hasher.hash_one(key))
    }

    /// Runs something on the shard of a key, and keeps count of what it changed.
    pub(super) fn with_shard<T>(&self, key: &Key, run: impl FnOnce(&mut Shard) -> T) -> Result<T> {
        Ok(self.with_guard(&mut self.lock_shard(self.hasher.hash_one(key))?, run))
    }

    /// The shard whose eviction queue has the oldest head, and that head's ticket; `None` if all queues are empty.
    pub(super) fn oldest(&self) -> Option<(&Mutex<Shard>, u64)> {
        let heads = self.heads.iter().map(|head| head.load(Ordering::Relaxed));
        self.shards.iter().zip(heads).min_by_key(|(_, head)| *head).filter(|(_, head)| *head != u64::MAX)
    }

    /// As [`Table::with_shard`], on a shard that is locked already.
    pub(super) fn with_guard<T>(&self, shard: &mut MutexGuard<'_, Shard>, run: impl FnOnce(&mut Shard) -> T) -> T {
        let (before, head) = (shard.usage(), shard.head());
        let result = run(shard);
        self.count_change(before, shard.usage());
        if shard.head() != head
            && let Some(published) = self.heads.get(shard.index())
        {
            published.store(shard.head(), Ordering::Relaxed);
        }
        result
    }

    pub(super) fn read<T>(&self, key: &Key, run: impl FnOnce(Option<&Record>) -> T) -> Result<T> {
        let hash = self.hasher.hash_one(key);
        Ok(run(self.lock_shard(hash)?.record_hashed(hash, key)))
    }

    /// Reads a value as it stands, and as old as it is at one moment of the call.
    pub(super) fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        let now = self.admit_at(cx.moment(), cx)?.now;
        let hash = self.hasher.hash_one(key);
        Ok(match self.lock_shard(hash)?.use_cell_hashed(hash, key, now) {
            Some(cell) => Lookup::Found(cell.entry(options)),
            None => Lookup::missing(),
        })
    }

    pub(super) fn exists(&self, key: &Key, cx: &Context) -> Result<bool> {
        let now = self.admit(cx)?.now;
        self.read(key, |record| record.is_some_and(|record| record.exists(now)))
    }

    pub(super) fn write(&self, write: Write, moment: Moment<'_>) -> Result<WriteAck> {
        let hash = self.hasher.hash_one(&write.key);
        self.with_guard(&mut self.lock_shard(hash)?, |shard| {
            shard.sweep_some(moment.now);
            write::write(shard, write, moment).map(|(ack, _undo)| ack)
        })
    }

    fn lock_shard(&self, hash: u64) -> Result<MutexGuard<'_, Shard>> {
        self.shards.get(shard_index(hash)).map(lock).ok_or_else(|| Error::internal("no such shard"))
    }

    /// What all values take.
    pub(super) fn usage(&self) -> Usage {
        Usage { entries: self.entries.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn count_change(&self, before: Usage, after: Usage) {
        if before != after {
            self.entries.fetch_add(after.entries.wrapping_sub(before.entries), Ordering::Relaxed);
            self.bytes.fetch_add(after.bytes.wrapping_sub(before.bytes), Ordering::Relaxed);
        }
    }
}

/// The shard of a hash. The hash table of a shard goes by the lowest and the highest bits, so this goes by others.
const fn shard_index(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

/// Locks a shard. A panic under the lock cannot leave a record half-changed, so a poisoned lock is taken as it is.
pub(super) fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

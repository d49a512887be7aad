//! The [`MemoryCache`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::MemoryCacheConfig;
use crate::contract::{
    Attempt, CacheBackend, Capabilities, Context, GetOptions, IncrementOptions, KeyPage, ListOptions, Lookup, Ping,
    Store, Write, WriteAck, WriteMode, WriteOp, in_order,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::{HybridClock, Stamp};
use crate::time::{Clock, Timestamp};
use crate::value::Value;

use super::shard::{Eviction, Shard};
use super::table::{Table, lock};
use super::write::{self, Moment, Stamped};

/// A cache in this process's memory, bounded by bytes and by entries.
///
/// When it is full it evicts what came first and was not used since (the CLOCK algorithm). A value
/// larger than the whole cache is refused.
///
/// Beside its entries it remembers the keys and stamps of what was deleted within ten minutes, at most about as many as its
/// bound of entries, so that the repeat of an older write does not bring a deleted value back. They count against no bound.
///
/// # Examples
///
/// ```
/// use agent_storage::backend::memory::MemoryCache;
/// use agent_storage::config::MemoryCacheConfig;
/// use agent_storage::contract::{Context, GetOptions, Store, Write};
/// use agent_storage::{HybridClock, Key, Value};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let cache = MemoryCache::new(&MemoryCacheConfig::default());
/// let cx = Context::with_timeout(Duration::from_secs(1));
/// let key = Key::parse("session:42")?;
/// let write = Write::put(key.clone(), Value::json("1")?, HybridClock::process().issue());
/// cache.write(write, &cx).await?;
/// assert!(cache.get(&key, &GetOptions::default(), &cx).await?.is_found());
/// # Ok::<(), agent_storage::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct MemoryCache {
    table: Table,
    max_bytes: u64,
    max_entries: u64,
}

impl MemoryCache {
    /// Makes an empty cache.
    #[must_use]
    pub fn new(config: &MemoryCacheConfig) -> Self {
        Self::with_clocks(config, Clock::system(), HybridClock::process())
    }

    /// Makes an empty cache that reads the time and its stamps from these clocks.
    #[must_use]
    pub fn with_clocks(config: &MemoryCacheConfig, clock: Clock, stamps: Arc<HybridClock>) -> Self {
        Self {
            table: Table::new(clock, stamps, Some(config.max_entries), Duration::ZERO),
            max_bytes: config.max_bytes,
            max_entries: config.max_entries.max(1),
        }
    }

    fn put(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let limit = self.max_value_bytes();
        if write.value_bytes() > limit {
            return Err(Error::too_large(format!("this cache takes values of at most {limit} bytes")));
        }
        let moment = self.table.admit(cx)?;
        let key = write.key.clone();
        let ack = self.table.write(write, moment)?;
        self.evict(&key, moment.now);
        Ok(ack)
    }

    /// Evicts until the bounds hold, each time from the shard whose head came first, so that the order is that of one queue though
    /// no two locks are held at once. What was just written is spared.
    ///
    /// Two rounds over all values always find one to evict, unless others read faster than this looks.
    fn evict(&self, written: &Key, now: Timestamp) {
        let mut deferred = 0;
        while self.is_over() && deferred <= self.table.usage().entries.saturating_mul(2) {
            let Some((shard, head)) = self.table.oldest() else { return };
            match self.table.with_guard(&mut lock(shard), |shard| shard.evict_step(head, written, now)) {
                Eviction::Evicted => deferred = 0,
                Eviction::Deferred => deferred += 1,
                Eviction::Passed => {}
            }
        }
    }

    fn is_over(&self) -> bool {
        let usage = self.table.usage();
        usage.entries > self.max_entries || usage.bytes > self.max_bytes
    }

    fn max_value_bytes(&self) -> usize {
        let reserve = Key::MAX_BYTES as u64 * 2;
        usize::try_from(self.max_bytes.saturating_sub(reserve)).unwrap_or(usize::MAX).min(Value::MAX_BYTES)
    }
}

#[async_trait]
impl Store for MemoryCache {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.table.get(key, options, cx)
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        keys.iter().map(|key| self.table.get(key, options, cx)).collect()
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        keys.iter().map(|key| self.table.exists(key, cx)).collect()
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        self.put(write, cx)
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        in_order(writes, |write| (&write.key, write.attempt), |write| self.put(write, cx))
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        self.table.list(prefix, options, cx)
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        self.table.count(prefix, cx)
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        self.table.clear(prefix, Stamped { stamp, attempt }, cx).map(Some)
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.table.ping(cx)
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("memory");
        capabilities.max_value_bytes = self.max_value_bytes();
        capabilities.stamp_guard = true;
        capabilities.conditional_delete = true;
        capabilities.increment = true;
        capabilities.evicts = true;
        capabilities
    }

    async fn close(&self, _cx: &Context) -> Result<()> {
        self.table.close();
        Ok(())
    }
}

#[async_trait]
impl CacheBackend for MemoryCache {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        let moment = self.table.admit(cx)?;
        let sum = self.table.with_shard(key, |shard| increment(shard, key, by, options, moment))?;
        self.evict(key, moment.now);
        sum
    }
}

fn increment(shard: &mut Shard, key: &Key, by: i64, options: &IncrementOptions, moment: Moment<'_>) -> Result<i64> {
    let stamp = moment.stamps.issue();
    let Some(cell) = shard.use_cell(key, moment.now) else {
        let op = WriteOp::Put { value: Value::from_integer(by), mode: WriteMode::Upsert, ttl: options.ttl };
        return write::write(shard, Write::new(key.clone(), op, stamp), moment).map(|_| by);
    };
    let number =
        cell.value.to_integer().ok_or_else(|| Error::wrong_type("the value under the key is not an integer"))?;
    let sum = number.checked_add(by).ok_or_else(|| {
        Error::invalid_value("the counter would leave the range of a 64-bit signed integer; it was not changed")
    })?;
    let mut counted = cell.clone();
    counted.value = Value::from_integer(sum);
    counted.stamp = moment.stamps.issue_after(counted.stamp);
    shard.put_cell(key, counted);
    Ok(sum)
}

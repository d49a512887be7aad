//! The [`MemoryDatabase`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::config::MemoryDatabaseConfig;
use crate::contract::{
    Append, AppendAck, Attempt, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend, GetOptions,
    Identity, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions, ReplayOutcome, Step, StepAck, Store,
    Write, WriteAck, in_order,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::{HybridClock, Stamp};
use crate::time::Clock;

use super::conflict::Conflicts;
use super::record::Record;
use super::replay::standing;
use super::table::Table;
use super::tombstones::RETENTION;
use super::write::Stamped;

/// A database in this process's memory, unbounded, for tests and for trying things out.
///
/// # Examples
///
/// ```
/// use agent_storage::backend::memory::MemoryDatabase;
/// use agent_storage::config::MemoryDatabaseConfig;
/// use agent_storage::contract::{Append, Context, DatabaseBackend, ListRange};
/// use agent_storage::{HybridClock, Key, Value};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let database = MemoryDatabase::new(&MemoryDatabaseConfig::default());
/// let cx = Context::with_timeout(Duration::from_secs(1));
/// let key = Key::parse("messages:42")?;
/// let item = Append::new(key.clone(), Value::json(r#""hello""#)?, HybridClock::process().issue());
/// database.append_many(vec![item], &cx).await;
/// assert_eq!(database.range(&key, ListRange::last(10), &cx).await?.len(), 1);
/// # Ok::<(), agent_storage::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct MemoryDatabase {
    table: Table,
    id: u128,
    canary: AtomicU64,
    conflicts: Conflicts,
}

impl MemoryDatabase {
    /// Makes an empty database.
    #[must_use]
    pub fn new(config: &MemoryDatabaseConfig) -> Self {
        Self::with_clocks(config, Clock::system(), HybridClock::process())
    }

    /// Makes an empty database that reads the time and its stamps from these clocks.
    #[must_use]
    pub fn with_clocks(config: &MemoryDatabaseConfig, clock: Clock, stamps: Arc<HybridClock>) -> Self {
        let MemoryDatabaseConfig {} = config;
        let id = u128::from_be_bytes(stamps.issue().to_bytes());
        let table = Table::new(clock, stamps, None, RETENTION);
        Self { table, id, canary: AtomicU64::new(0), conflicts: Conflicts::default() }
    }

    fn apply_one(&self, step: Step, cx: &Context) -> Result<StepAck> {
        let mut acks = self.table.apply(vec![step], cx)?;
        acks.pop().ok_or_else(|| Error::internal("a transaction of one step gave no answer"))
    }
}

#[async_trait]
impl Store for MemoryDatabase {
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
        self.table.write(write, self.table.admit(cx)?)
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let apply = |write| self.table.write(write, self.table.admit(cx)?);
        in_order(writes, |write| (&write.key, write.attempt), apply)
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
        let ping = self.table.ping(cx)?;
        let canary = self.canary.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(ping.with_identity(Identity::new(self.id, canary)))
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("memory");
        capabilities.stamp_guard = true;
        capabilities.conditional_delete = true;
        capabilities.lists = true;
        capabilities.transactions = true;
        capabilities.replay = true;
        capabilities
    }

    async fn close(&self, _cx: &Context) -> Result<()> {
        self.table.close();
        Ok(())
    }
}

#[async_trait]
impl DatabaseBackend for MemoryDatabase {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        let append = |item| match self.apply_one(Step::Append(item), cx)? {
            StepAck::Append(ack) => Ok(ack),
            _ => Err(Error::internal("an append was answered as another step")),
        };
        in_order(items, |item| (&item.key, item.attempt), append)
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        self.table.admit(cx)?;
        let items = |record: &Record| record.list.as_ref().map(|list| list.range(range));
        self.table.read(key, |record| record.and_then(items).unwrap_or_default())
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        self.table.admit(cx)?;
        let length = |record: &Record| record.list.as_ref().map(|list| list.length());
        self.table.read(key, |record| record.and_then(length).unwrap_or_default())
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        match self.apply_one(Step::Trim { key: key.clone(), keep_last }, cx)? {
            StepAck::Trim(count) => Ok(count),
            _ => Err(Error::internal("a trim was answered as another step")),
        }
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        self.table.apply(steps, cx)
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        self.table.replay(steps, options, &self.conflicts, cx)
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.table.admit_any(cx)?;
        Ok(Identity::new(self.id, self.canary.load(Ordering::SeqCst)))
    }

    /// The canary rises by pings alone, and none is answered while another database is expected: so once is enough.
    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        let found = Identity::new(self.id, self.canary.load(Ordering::SeqCst));
        self.table.set_foreign(identity.is_some_and(|expected| !found.continues(expected)));
        Ok(())
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        self.table.admit(cx)?;
        keys.iter().map(|key| self.table.with_shard(key, |shard| standing(shard, key))).collect()
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        self.table.admit(cx)?;
        Ok(self.conflicts.page(options))
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        self.table.admit(cx)?;
        Ok(self.conflicts.forget(key, stamp))
    }
}

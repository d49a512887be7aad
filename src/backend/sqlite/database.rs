//! The [`SqliteDatabase`].

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use rusqlite::Connection;

use crate::config::SqliteConfig;
use crate::contract::{
    Append, AppendAck, Attempt, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend, Durability,
    GetOptions, Identity, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions, ReplayOutcome, Step,
    StepAck, Store, Write, WriteAck,
};
use crate::engine::sqlite::{Atomicity, ReadKind, SqlResult};
use crate::error::Result;
use crate::key::{Key, KeyPrefix};
use crate::stamp::{HybridClock, Stamp};
use crate::time::Clock;

use super::batch::{Batch, Each};
use super::connect::Connector;
use super::error::{BACKEND, during, for_all};
use super::scan::KeyRange;
use super::session::{Session, Shared};
use super::write::Stamped;
use super::{apply, conflict, list, meta, read, scan, write};

/// A read of more keys than this shares no snapshot, so that single reads do not wait behind it.
const POINT_KEYS: usize = 64;

/// A database in a SQLite file.
///
/// Making one opens nothing; the first call does, and brings the file to its tables. Several processes may use one file.
///
/// # Examples
///
/// ```
/// use agent_storage::backend::sqlite::SqliteDatabase;
/// use agent_storage::config::SqliteConfig;
/// use agent_storage::contract::{Context, GetOptions, Store, Write};
/// use agent_storage::{HybridClock, Key, Value};
/// use std::time::Duration;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("agent.db");
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let database = SqliteDatabase::new(&SqliteConfig::at(path));
/// let cx = Context::with_timeout(Duration::from_secs(10));
/// let key = Key::parse("session:42")?;
/// let write = Write::put(key.clone(), Value::json("[1, 2]")?, HybridClock::process().issue());
/// database.write(write, &cx).await?;
/// assert!(database.get(&key, &GetOptions::default(), &cx).await?.is_found());
/// database.close(&cx).await?;
/// # Ok::<(), agent_storage::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct SqliteDatabase {
    connector: Connector,
    shared: Shared,
}

impl SqliteDatabase {
    /// Makes a database on a file that the first call opens.
    #[must_use]
    pub fn new(config: &SqliteConfig) -> Self {
        Self::with_clocks(config, Clock::system(), HybridClock::process())
    }

    /// Makes a database that reads the time and its stamps from these clocks.
    #[must_use]
    pub fn with_clocks(config: &SqliteConfig, clock: Clock, stamps: Arc<HybridClock>) -> Self {
        let shared = Shared::new(clock, stamps);
        Self { connector: Connector::new(config.clone(), shared.clone()), shared }
    }

    async fn read_job<T, F>(&self, operation: &'static str, kind: ReadKind, cx: &Context, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Session<'_>) -> SqlResult<T> + Send + 'static,
    {
        let shared = self.shared.clone();
        let run = async {
            let engine = self.connector.engine(cx).await?;
            engine.read(kind, cx.deadline, move |connection| work(&shared.session(connection)?)).await
        };
        during(operation, run.await)
    }

    async fn write_job<T, F>(
        &self,
        operation: &'static str,
        weight: usize,
        atomicity: Atomicity,
        cx: &Context,
        mut work: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Session<'_>) -> SqlResult<T> + Send + 'static,
    {
        let shared = self.shared.clone();
        let run = async {
            let engine = self.connector.engine(cx).await?;
            engine.write(weight, atomicity, cx.deadline, move |connection| work(&shared.session(connection)?)).await
        };
        during(operation, run.await)
    }

    /// Begins writes that may take several jobs.
    async fn batch(&self, operation: &'static str, cx: &Context) -> Result<Batch> {
        let _call = self.connector.enter();
        let engine = during(operation, self.connector.engine(cx).await)?;
        Ok(Batch { engine, shared: self.shared.clone(), deadline: cx.deadline, _call })
    }

    async fn write_each<T, A>(&self, items: Vec<T>, cx: &Context, each: Each<T, A>) -> Vec<Result<A>>
    where
        T: Send + 'static,
        A: Send + 'static,
    {
        if items.is_empty() {
            return Vec::new();
        }
        match self.batch(each.operation, cx).await {
            Ok(batch) => batch.write_each(items, each).await,
            Err(error) => for_all(Err(error), items.len()),
        }
    }
}

#[async_trait]
impl Store for SqliteDatabase {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        let (key, options) = (key.clone(), *options);
        self.read_job("get", ReadKind::Point, cx, move |session| read::get(session, &key, options)).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        let (count, keys, options) = (keys.len(), keys.to_vec(), *options);
        if count == 0 {
            return Vec::new();
        }
        let work = move |session: &Session<'_>| read::get_many(session, &keys, options);
        let outcome = self.read_job("get_many", kind_of(count), cx, work).await;
        for_all(outcome, count).into_iter().map(|answer| during("get_many", answer)).collect()
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        let (count, keys) = (keys.len(), keys.to_vec());
        if count == 0 {
            return Vec::new();
        }
        let work = move |session: &Session<'_>| read::exists(session, &keys);
        let outcome = self.read_job("exists", kind_of(count), cx, work).await;
        for_all(outcome, count).into_iter().map(|answer| during("exists", answer)).collect()
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let (weight, atomicity) = (write::weight(&write), write::atomicity(&write));
        self.write_job("write", weight, atomicity, cx, move |session| write::write(session, &write)).await
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let each = Each { operation: "write_many", weigh: write::weight, write: write::write_each };
        self.write_each(writes, cx, each).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        let range = during("list", KeyRange::of_page(prefix, options.cursor.as_ref()))?;
        let limit = options.limit;
        self.read_job("list", ReadKind::Scan, cx, move |session| scan::list(session, &range, limit)).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        let range = KeyRange::new(prefix, None);
        self.read_job("count", ReadKind::Scan, cx, move |session| scan::count(session, &range)).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        let batch = self.batch("clear", cx).await?;
        batch.clear(prefix, Stamped { stamp, attempt }).await.map(Some)
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        let begun = Instant::now();
        let identity = self.write_job("ping", 0, Atomicity::Statement, cx, meta::raise_canary).await?;
        Ok(Ping::new(begun.elapsed(), Some(rusqlite::version().to_owned())).with_identity(identity))
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.durability = Durability::Primary;
        capabilities.shared = true;
        capabilities.stamp_guard = true;
        capabilities.conditional_delete = true;
        capabilities.lists = true;
        capabilities.transactions = true;
        capabilities.replay = true;
        capabilities
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        during("close", self.connector.close(cx).await)
    }
}

#[async_trait]
impl DatabaseBackend for SqliteDatabase {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        let each = Each { operation: "append_many", weigh: list::weight, write: list::append_each };
        self.write_each(items, cx, each).await
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        let key = key.clone();
        // How many items a range with ends of both signs has is known only to the list.
        let is_page = (range.start < 0) == (range.end < 0) && range.end.saturating_sub(range.start) < POINT_KEYS as i64;
        let kind = if is_page { ReadKind::Point } else { ReadKind::Scan };
        self.read_job("range", kind, cx, move |session| list::range(session, &key, range)).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        let key = key.clone();
        self.read_job("length", ReadKind::Point, cx, move |session| list::length(session, &key)).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        let key = key.clone();
        let work = move |session: &Session<'_>| list::trim(session, &key, keep_last);
        self.write_job("trim", 0, Atomicity::Savepoint, cx, work).await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        let weight = apply::weight(&steps);
        let work = move |session: &Session<'_>| apply::apply(session, &steps);
        self.write_job("apply", weight, Atomicity::Savepoint, cx, work).await
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        if steps.is_empty() {
            return Vec::new();
        }
        match self.batch("replay", cx).await {
            Ok(batch) => batch.replay(steps, options.clone()).await,
            Err(error) => for_all(Err(error), steps.len()),
        }
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        let shared = self.shared.clone();
        let run = async {
            let engine = self.connector.engine(cx).await?;
            let work = move |connection: &Connection| meta::identity(&shared.any_session(connection));
            engine.read(ReadKind::Point, cx.deadline, work).await
        };
        during("identity", run.await)
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        self.shared.expected.set(identity);
        Ok(())
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        let (kind, keys) = (kind_of(keys.len()), keys.to_vec());
        self.read_job("stamps", kind, cx, move |session| read::stamps(session, &keys)).await
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        let options = options.clone();
        self.read_job("conflicts", ReadKind::Scan, cx, move |session| conflict::page(session, &options)).await
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        let key = key.clone();
        let work = move |session: &Session<'_>| conflict::forget(session, &key, stamp);
        self.write_job("forget_conflict", 0, Atomicity::Statement, cx, work).await
    }
}

const fn kind_of(keys: usize) -> ReadKind {
    if keys <= POINT_KEYS { ReadKind::Point } else { ReadKind::Scan }
}

//! The [`PostgresDatabase`].

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::FutureExt;

use crate::config::PostgresConfig;
use crate::contract::{
    Append, AppendAck, Attempt, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend, Durability,
    GetOptions, Identity, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions, ReplayOutcome, Step,
    StepAck, Store, Write, WriteAck,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::{HybridClock, Stamp};

use super::connect::Connector;
use super::session::unanswered;
use super::{apply, conflict, failure, list, read, replay, scan, write};

/// A database on a PostgreSQL server, in a schema of its own.
///
/// Expiry is judged by the server's clock, writes are guarded by their stamps. A call runs in a task of its own and ends by its
/// deadline; a connection that did not answer by then is closed, never used again.
///
/// # Examples
///
/// ```no_run
/// use agent_storage::backend::postgres::PostgresDatabase;
/// use agent_storage::config::PostgresConfig;
/// use agent_storage::contract::{Context, Store, Write};
/// use agent_storage::{HybridClock, Key, Value};
/// use std::time::Duration;
///
/// # async fn example() -> agent_storage::Result<()> {
/// let database = PostgresDatabase::new(&PostgresConfig::new("localhost", 5432))?;
/// let cx = Context::with_timeout(Duration::from_secs(5));
/// let write = Write::put(Key::parse("session:42")?, Value::json("{}")?, HybridClock::process().issue());
/// database.write(write, &cx).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresDatabase {
    connector: Arc<Connector>,
}

impl PostgresDatabase {
    /// Makes the database without connecting. The first call connects and brings the schema up to date; calls that come
    /// meanwhile wait for it, and if it fails the next call tries again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the schema's name is not one.
    pub fn new(config: &PostgresConfig) -> Result<Self> {
        Self::with_stamps(config, HybridClock::process())
    }

    /// As [`PostgresDatabase::new`], with stamps from this clock.
    ///
    /// # Errors
    ///
    /// As [`PostgresDatabase::new`].
    pub fn with_stamps(config: &PostgresConfig, stamps: Arc<HybridClock>) -> Result<Self> {
        Ok(Self { connector: Arc::new(Connector::new(config, stamps)?) })
    }
}

/// The answer of a whole batch that could not be sent.
fn refuse<T>(count: usize, error: &Error) -> Vec<Result<T>> {
    std::iter::repeat_with(|| Err(error.clone())).take(count).collect()
}

#[async_trait]
impl Store for PostgresDatabase {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.get_many(std::slice::from_ref(key), options, cx).await.pop().unwrap_or_else(|| Err(unanswered()))
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let (asked, options) = (keys.to_vec(), *options);
        let call = self
            .connector
            .run(cx, move |session| async move { Ok(read::get_many(session, &asked, options).await) }.boxed());
        call.await.unwrap_or_else(|error| refuse(keys.len(), &error))
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let asked = keys.to_vec();
        let call =
            self.connector.run(cx, move |session| async move { Ok(read::exists(session, &asked).await) }.boxed());
        call.await.unwrap_or_else(|error| refuse(keys.len(), &error))
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        self.write_many(vec![write], cx).await.pop().unwrap_or_else(|| Err(unanswered()))
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let count = writes.len();
        if count == 0 {
            return Vec::new();
        }
        let call =
            self.connector.run(cx, move |session| async move { Ok(write::write_many(session, &writes).await) }.boxed());
        call.await.unwrap_or_else(|error| refuse(count, &error))
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        let (prefix, options) = (prefix.clone(), options.clone());
        self.connector.run(cx, move |session| async move { scan::list(session, &prefix, &options).await }.boxed()).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        let prefix = prefix.clone();
        self.connector.run(cx, move |session| async move { scan::count_keys(session, &prefix).await }.boxed()).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        let prefix = prefix.clone();
        let call = self
            .connector
            .run(cx, move |session| async move { scan::clear(session, &prefix, stamp, attempt).await }.boxed());
        call.await.map(Some)
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        let begin = Instant::now();
        let (identity, version) = self.connector.run(cx, |session| read::ping(session).boxed()).await?;
        Ok(Ping::new(begin.elapsed(), Some(version)).with_identity(identity))
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("postgres");
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
        self.connector.close(cx).await
    }
}

#[async_trait]
impl DatabaseBackend for PostgresDatabase {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        let count = items.len();
        if count == 0 {
            return Vec::new();
        }
        let call =
            self.connector.run(cx, move |session| async move { Ok(list::append_many(session, &items).await) }.boxed());
        call.await.unwrap_or_else(|error| refuse(count, &error))
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        let key = key.clone();
        self.connector.run(cx, move |session| async move { list::range(session, &key, range).await }.boxed()).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        let key = key.clone();
        self.connector.run(cx, move |session| async move { list::length(session, &key).await }.boxed()).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        let key = key.clone();
        self.connector
            .run(cx, move |session| async move { list::trim(session, &key, keep_last, None).await }.boxed())
            .await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        self.connector.run(cx, move |session| apply::apply(session, steps).boxed()).await
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        let (count, options) = (steps.len(), options.clone());
        if count == 0 {
            return Vec::new();
        }
        let call = self
            .connector
            .run_repeatable(cx, move |session| async move { replay::replay(session, &steps, &options).await }.boxed());
        call.await.unwrap_or_else(|error| refuse(count, &failure::of_all(error)))
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.connector.run_anywhere(cx, |session| read::identity(session).boxed()).await
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        let keys = keys.to_vec();
        self.connector.run(cx, move |session| async move { read::stamps(session, &keys).await }.boxed()).await
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        let options = options.clone();
        self.connector.run(cx, move |session| async move { conflict::page(session, &options).await }.boxed()).await
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        let key = key.clone();
        self.connector.run(cx, move |session| async move { conflict::forget(session, &key, stamp).await }.boxed()).await
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        self.connector.expect(identity);
        Ok(())
    }
}

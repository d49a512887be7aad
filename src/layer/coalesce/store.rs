//! The layer itself: which call goes to which lane.

use std::fmt;
use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Arc;

use async_trait::async_trait;
use foldhash::quality::RandomState;
use futures_util::future::BoxFuture;
use tokio::task::JoinError;
use tracing::Instrument;

use crate::config::BatchingConfig;
use crate::contract::{
    Append, AppendAck, Attempt, CacheBackend, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend,
    GetOptions, Identity, IncrementOptions, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions,
    ReplayOutcome, Step, StepAck, Store, Write, WriteAck,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::batch::panicked;
use super::call::Call;
use super::lane::Lane;
use super::queue::{Limits, Load};
use super::work::{Appends, Reads, Work, Writes};

/// The lanes of a kind unless the configuration says otherwise.
const DEFAULT_LANES: u32 = 2;

/// A store whose independent reads, writes and appends share round trips. All other reads go straight through; all other changes, and those
/// that are batches already, in tasks of their own.
pub struct Coalesce<B: Store + ?Sized> {
    inner: Arc<B>,
    reads: Lanes<Reads<B>>,
    writes: Lanes<Writes<B>>,
    appends: Option<Lanes<Appends>>,
}

impl Coalesce<dyn CacheBackend> {
    /// Wraps a cache.
    #[must_use]
    pub fn cache(config: &BatchingConfig, inner: Arc<dyn CacheBackend>) -> Self {
        let load = Arc::default();
        Self {
            reads: Lanes::new(Reads(Arc::clone(&inner)), config, &load),
            writes: Lanes::new(Writes(Arc::clone(&inner)), config, &load),
            appends: None,
            inner,
        }
    }
}

impl Coalesce<dyn DatabaseBackend> {
    /// Wraps a database.
    #[must_use]
    pub fn database(config: &BatchingConfig, inner: Arc<dyn DatabaseBackend>) -> Self {
        let load = Arc::default();
        Self {
            reads: Lanes::new(Reads(Arc::clone(&inner)), config, &load),
            writes: Lanes::new(Writes(Arc::clone(&inner)), config, &load),
            appends: Some(Lanes::new(Appends(Arc::clone(&inner)), config, &load)),
            inner,
        }
    }
}

impl<B: Store + ?Sized> fmt::Debug for Coalesce<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// The lanes of one kind of call, with the hasher of its keys. They share one queue, so that no call waits for a lane while another
/// is free, unless it follows one of its key.
struct Lanes<W: Work> {
    lane: Arc<Lane<W>>,
    hasher: RandomState,
}

impl<W: Work> Lanes<W> {
    fn new(work: W, config: &BatchingConfig, load: &Arc<Load>) -> Self {
        let count = config.lanes.unwrap_or(DEFAULT_LANES).max(1);
        let lane = Lane::new(Arc::new(work), count, Limits::from(config), Arc::clone(load));
        Self { lane, hasher: RandomState::default() }
    }

    fn call(&self, item: W::Item, cx: &Context) -> Call<'_, W> {
        let key_hash = if W::ORDERED { self.hasher.hash_one(W::key(&item)) } else { 0 };
        Call::new(&self.lane, key_hash, item, cx)
    }
}

/// Runs a change that no lane carries in a task of ours, as the lanes do with theirs: a caller may hold on to it and wait for something
/// else, as in a `select!`, and what it holds of the store, others wait for.
async fn in_a_task<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let ended = |ended: JoinError| match ended.is_panic() {
        true => panicked(),
        false => Error::outcome_unknown("the runtime ended while a change was on its way"),
    };
    tokio::spawn(change.in_current_span()).await.map_err(ended)
}

/// The same for a batch.
async fn each_in_a_task<T, F>(count: usize, change: F) -> Vec<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Vec<Result<T>>> + Send + 'static,
{
    in_a_task(change).await.unwrap_or_else(|error| vec![error; count].into_iter().map(Err).collect())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Store + ?Sized> Store for Coalesce<B> {
    /// Written out, as are those below that may wait in great numbers: an `async fn` would keep its arguments beside the call.
    fn get<'life0, 'life1, 'life2, 'life3, 'async_trait>(
        &'life0 self,
        key: &'life1 Key,
        options: &'life2 GetOptions,
        cx: &'life3 Context,
    ) -> BoxFuture<'async_trait, Result<Lookup>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        'life3: 'async_trait,
    {
        Box::pin(self.reads.call((key.clone(), *options), cx))
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        self.inner.get_many(keys, options, cx).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        self.inner.exists(keys, cx).await
    }

    fn write<'life0, 'life1, 'async_trait>(
        &'life0 self,
        write: Write,
        cx: &'life1 Context,
    ) -> BoxFuture<'async_trait, Result<WriteAck>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
    {
        Box::pin(self.writes.call(write, cx))
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let (inner, cx) = (Arc::clone(&self.inner), *cx);
        each_in_a_task(writes.len(), async move { inner.write_many(writes, &cx).await }).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        self.inner.list(prefix, options, cx).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        self.inner.count(prefix, cx).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        let (inner, prefix, cx) = (Arc::clone(&self.inner), prefix.clone(), *cx);
        in_a_task(async move { inner.clear(&prefix, stamp, attempt, &cx).await }).await?
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.inner.ping(cx).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.inner.close(cx).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheBackend for Coalesce<dyn CacheBackend> {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        let (inner, key, options, cx) = (Arc::clone(&self.inner), key.clone(), *options, *cx);
        in_a_task(async move { inner.increment(&key, by, &options, &cx).await }).await?
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DatabaseBackend for Coalesce<dyn DatabaseBackend> {
    async fn append_many(&self, mut items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        match (&self.appends, items.pop()) {
            (Some(lanes), Some(item)) if items.is_empty() => vec![lanes.call(item, cx).await],
            (_, last) => {
                items.extend(last);
                let (inner, cx) = (Arc::clone(&self.inner), *cx);
                each_in_a_task(items.len(), async move { inner.append_many(items, &cx).await }).await
            }
        }
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        self.inner.range(key, range, cx).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        self.inner.length(key, cx).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        let (inner, key, cx) = (Arc::clone(&self.inner), key.clone(), *cx);
        in_a_task(async move { inner.trim(&key, keep_last, &cx).await }).await?
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        let (inner, cx) = (Arc::clone(&self.inner), *cx);
        in_a_task(async move { inner.apply(steps, &cx).await }).await?
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        self.inner.replay(steps, options, cx).await
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.inner.identity(cx).await
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        self.inner.stamps(keys, cx).await
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        self.inner.conflicts(options, cx).await
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        self.inner.forget_conflict(key, stamp, cx).await
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        self.inner.expect(identity)
    }
}

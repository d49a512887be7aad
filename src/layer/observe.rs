//! The [`Observe`] layer: a span, a counter and a histogram for each operation.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tracing::Instrument;

use crate::contract::{
    Append, AppendAck, CacheBackend, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend,
    GetOptions, Identity, IncrementOptions, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions,
    ReplayOutcome, Step, StepAck, Store, Write, WriteAck,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

/// Which side of the storage an observed store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The cache.
    Cache,
    /// The database.
    Database,
}

impl Side {
    /// The name in lower case, as configuration, metrics and logs write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Database => "database",
        }
    }
}

/// A store that reports each operation to `tracing` and `metrics`.
///
/// - a span `storage` at level INFO with the fields `side`, `backend`, `operation`, `items` (of a batch) and `outcome`;
/// - a counter `agent_storage_operations_total` by side, backend, operation and outcome;
/// - a histogram `agent_storage_operation_duration_seconds` by side, backend and operation.
///
/// The outcome is `ok`, `partial` (some items of a batch failed), or the kind of the error. No key, value or secret is reported. An error's context,
/// backend and operation, is added here and nowhere else.
#[derive(Debug)]
pub struct Observe<B: ?Sized> {
    side: Side,
    backend: &'static str,
    inner: Arc<B>,
}

impl<B: Store + ?Sized> Observe<B> {
    /// Wraps a store.
    #[must_use]
    pub fn new(side: Side, inner: Arc<B>) -> Self {
        Self { side, backend: inner.capabilities().backend, inner }
    }

    async fn one<T>(&self, operation: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let report = |result: &Result<T>| result.as_ref().err().map_or("ok", |error| error.kind().as_str());
        let result = self.watch(operation, 1, call, report).await;
        result.map_err(|error| self.in_context(error, operation))
    }

    async fn many<T>(
        &self,
        operation: &'static str,
        items: usize,
        call: impl Future<Output = Vec<Result<T>>>,
    ) -> Vec<Result<T>> {
        let results = self.watch(operation, items, call, |results| batch_outcome(results)).await;
        results.into_iter().map(|result| result.map_err(|error| self.in_context(error, operation))).collect()
    }

    async fn watch<T>(
        &self,
        operation: &'static str,
        items: usize,
        call: impl Future<Output = T>,
        outcome: impl FnOnce(&T) -> &'static str,
    ) -> T {
        let (side, backend) = (self.side.as_str(), self.backend);
        let span = tracing::info_span!("storage", side, backend, operation, items, outcome = tracing::field::Empty);
        let began = Instant::now();
        let result = call.instrument(span.clone()).await;
        let outcome = outcome(&result);
        span.record("outcome", outcome);
        metrics::counter!(
            "agent_storage_operations_total",
            "side" => side, "backend" => backend, "operation" => operation, "outcome" => outcome
        )
        .increment(1);
        metrics::histogram!(
            "agent_storage_operation_duration_seconds",
            "side" => side, "backend" => backend, "operation" => operation
        )
        .record(began.elapsed().as_secs_f64());
        result
    }

    fn in_context(&self, error: Error, operation: &'static str) -> Error {
        error.with_context(self.backend, operation)
    }
}

fn batch_outcome<T>(results: &[Result<T>]) -> &'static str {
    let mut errors = results.iter().filter_map(|result| result.as_ref().err());
    match errors.next() {
        None => "ok",
        Some(first) if errors.count() + 1 == results.len() => first.kind().as_str(),
        Some(_) => "partial",
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Store + ?Sized> Store for Observe<B> {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.one("get", self.inner.get(key, options, cx)).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        self.many("get_many", keys.len(), self.inner.get_many(keys, options, cx)).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        self.many("exists", keys.len(), self.inner.exists(keys, cx)).await
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        self.one("write", self.inner.write(write, cx)).await
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        self.many("write_many", writes.len(), self.inner.write_many(writes, cx)).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        self.one("list", self.inner.list(prefix, options, cx)).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        self.one("count", self.inner.count(prefix, cx)).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, cx: &Context) -> Result<Option<u64>> {
        self.one("clear", self.inner.clear(prefix, stamp, cx)).await
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.one("ping", self.inner.ping(cx)).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.one("close", self.inner.close(cx)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: CacheBackend + ?Sized> CacheBackend for Observe<B> {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        self.one("increment", self.inner.increment(key, by, options, cx)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: DatabaseBackend + ?Sized> DatabaseBackend for Observe<B> {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        self.many("append_many", items.len(), self.inner.append_many(items, cx)).await
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        self.one("range", self.inner.range(key, range, cx)).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        self.one("length", self.inner.length(key, cx)).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        self.one("trim", self.inner.trim(key, keep_last, cx)).await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        self.one("apply", self.inner.apply(steps, cx)).await
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        self.many("replay", steps.len(), self.inner.replay(steps, options, cx)).await
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.one("identity", self.inner.identity(cx)).await
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        self.one("conflicts", self.inner.conflicts(options, cx)).await
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        self.one("forget_conflict", self.inner.forget_conflict(key, stamp, cx)).await
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        self.inner.expect(identity)
    }
}

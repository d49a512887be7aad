//! The [`Observe`] layer: a span, a counter and a histogram for each operation.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::{Instrument, Span};

use crate::contract::{
    Append, AppendAck, Attempt, CacheBackend, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend,
    GetOptions, Identity, IncrementOptions, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions,
    ReplayOutcome, Step, StepAck, Store, Write, WriteAck,
};
use crate::error::Result;
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::meter::{Meters, OK, Operation, Timer};

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
///
/// Where nobody listens, a call costs a few nanoseconds more; a subscriber or recorder that comes later is heard.
#[derive(Debug)]
pub struct Observe<B: ?Sized> {
    side: Side,
    backend: &'static str,
    meters: Meters,
    inner: Arc<B>,
}

impl<B: Store + ?Sized> Observe<B> {
    /// Wraps a store.
    #[must_use]
    pub fn new(side: Side, inner: Arc<B>) -> Self {
        let backend = inner.capabilities().backend;
        Self { side, backend, meters: Meters::new(side, backend), inner }
    }

    fn watch<'a, A: Answer + 'a>(
        &'a self,
        operation: Operation,
        items: usize,
        call: BoxFuture<'a, A>,
    ) -> Watched<'a, A> {
        let timer = self.meters.start(operation);
        let (side, backend, name) = (self.side.as_str(), self.backend, operation.as_str());
        let span =
            tracing::info_span!("storage", side, backend, operation = name, items, outcome = tracing::field::Empty);
        if span.is_disabled() && timer.is_none() {
            return Watched { call, report: None, backend, operation };
        }
        let call = if span.is_disabled() { call } else { call.instrument(span.clone()).boxed() };
        Watched { call, report: Some(Box::new(Report { span, timer })), backend, operation }
    }
}

/// What an operation answers.
trait Answer {
    /// Whether it succeeded, in the words of the metrics.
    fn outcome(&self) -> &'static str;

    /// Names the operation in its errors.
    fn add_context(&mut self, backend: &'static str, operation: &'static str);
}

impl<T> Answer for Result<T> {
    fn outcome(&self) -> &'static str {
        self.as_ref().err().map_or(OK, |error| error.kind().as_str())
    }

    fn add_context(&mut self, backend: &'static str, operation: &'static str) {
        if let Err(error) = self {
            error.add_context(backend, operation);
        }
    }
}

impl<T> Answer for Vec<Result<T>> {
    fn outcome(&self) -> &'static str {
        let mut errors = self.iter().filter_map(|result| result.as_ref().err());
        match errors.next() {
            None => OK,
            Some(first) if errors.count() + 1 == self.len() => first.kind().as_str(),
            Some(_) => "partial",
        }
    }

    fn add_context(&mut self, backend: &'static str, operation: &'static str) {
        self.iter_mut().for_each(|result| result.add_context(backend, operation));
    }
}

/// An operation on its way. One that is dropped before its end is not reported.
///
/// It is written by hand, because an answer is large, and each `async fn` on its way moves it a few times. It is small, because a
/// hundred thousand calls may wait at a time.
struct Watched<'a, A> {
    call: BoxFuture<'a, A>,
    report: Option<Box<Report<'a>>>,
    backend: &'static str,
    operation: Operation,
}

/// What is reported where somebody listens.
struct Report<'a> {
    span: Span,
    timer: Option<Timer<'a>>,
}

impl<A: Answer> Future for Watched<'_, A> {
    type Output = A;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<A> {
        let this = self.get_mut();
        let mut polled = this.call.as_mut().poll(cx);
        if let Poll::Ready(answer) = &mut polled {
            if let Some(report) = this.report.take() {
                let outcome = answer.outcome();
                report.span.record("outcome", outcome);
                if let Some(timer) = report.timer {
                    timer.stop(outcome);
                }
            }
            answer.add_context(this.backend, this.operation.as_str());
        }
        polled
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Store + ?Sized> Store for Observe<B> {
    /// Written out, because of all operations a read in memory is the one whose cost is near that of an `async fn`.
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
        Box::pin(self.watch(Operation::Get, 1, self.inner.get(key, options, cx)))
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        self.watch(Operation::GetMany, keys.len(), self.inner.get_many(keys, options, cx)).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        self.watch(Operation::Exists, keys.len(), self.inner.exists(keys, cx)).await
    }

    /// Written out, because the `async fn` would keep the write while it waits.
    fn write<'life0, 'life1, 'async_trait>(
        &'life0 self,
        write: Write,
        cx: &'life1 Context,
    ) -> BoxFuture<'async_trait, Result<WriteAck>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
    {
        Box::pin(self.watch(Operation::Write, 1, self.inner.write(write, cx)))
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        self.watch(Operation::WriteMany, writes.len(), self.inner.write_many(writes, cx)).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        self.watch(Operation::List, 1, self.inner.list(prefix, options, cx)).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        self.watch(Operation::Count, 1, self.inner.count(prefix, cx)).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        self.watch(Operation::Clear, 1, self.inner.clear(prefix, stamp, attempt, cx)).await
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.watch(Operation::Ping, 1, self.inner.ping(cx)).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.watch(Operation::Close, 1, self.inner.close(cx)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: CacheBackend + ?Sized> CacheBackend for Observe<B> {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        self.watch(Operation::Increment, 1, self.inner.increment(key, by, options, cx)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: DatabaseBackend + ?Sized> DatabaseBackend for Observe<B> {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        self.watch(Operation::AppendMany, items.len(), self.inner.append_many(items, cx)).await
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        self.watch(Operation::Range, 1, self.inner.range(key, range, cx)).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        self.watch(Operation::Length, 1, self.inner.length(key, cx)).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        self.watch(Operation::Trim, 1, self.inner.trim(key, keep_last, cx)).await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        self.watch(Operation::Apply, 1, self.inner.apply(steps, cx)).await
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        self.watch(Operation::Replay, steps.len(), self.inner.replay(steps, options, cx)).await
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.watch(Operation::Identity, 1, self.inner.identity(cx)).await
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        // A fallback asks, and no application.
        self.inner.stamps(keys, cx).await
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        self.watch(Operation::Conflicts, 1, self.inner.conflicts(options, cx)).await
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        self.watch(Operation::ForgetConflict, 1, self.inner.forget_conflict(key, stamp, cx)).await
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        self.inner.expect(identity)
    }
}

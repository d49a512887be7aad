//! The [`Retry`] layer: what is safe to repeat is repeated, after a growing wait.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};

use crate::config::RetryConfig;
use crate::contract::{
    Append, AppendAck, Attempt, CacheBackend, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend,
    GetOptions, Identity, IncrementOptions, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions,
    ReplayOutcome, Step, StepAck, Store, Write, WriteAck,
};
use crate::error::{Error, ErrorKind, Outage, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

/// A store that tries again what failed for a passing reason, within the deadline.
///
/// What was definitely not applied ([`ErrorKind::Unavailable`]) is always safe to repeat. After an unknown outcome only an
/// unconditional put or delete and an append are repeated, and only on a store that guards writes by their stamps; what they
/// then say of the state before is left open. Of a batch only the failed items are sent again, and none that a later write of
/// its key would be undone by. A trim is never repeated.
#[derive(Debug)]
pub struct Retry<B: ?Sized> {
    config: RetryConfig,
    stamp_guard: bool,
    leaves_outages: bool,
    inner: Arc<B>,
}

/// What an attempt that may have been applied changes.
struct Doubt<I, A> {
    /// Says so to the store with the next attempt.
    mark: fn(&mut I),
    /// Takes from the answer what it cannot know.
    blur: fn(&mut A),
}

impl<A> Doubt<Key, A> {
    /// A read changes nothing, whether it is answered or not.
    const OF_READS: Self = Self { mark: |_| (), blur: |_| () };
}

impl Doubt<Write, WriteAck> {
    const OF_WRITES: Self = Self { mark: |write| write.attempt = Attempt::Repeat, blur: |ack| ack.existed = None };
}

impl Doubt<Append, AppendAck> {
    const OF_APPENDS: Self = Self { mark: |append| append.attempt = Attempt::Repeat, blur: |ack| ack.existed = None };
}

/// What a failure allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Only what was not applied.
    IfNotApplied,
    /// Also what may have been applied.
    Always,
}

impl Repeat {
    fn allows(self, error: &Error) -> bool {
        error.is_transient() && (self == Self::Always || error.kind() == ErrorKind::Unavailable)
    }
}

impl<B: Store + ?Sized> Retry<B> {
    /// Wraps a store.
    #[must_use]
    pub fn new(config: RetryConfig, inner: Arc<B>) -> Self {
        let stamp_guard = inner.capabilities().stamp_guard;
        Self { config, stamp_guard, leaves_outages: false, inner }
    }

    /// Leaves alone what failed because the store is down, or another one answers: for a store with a chain above, which knows what to
    /// do then and must not be kept waiting.
    #[must_use]
    pub const fn leaving_outages(mut self) -> Self {
        self.leaves_outages = true;
        self
    }

    fn leaves(&self, error: &Error) -> bool {
        self.leaves_outages && matches!(error.outage(), Some(Outage::Down | Outage::Foreign))
    }

    /// Calls until it succeeds, fails for good, or attempts or time run out. The call is told, and so is the caller, whether an
    /// earlier attempt may have been applied.
    async fn one<T, F>(&self, repeat: Repeat, cx: &Context, mut call: impl FnMut(Attempt) -> F) -> Result<(T, Attempt)>
    where
        F: Future<Output = Result<T>>,
    {
        let mut waits = None;
        let mut attempt = Attempt::First;
        loop {
            let error = match call(attempt).await {
                Ok(answer) => return Ok((answer, attempt)),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::OutcomeUnknown {
                attempt = Attempt::Repeat;
            }
            let waits = waits.get_or_insert_with(|| delays(&self.config));
            if self.leaves(&error) || !repeat.allows(&error) || !wait(waits.next(), cx).await {
                return Err(if attempt == Attempt::Repeat { as_unknown(error) } else { error });
            }
        }
    }

    async fn read<T, F>(&self, cx: &Context, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        Ok(self.one(Repeat::IfNotApplied, cx, |_| call()).await?.0)
    }

    /// Sends again what `retryable` picks from the items of a batch and the answers of its first attempt.
    async fn again<I: Clone, A, F>(
        &self,
        mut answers: Vec<Result<A>>,
        items: impl FnOnce() -> Vec<I>,
        cx: &Context,
        mut send: impl FnMut(Vec<I>) -> F,
        retryable: impl Fn(&[I], &[Result<A>]) -> Vec<usize>,
        doubt: Doubt<I, A>,
    ) -> Vec<Result<A>>
    where
        F: Future<Output = Vec<Result<A>>>,
    {
        if answers.iter().all(Result::is_ok) {
            return answers;
        }
        let mut items = items();
        let mut ambiguous: HashSet<usize> = HashSet::new();
        let mut delays = delays(&self.config);
        loop {
            for (index, (item, answer)) in items.iter_mut().zip(&answers).enumerate() {
                if is_unknown(answer) && ambiguous.insert(index) {
                    (doubt.mark)(item);
                }
            }
            let again = retryable(&items, &answers);
            let left = answers.iter().filter_map(|answer| answer.as_ref().err()).any(|error| self.leaves(error));
            if left || again.is_empty() || !wait(delays.next(), cx).await {
                break;
            }
            let batch = again.iter().filter_map(|index| items.get(*index).cloned()).collect();
            for (index, answer) in again.into_iter().zip(send(batch).await) {
                if let Some(slot) = answers.get_mut(index) {
                    *slot = answer;
                }
            }
        }
        for index in ambiguous {
            match answers.get_mut(index) {
                Some(Ok(answer)) => (doubt.blur)(answer),
                Some(Err(error)) => *error = as_unknown(error.clone()),
                None => {}
            }
        }
        answers
    }

    fn repeat_of(&self, write: &Write) -> Repeat {
        if self.stamp_guard && !write.is_conditional() { Repeat::Always } else { Repeat::IfNotApplied }
    }

    fn repeat_of_append(&self) -> Repeat {
        if self.stamp_guard { Repeat::Always } else { Repeat::IfNotApplied }
    }
}

/// The waits between attempts. Each is made up to twice as long at random, so that callers who failed together do not return
/// together.
fn delays(config: &RetryConfig) -> impl Iterator<Item = Duration> + Send + use<> {
    ExponentialBuilder::default()
        .with_min_delay(config.initial_delay)
        .with_max_delay(config.max_delay)
        .with_max_times(usize::try_from(config.attempts.saturating_sub(1)).unwrap_or(usize::MAX))
        .with_jitter()
        .build()
}

/// Waits before another attempt; `false` if there is none, or no time for it.
async fn wait(delay: Option<Duration>, cx: &Context) -> bool {
    match delay {
        Some(delay) if delay < cx.remaining() => {
            tokio::time::sleep(delay).await;
            true
        }
        _ => false,
    }
}

fn is_unknown<A>(answer: &Result<A>) -> bool {
    answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown)
}

/// After an attempt that may have been applied, a later one that was not does not settle the outcome.
fn as_unknown(error: Error) -> Error {
    if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Closed | ErrorKind::Config | ErrorKind::Internal) {
        return error;
    }
    let unknown = Error::outcome_unknown("an earlier attempt may have been applied, and the later ones were not");
    let outage = error.outage();
    let unknown = unknown.with_source(error);
    // What the later attempt found out of the store stays known.
    match outage {
        Some(outage) => unknown.with_outage(outage),
        None => unknown,
    }
}

/// The failed items that may be sent again: none after which another item of its key has, or may have, been applied.
fn safe_to_repeat<I, A>(
    items: &[I],
    answers: &[Result<A>],
    key: impl Fn(&I) -> &Key,
    repeat: impl Fn(&I) -> Repeat,
) -> Vec<usize> {
    let mut settled: HashSet<&Key> = HashSet::new();
    let mut again: Vec<usize> = Vec::new();
    for (index, (item, answer)) in items.iter().zip(answers).enumerate().rev() {
        let retryable = answer.as_ref().is_err_and(|error| repeat(item).allows(error));
        if retryable && !settled.contains(key(item)) {
            again.push(index);
        } else {
            settled.insert(key(item));
        }
    }
    again.reverse();
    again
}

fn failed_reads<I, A>(_items: &[I], answers: &[Result<A>]) -> Vec<usize> {
    let failed = |answer: &Result<A>| answer.as_ref().is_err_and(|error| Repeat::IfNotApplied.allows(error));
    answers.iter().enumerate().filter(|(_, answer)| failed(answer)).map(|(index, _)| index).collect()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Store + ?Sized> Store for Retry<B> {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.read(cx, || self.inner.get(key, options, cx)).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        let send = |keys: Vec<Key>| async move { self.inner.get_many(&keys, options, cx).await };
        let first = self.inner.get_many(keys, options, cx).await;
        self.again(first, || keys.to_vec(), cx, send, failed_reads, Doubt::OF_READS).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        let send = |keys: Vec<Key>| async move { self.inner.exists(&keys, cx).await };
        let first = self.inner.exists(keys, cx).await;
        self.again(first, || keys.to_vec(), cx, send, failed_reads, Doubt::OF_READS).await
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let send = |attempt| self.inner.write(Write { attempt: write.attempt.max(attempt), ..write.clone() }, cx);
        let (mut ack, attempt) = self.one(self.repeat_of(&write), cx, send).await?;
        if attempt == Attempt::Repeat {
            ack.existed = None;
        }
        Ok(ack)
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let send = |writes| self.inner.write_many(writes, cx);
        let safe = |writes: &[Write], answers: &[Result<WriteAck>]| {
            safe_to_repeat(writes, answers, |write| &write.key, |write| self.repeat_of(write))
        };
        let first = self.inner.write_many(writes.clone(), cx).await;
        self.again(first, || writes, cx, send, safe, Doubt::OF_WRITES).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        self.read(cx, || self.inner.list(prefix, options, cx)).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        self.read(cx, || self.inner.count(prefix, cx)).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        self.read(cx, || self.inner.clear(prefix, stamp, attempt, cx)).await
    }

    /// A ping is an observation, so it is not repeated.
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
impl<B: CacheBackend + ?Sized> CacheBackend for Retry<B> {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        self.read(cx, || self.inner.increment(key, by, options, cx)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: DatabaseBackend + ?Sized> DatabaseBackend for Retry<B> {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        let send = |items| self.inner.append_many(items, cx);
        let safe = |items: &[Append], answers: &[Result<AppendAck>]| {
            safe_to_repeat(items, answers, |item| &item.key, |_| self.repeat_of_append())
        };
        let first = self.inner.append_many(items.clone(), cx).await;
        self.again(first, || items, cx, send, safe, Doubt::OF_APPENDS).await
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        self.read(cx, || self.inner.range(key, range, cx)).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        self.read(cx, || self.inner.length(key, cx)).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        self.inner.trim(key, keep_last, cx).await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        self.read(cx, || self.inner.apply(steps.clone(), cx)).await
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        self.inner.replay(steps, options, cx).await
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.read(cx, || self.inner.identity(cx)).await
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        self.read(cx, || self.inner.stamps(keys, cx)).await
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        self.read(cx, || self.inner.conflicts(options, cx)).await
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        self.read(cx, || self.inner.forget_conflict(key, stamp, cx)).await
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        self.inner.expect(identity)
    }
}

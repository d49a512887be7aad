//! The [`FaultBackend`].

use std::fmt;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::contract::{
    Append, AppendAck, Attempt, CacheBackend, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend,
    GetOptions, Identity, IncrementOptions, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions,
    ReplayOutcome, Step, StepAck, Store, Write, WriteAck,
};
use crate::{Error, HybridClock, Key, KeyPrefix, Outage, Result, Stamp};

use super::switch::{Fault, Faults, Verdict};

/// A store that does to calls what its [`Faults`] say, and is the store it wraps otherwise.
///
/// `capabilities` and `close` never fail.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex, PoisonError};
/// use std::time::Duration;
///
/// use agent_storage::backend::memory::MemoryDatabase;
/// use agent_storage::config::MemoryDatabaseConfig;
/// use agent_storage::contract::{Context, GetOptions, Store};
/// use agent_storage::testkit::{Fault, FaultBackend, Faults};
/// use agent_storage::{ErrorKind, Key};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let faults = Faults::seeded(7);
/// let store = FaultBackend::new(Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default())), faults.clone());
/// let (key, cx) = (Key::parse("k")?, Context::with_timeout(Duration::from_secs(5)));
///
/// faults.set(Fault::FailBefore);
/// let error = store.get(&key, &GetOptions::default(), &cx).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Unavailable);
/// faults.heal();
/// assert!(store.get(&key, &GetOptions::default(), &cx).await.is_ok());
/// # Ok::<(), agent_storage::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct FaultBackend<B: ?Sized> {
    faults: Faults,
    /// How often the store had been wiped when it was said which database is expected.
    expected_at: Mutex<Option<u64>>,
    held_up: HeldUp<B>,
    inner: Arc<B>,
}

/// A write as it lands when it is delivered.
type Late<B> = Box<dyn FnOnce(Arc<B>, Context) -> BoxFuture<'static, ()> + Send>;

/// The writes that were held up on their way, in the order they came.
struct HeldUp<B: ?Sized>(Mutex<Vec<Late<B>>>);

impl<B: ?Sized> HeldUp<B> {
    fn writes(&self) -> MutexGuard<'_, Vec<Late<B>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: ?Sized> fmt::Debug for HeldUp<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} writes", self.writes().len())
    }
}

/// How long a write may take that is delivered late.
const LATE_TIMEOUT: Duration = Duration::from_secs(30);

fn unavailable() -> Error {
    Error::unavailable("a fault of the testkit: nothing was applied")
}

fn unknown() -> Error {
    Error::outcome_unknown("a fault of the testkit: the reply was lost")
}

/// The error of a fault, with what it tells of the store.
fn telling(error: Error, outage: Option<Outage>) -> Error {
    match outage {
        Some(outage) => error.with_outage(outage),
        None => error,
    }
}

/// Whether a call can have been applied when its reply is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

impl Kind {
    /// The error of a call that was sent and not answered.
    fn unanswered(self) -> Error {
        match self {
            Self::Read => Error::unavailable("a fault of the testkit: the reply was lost"),
            Self::Write => unknown(),
        }
    }
}

impl<B: Store + ?Sized> FaultBackend<B> {
    /// Wraps a store.
    #[must_use]
    pub const fn new(inner: Arc<B>, faults: Faults) -> Self {
        Self { faults, expected_at: Mutex::new(None), held_up: HeldUp(Mutex::new(Vec::new())), inner }
    }

    /// Lets the writes land that [`Fault::Late`] held up, in the order they came; says how many. No fault is done to them.
    ///
    /// # Cancel safety
    ///
    /// Dropped in the middle, those that did not land by then are lost.
    pub async fn deliver(&self) -> usize {
        let writes = std::mem::take(&mut *self.held_up.writes());
        let count = writes.len();
        for write in writes {
            write(Arc::clone(&self.inner), Context::with_timeout(LATE_TIMEOUT)).await;
        }
        count
    }

    fn hold_up<F: Future<Output = ()> + Send + 'static>(
        &self,
        write: impl FnOnce(Arc<B>, Context) -> F + Send + 'static,
    ) {
        self.held_up.writes().push(Box::new(|inner, cx| Box::pin(write(inner, cx))));
    }

    /// The identity as it is seen from outside, and the other way round: each wipe makes another database of the store, but the
    /// wrapped one cannot be told to change its name.
    fn renamed(&self, mut identity: Identity) -> Identity {
        identity.id ^= u128::from(self.faults.counts().wipes);
        identity
    }

    /// Fails if the store was wiped since it was said which database is expected.
    fn recognise(&self) -> Result<()> {
        match *self.expected_at.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(wipes) if wipes != self.faults.counts().wipes => {
                Err(Error::unavailable("a fault of the testkit: another database answers").with_outage(Outage::Foreign))
            }
            _ => Ok(()),
        }
    }

    /// Does to a call what is to be done; `Err` carries the fault where the call's own answer is not to be seen.
    async fn call<T>(&self, kind: Kind, cx: &Context, call: impl Future<Output = T>) -> Result<T> {
        self.call_any(kind, cx, async {
            self.recognise()?;
            let answer = call.await;
            // What was read of a store that was wiped meanwhile is no answer of the expected one.
            if kind == Kind::Read {
                self.recognise()?;
            }
            Ok(answer)
        })
        .await?
    }

    /// The same whichever database is expected.
    async fn call_any<T>(&self, kind: Kind, cx: &Context, call: impl Future<Output = T>) -> Result<T> {
        let verdict = self.faults.judge(kind == Kind::Write);
        self.judged(verdict, kind, cx, call).await
    }

    /// The same for a write, which can be held up.
    async fn write_call<T, F>(
        &self,
        cx: &Context,
        write: impl FnOnce(Arc<B>, Context) -> F + Send + 'static,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let verdict = self.faults.judge(true);
        if verdict.fault == Some(Fault::Late) {
            self.hold_up(|inner, cx| async move { drop(write(inner, cx).await) });
            return self.judged(verdict, Kind::Write, cx, pending()).await?;
        }
        let call = write(Arc::clone(&self.inner), *cx);
        let recognised = async {
            self.recognise()?;
            call.await
        };
        self.judged(verdict, Kind::Write, cx, recognised).await?
    }

    async fn judged<T>(&self, verdict: Verdict, kind: Kind, cx: &Context, call: impl Future<Output = T>) -> Result<T> {
        self.wiped(verdict.wipe, cx).await?;
        match verdict.fault {
            None | Some(Fault::TornBatch) => Ok(call.await),
            Some(fault) => faulty(fault, kind, cx, call).await.map_err(|error| telling(error, verdict.outage)),
        }
    }

    /// The same for a batch of writes, which can be torn. `send` applies the items it is given.
    async fn batch<I, T, F>(
        &self,
        mut items: Vec<I>,
        cx: &Context,
        send: impl FnOnce(Arc<B>, Context, Vec<I>) -> F + Send + 'static,
    ) -> Vec<Result<T>>
    where
        I: Send + 'static,
        F: Future<Output = Vec<Result<T>>> + Send + 'static,
    {
        let count = items.len();
        let verdict = self.faults.judge(true);
        let (inner, at_once) = (Arc::clone(&self.inner), *cx);
        let ready = self.wiped(verdict.wipe, cx).await.and_then(|()| self.recognise());
        let done = match (ready, verdict.fault) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => Ok(send(inner, at_once, items).await),
            (Ok(()), Some(Fault::Late)) => {
                self.hold_up(|inner, cx| async move { drop(send(inner, cx, items).await) });
                let never: Result<Vec<Result<T>>> = faulty(Fault::Late, Kind::Write, cx, pending()).await;
                never.map_err(|error| telling(error, verdict.outage))
            }
            (Ok(()), Some(Fault::TornBatch)) => {
                // From none to all of them.
                let choices = u64::try_from(count).unwrap_or(u64::MAX).saturating_add(1);
                items.truncate(usize::try_from(verdict.random % choices).unwrap_or(0));
                drop(send(inner, at_once, items).await);
                Err(telling(unknown(), verdict.outage))
            }
            (Ok(()), Some(fault)) => {
                let done = faulty(fault, Kind::Write, cx, send(inner, at_once, items)).await;
                done.map_err(|error| telling(error, verdict.outage))
            }
        };
        done.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
    }

    /// The same for a batch of reads.
    async fn reads<T>(&self, count: usize, cx: &Context, call: impl Future<Output = Vec<Result<T>>>) -> Vec<Result<T>> {
        let done = self.call(Kind::Read, cx, call).await;
        done.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
    }

    /// Empties the store if it is to be wiped.
    async fn wiped(&self, wipe: bool, cx: &Context) -> Result<()> {
        if wipe {
            self.inner.clear(&KeyPrefix::empty(), HybridClock::process().issue(), Attempt::First, cx).await?;
        }
        Ok(())
    }
}

/// Does a fault other than a torn batch to a call.
async fn faulty<T>(fault: Fault, kind: Kind, cx: &Context, call: impl Future<Output = T>) -> Result<T> {
    match fault {
        Fault::FailBefore | Fault::ReadOnly => Err(unavailable()),
        Fault::FailAfter => {
            drop(call.await);
            Err(kind.unanswered())
        }
        Fault::Hang | Fault::Late => {
            let _: Option<()> = cx.limit(pending()).await;
            Err(kind.unanswered())
        }
        Fault::HangAfter => {
            drop(call.await);
            let _: Option<()> = cx.limit(pending()).await;
            Err(kind.unanswered())
        }
        Fault::Slow(time) => match cx.limit(tokio::time::sleep(time)).await {
            Some(()) => Ok(call.await),
            None => Err(unavailable()),
        },
        Fault::TornBatch => Ok(call.await),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Store + ?Sized> Store for FaultBackend<B> {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.call(Kind::Read, cx, self.inner.get(key, options, cx)).await?
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        self.reads(keys.len(), cx, self.inner.get_many(keys, options, cx)).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        self.reads(keys.len(), cx, self.inner.exists(keys, cx)).await
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        self.write_call(cx, |inner, cx| async move { inner.write(write, &cx).await }).await
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        self.batch(writes, cx, |inner, cx, writes| async move { inner.write_many(writes, &cx).await }).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        self.call(Kind::Read, cx, self.inner.list(prefix, options, cx)).await?
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        self.call(Kind::Read, cx, self.inner.count(prefix, cx)).await?
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        let prefix = prefix.clone();
        self.write_call(cx, move |inner, cx| async move { inner.clear(&prefix, stamp, attempt, &cx).await }).await
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        let mut ping = self.call(Kind::Write, cx, self.inner.ping(cx)).await??;
        ping.identity = ping.identity.map(|identity| self.renamed(identity));
        Ok(ping)
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
impl<B: CacheBackend + ?Sized> CacheBackend for FaultBackend<B> {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        let (key, options) = (key.clone(), *options);
        self.write_call(cx, move |inner, cx| async move { inner.increment(&key, by, &options, &cx).await }).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: DatabaseBackend + ?Sized> DatabaseBackend for FaultBackend<B> {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        self.batch(items, cx, |inner, cx, items| async move { inner.append_many(items, &cx).await }).await
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        self.call(Kind::Read, cx, self.inner.range(key, range, cx)).await?
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        self.call(Kind::Read, cx, self.inner.length(key, cx)).await?
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        let key = key.clone();
        self.write_call(cx, move |inner, cx| async move { inner.trim(&key, keep_last, &cx).await }).await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        self.write_call(cx, |inner, cx| async move { inner.apply(steps, &cx).await }).await
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        let options = options.clone();
        self.batch(steps, cx, |inner, cx, steps| async move { inner.replay(steps, &options, &cx).await }).await
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        let identity = self.call_any(Kind::Read, cx, self.inner.identity(cx)).await;
        Ok(self.renamed(identity??))
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        self.call(Kind::Read, cx, self.inner.stamps(keys, cx)).await?
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        self.call(Kind::Read, cx, self.inner.conflicts(options, cx)).await?
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        self.call(Kind::Write, cx, self.inner.forget_conflict(key, stamp, cx)).await?
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        self.inner.expect(identity.map(|identity| self.renamed(identity)))?;
        let wipes = self.faults.counts().wipes;
        *self.expected_at.lock().unwrap_or_else(PoisonError::into_inner) = identity.map(|_| wipes);
        Ok(())
    }
}

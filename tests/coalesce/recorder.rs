//! A database that records the batches it gets, and lets each through when it is told to.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::contract::{
    Append, AppendAck, Attempt, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend, GetOptions,
    Identity, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions, ReplayOutcome, Step, StepAck, Store,
    Write, WriteAck,
};
use agent_storage::{Error, Key, KeyPrefix, Result, Revision, Stamp};
use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// A key that spoils every batch it is in.
pub(crate) const POISON: &str = "poison";
/// A key that makes the store panic.
pub(crate) const PANIC: &str = "panic";

#[derive(Debug)]
pub(crate) struct Recorder {
    inner: MemoryDatabase,
    gate: Semaphore,
    batches: Mutex<Vec<Vec<String>>>,
    written: Mutex<HashSet<String>>,
    overlaps: AtomicUsize,
}

/// The keys of writes on their way.
struct Writing<'a>(&'a Recorder, Vec<String>);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.written.lock().unwrap().retain(|key| !self.1.contains(key));
    }
}

impl Recorder {
    /// A database that lets nothing through yet.
    pub(crate) fn closed() -> Self {
        Self {
            inner: MemoryDatabase::new(&Default::default()),
            gate: Semaphore::new(0),
            batches: Mutex::default(),
            written: Mutex::default(),
            overlaps: AtomicUsize::new(0),
        }
    }

    /// Lets some batches through.
    pub(crate) fn let_through(&self, batches: usize) {
        self.gate.add_permits(batches);
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Lets nothing through any more.
    pub(crate) fn close(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// The keys of the batches that came in, in their order.
    pub(crate) fn batches(&self) -> Vec<Vec<String>> {
        self.batches.lock().unwrap().clone()
    }

    /// How many writes came while another of their key was on its way.
    pub(crate) fn overlaps(&self) -> usize {
        self.overlaps.load(Ordering::SeqCst)
    }

    /// Notes writes until what is answered is dropped.
    fn writing<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Writing<'_> {
        let keys: Vec<String> = keys.map(ToString::to_string).collect();
        let mut written = self.written.lock().unwrap();
        let overlaps = keys.iter().filter(|key| !written.insert((*key).clone())).count();
        self.overlaps.fetch_add(overlaps, Ordering::SeqCst);
        Writing(self, keys)
    }

    async fn enter<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Result<()> {
        let keys: Vec<String> = keys.map(ToString::to_string).collect();
        self.batches.lock().unwrap().push(keys.clone());
        self.gate.acquire().await.unwrap().forget();
        assert!(!keys.iter().any(|key| key == PANIC), "expected by the test");
        if keys.iter().any(|key| key == POISON) {
            return Err(Error::invalid_value("something in the batch is bad"));
        }
        Ok(())
    }
}

/// Tells no revision that was not asked for, as Redis does.
fn as_asked(mut lookup: Lookup, options: &GetOptions) -> Lookup {
    if let (Lookup::Found(entry), true) = (&mut lookup, options.without_revision) {
        entry.revision = Revision::NOT_ASKED;
    }
    lookup
}

fn fail_all<T>(count: usize, error: &Error) -> Vec<Result<T>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

#[async_trait]
impl Store for Recorder {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.enter(std::iter::once(key)).await?;
        Ok(as_asked(self.inner.get(key, options, cx).await?, options))
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        match self.enter(keys.iter()).await {
            Ok(()) => {
                let answers = self.inner.get_many(keys, options, cx).await;
                answers.into_iter().map(|answer| Ok(as_asked(answer?, options))).collect()
            }
            Err(error) => fail_all(keys.len(), &error),
        }
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        self.inner.exists(keys, cx).await
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let _writing = self.writing(std::iter::once(&write.key));
        self.enter(std::iter::once(&write.key)).await?;
        yield_now().await;
        // What was sent is applied, though its caller's deadline has passed meanwhile.
        let _ = cx;
        self.inner.write(write, &Context::with_timeout(Context::MAX_TIMEOUT)).await
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let _writing = self.writing(writes.iter().map(|write| &write.key));
        yield_now().await;
        match self.enter(writes.iter().map(|write| &write.key)).await {
            Ok(()) => self.inner.write_many(writes, cx).await,
            Err(error) => fail_all(writes.len(), &error),
        }
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        self.inner.list(prefix, options, cx).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        self.inner.count(prefix, cx).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        self.inner.clear(prefix, stamp, attempt, cx).await
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
impl DatabaseBackend for Recorder {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        match self.enter(items.iter().map(|item| &item.key)).await {
            Ok(()) => self.inner.append_many(items, cx).await,
            Err(error) => fail_all(items.len(), &error),
        }
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        self.inner.range(key, range, cx).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        self.inner.length(key, cx).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        self.inner.trim(key, keep_last, cx).await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        self.inner.apply(steps, cx).await
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

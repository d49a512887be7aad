//! A database that does not take one value in a replay; nor what clears the prefix `stuck:`, or deletes the key `stuck`.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use agent_storage::contract::{
    Append, AppendAck, AppendOrder, Attempt, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend,
    GetOptions, Identity, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions, ReplayOutcome, Step,
    StepAck, Store, Write, WriteAck, WriteOp,
};
use agent_storage::{Error, Key, KeyPrefix, Result, Stamp, Value};
use async_trait::async_trait;
use tokio::sync::oneshot;

#[derive(Debug)]
pub(crate) struct Picky {
    inner: Arc<dyn DatabaseBackend>,
    poison: Value,
    takes_all: AtomicBool,
    replays: AtomicU64,
    hangs_at_the_end: AtomicBool,
    is_too_busy_to_read: AtomicBool,
    hindrance: Mutex<Error>,
    first: Mutex<Option<Error>>,
    held: Mutex<Option<oneshot::Receiver<()>>>,
    is_too_busy_for_pings: AtomicBool,
}

impl Picky {
    pub(crate) fn new(inner: Arc<dyn DatabaseBackend>, poison: Value) -> Self {
        let (takes_all, hangs_at_the_end) = (AtomicBool::new(false), AtomicBool::new(false));
        let (replays, hindrance) = (AtomicU64::new(u64::MAX), Mutex::new(Error::unavailable("not now")));
        let (is_too_busy_to_read, first) = (AtomicBool::new(false), Mutex::default());
        let (held, is_too_busy_for_pings) = (Mutex::default(), AtomicBool::new(false));
        Self {
            inner,
            poison,
            takes_all,
            replays,
            hangs_at_the_end,
            is_too_busy_to_read,
            hindrance,
            first,
            held,
            is_too_busy_for_pings,
        }
    }

    /// Answers no pings from now on, for want of a connection, which says nothing of the database.
    pub(crate) fn be_too_busy_for_pings(&self) {
        self.is_too_busy_for_pings.store(true, Ordering::SeqCst);
    }

    /// Holds the answer of the next ping back until what this gives is sent or dropped.
    pub(crate) fn hold_the_next_ping(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        *self.held.lock().unwrap() = Some(held);
        release
    }

    /// Whether the answer is held back by now.
    pub(crate) fn holds_a_ping(&self) -> bool {
        self.held.lock().unwrap().is_none()
    }

    /// Answers no reads of values from now on, for want of a connection, which says nothing of the database.
    pub(crate) fn be_too_busy_to_read(&self) {
        self.is_too_busy_to_read.store(true, Ordering::SeqCst);
    }

    async fn turn_to_read(&self, cx: &Context) -> Result<()> {
        if self.is_too_busy_to_read.load(Ordering::SeqCst) {
            return cx.limit(pending()).await.ok_or_else(|| Error::unavailable("no connection was free in time"));
        }
        Ok(())
    }

    /// Does not take the first of the next batch of writes, or of appends, for this reason, and takes the others.
    pub(crate) fn fail_the_first(&self, reason: Error) {
        *self.first.lock().unwrap() = Some(reason);
    }

    /// Does not end before the deadline when it is closed.
    pub(crate) fn hang_at_the_end(&self) {
        self.hangs_at_the_end.store(true, Ordering::SeqCst);
    }

    /// Fails replays, where it takes no more of them, for this reason from now on.
    pub(crate) fn hinder_by(&self, reason: Error) {
        *self.hindrance.lock().unwrap() = reason;
    }

    /// Takes so many replays, and fails all after them for a reason that passes.
    pub(crate) fn take_replays(&self, replays: u64) {
        self.replays.store(replays, Ordering::SeqCst);
    }

    /// How many replays it would still take.
    pub(crate) fn replays_left(&self) -> u64 {
        self.replays.load(Ordering::SeqCst)
    }

    /// Takes every value from now on.
    pub(crate) fn take_all(&self) {
        self.takes_all.store(true, Ordering::SeqCst);
    }

    fn refuses(&self, step: &Step) -> bool {
        let is_refused = match step {
            Step::Append(append) => append.value == self.poison,
            Step::Write(Write { op: WriteOp::Put { value, .. }, .. }) => *value == self.poison,
            Step::Write(Write { op: WriteOp::Delete { .. }, key, .. }) => key.as_str() == "stuck",
            Step::Clear { prefix, .. } => prefix.as_str() == "stuck:",
            _ => false,
        };
        is_refused && !self.takes_all.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for Picky {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.turn_to_read(cx).await?;
        self.inner.get(key, options, cx).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        match self.turn_to_read(cx).await {
            Ok(()) => self.inner.get_many(keys, options, cx).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        self.inner.exists(keys, cx).await
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        self.inner.write(write, cx).await
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let failure = self.first.lock().unwrap().take();
        let Some(failure) = failure else { return self.inner.write_many(writes, cx).await };
        let mut answers = vec![Err(failure)];
        answers.extend(self.inner.write_many(writes.into_iter().skip(1).collect(), cx).await);
        answers
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
        if self.is_too_busy_for_pings.load(Ordering::SeqCst) {
            return Err(Error::unavailable("no connection was free in time"));
        }
        let answer = self.inner.ping(cx).await;
        let held = self.held.lock().unwrap().take();
        if let Some(held) = held {
            let _ = held.await;
        }
        answer
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    /// The database itself goes on, for others.
    async fn close(&self, cx: &Context) -> Result<()> {
        if self.hangs_at_the_end.load(Ordering::SeqCst) {
            return cx.limit(pending()).await.ok_or_else(|| Error::unavailable("it did not end in time"));
        }
        Ok(())
    }
}

#[async_trait]
impl DatabaseBackend for Picky {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        let failure = self.first.lock().unwrap().take();
        let Some(failure) = failure else { return self.inner.append_many(items, cx).await };
        let mut answers = vec![Err(failure)];
        answers.extend(self.inner.append_many(items.into_iter().skip(1).collect(), cx).await);
        answers
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
        let one_less = |left: u64| left.checked_sub(1);
        if self.replays.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err() {
            let reason = self.hindrance.lock().unwrap().clone();
            return steps.iter().map(|_| Err(reason.clone())).collect();
        }
        let mut order = AppendOrder::default();
        let mut answers = Vec::new();
        for step in steps {
            let answer = if order.withholds(&step) {
                Ok(ReplayOutcome::Withheld)
            } else if self.refuses(&step) {
                Err(Error::invalid_value("thirteen is not taken"))
            } else {
                self.inner.replay(vec![step.clone()], options, cx).await.remove(0)
            };
            order.note(&step, &answer);
            answers.push(answer);
        }
        answers
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.inner.identity(cx).await
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        self.turn_to_read(cx).await?;
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

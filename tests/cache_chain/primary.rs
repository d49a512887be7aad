//! A primary that says in which order it was called, holds calls back, and may carry a write to its end though nobody waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use agent_storage::backend::memory::MemoryCache;
use agent_storage::contract::{
    Attempt, CacheBackend, Capabilities, Context, GetOptions, IncrementOptions, KeyPage, ListOptions, Lookup, Ping,
    Store, Write, WriteAck, WriteOp,
};
use agent_storage::{Error, HybridClock, Key, KeyPrefix, Result, Stamp};
use async_trait::async_trait;
use tokio::sync::watch;

/// See the module.
#[derive(Debug)]
pub(crate) struct Primary {
    inner: Arc<MemoryCache>,
    log: Mutex<Vec<String>>,
    deletes: Mutex<Arc<watch::Sender<bool>>>,
    puts: watch::Sender<bool>,
    /// Whether the reply to the first write of a batch is lost.
    loses_first: AtomicBool,
    /// Whether it refuses to delete, as to whoever lacks the right.
    refuses_deletes: AtomicBool,
}

impl Primary {
    pub(crate) fn new(inner: Arc<MemoryCache>) -> Self {
        Self {
            inner,
            log: Mutex::default(),
            deletes: Mutex::new(door()),
            puts: watch::Sender::new(true),
            loses_first: AtomicBool::new(false),
            refuses_deletes: AtomicBool::new(false),
        }
    }

    /// What it holds.
    pub(crate) fn store(&self) -> Arc<MemoryCache> {
        Arc::clone(&self.inner)
    }

    /// What was called since the last time, but reads.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// Holds batches of deletes and clears back, or lets them through; those that nobody waits for any more too.
    pub(crate) fn let_deletes(&self, through: bool) {
        self.deletes.lock().unwrap().send_replace(through);
    }

    /// Lets through the batches of deletes and the clears that come from now on. Those that are held back wait for what this gives.
    pub(crate) fn keep_deletes(&self) -> Arc<watch::Sender<bool>> {
        std::mem::replace(&mut self.deletes.lock().unwrap(), door())
    }

    /// Holds puts back, or lets them through; those that nobody waits for any more too.
    pub(crate) fn let_puts(&self, through: bool) {
        self.puts.send_replace(through);
    }

    /// Refuses batches of deletes, or takes them again.
    pub(crate) fn refuse_deletes(&self, refuses: bool) {
        self.refuses_deletes.store(refuses, Ordering::SeqCst);
    }

    /// Loses the reply to the first write of the next batch.
    pub(crate) fn lose_first(&self) {
        self.loses_first.store(true, Ordering::SeqCst);
    }

    fn note(&self, call: impl Into<String>) {
        self.log.lock().unwrap().push(call.into());
    }
}

fn door() -> Arc<watch::Sender<bool>> {
    Arc::new(watch::Sender::new(true))
}

/// The stamp of a delete or a clear: a store that knows no stamps applies it to whatever stands there.
fn as_it_lands() -> Stamp {
    HybridClock::process().issue()
}

async fn open(door: &watch::Sender<bool>) {
    let _ = door.subscribe().wait_for(|through| *through).await;
}

#[async_trait]
impl Store for Primary {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.inner.get(key, options, cx).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        self.inner.get_many(keys, options, cx).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        self.inner.exists(keys, cx).await
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let is_put = matches!(write.op, WriteOp::Put { .. });
        self.note(format!("{} {}", if is_put { "put" } else { "change" }, write.key));
        let (inner, door, cx) = (Arc::clone(&self.inner), self.puts.clone(), *cx);
        // As a client does that has a task for each write.
        let carried = tokio::spawn(async move {
            if is_put {
                open(&door).await;
            }
            inner.write(write, &cx).await
        });
        carried.await.unwrap()
    }

    async fn write_many(&self, mut writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let deletes = writes.iter().all(|write| matches!(write.op, WriteOp::Delete { .. }));
        self.note(format!("{} {}", if deletes { "delete" } else { "write" }, writes.len()));
        if deletes && self.refuses_deletes.load(Ordering::SeqCst) {
            let refused = |_| Err(Error::unavailable("no right to delete").permanent());
            return writes.iter().map(refused).collect();
        }
        let door = if deletes { Arc::clone(&self.deletes.lock().unwrap()) } else { Arc::new(self.puts.clone()) };
        let (inner, cx) = (Arc::clone(&self.inner), *cx);
        let carried = tokio::spawn(async move {
            open(&door).await;
            if deletes {
                writes.iter_mut().for_each(|write| write.stamp = as_it_lands());
            }
            inner.write_many(writes, &cx).await
        });
        let mut answers = carried.await.unwrap();
        if let Some(first) = answers.first_mut()
            && self.loses_first.swap(false, Ordering::SeqCst)
        {
            *first = Err(Error::outcome_unknown("the reply to the first was lost"));
        }
        answers
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        self.inner.list(prefix, options, cx).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        self.inner.count(prefix, cx).await
    }

    async fn clear(&self, prefix: &KeyPrefix, _stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        self.note(format!("clear {prefix}"));
        let door = Arc::clone(&self.deletes.lock().unwrap());
        let (inner, prefix, cx) = (Arc::clone(&self.inner), prefix.clone(), *cx);
        let carried = tokio::spawn(async move {
            match cx.limit(open(&door)).await {
                Some(()) => inner.clear(&prefix, as_it_lands(), attempt, &cx).await,
                None => Err(Error::outcome_unknown("the clear was not answered in time")),
            }
        });
        carried.await.unwrap()
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.note("ping");
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
impl CacheBackend for Primary {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        self.note(format!("increment {key}"));
        self.inner.increment(key, by, options, cx).await
    }
}

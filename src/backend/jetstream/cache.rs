//! The [`JetstreamCache`].

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::JetstreamConfig;
use crate::contract::{
    Attempt, CacheBackend, Capabilities, Context, Durability, GetOptions, IncrementOptions, KeyPage, ListOptions,
    Listing, Lookup, Ping, RevisionKind, Store, ToEnd, Write, WriteAck, as_probe,
};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::{Clock, Ttl};

use super::connect::Connector;
use super::list::Lister;
use super::record::Record;
use super::write::Writer;
use super::{list, read};

/// The most operations under way at once; further ones queue until their deadlines.
const OPERATIONS: u32 = 1 << 16;

/// A cache in a NATS JetStream key-value bucket.
///
/// It connects on first use, and again whenever the connection was lost. A write that a lost connection had not sent is never
/// sent later, and a put that it had sent is never stored after a write of a later connection. With replicas that second promise is
/// not kept: a put whose outcome is unknown may land late, as a creation may anywhere. Entries end on time to the millisecond, by the clock of whoever reads; the server removes them within seconds.
///
/// Other NATS clients can read and write the bucket. A key's `:` and `/` are token separators there, so that `session:42` is
/// `session.42`; what other clients write without our headers is JSON if it is JSON, binary otherwise, and its TTL is not known.
///
/// # Examples
///
/// ```no_run
/// use agent_storage::Clock;
/// use agent_storage::backend::jetstream::JetstreamCache;
/// use agent_storage::config::JetstreamConfig;
///
/// let cache = JetstreamCache::new(&JetstreamConfig::new("127.0.0.1", 4222), Clock::system())?;
/// # Ok::<(), agent_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct JetstreamCache {
    connector: Arc<Connector>,
    writer: Arc<Writer>,
    lister: Lister,
    places: Arc<Semaphore>,
    closed: AtomicBool,
}

impl JetstreamCache {
    /// Makes a cache; connects nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the configuration cannot be that of a bucket: no server, a name with other characters than
    /// letters, digits, `_` and `-`, more than 5 replicas, a TTL of zero or of more than 100 years.
    pub fn new(config: &JetstreamConfig, clock: Clock) -> Result<Self> {
        let invalid =
            |error: Error| Error::config("the bucket's TTL must be between 1 ms and 100 years").with_source(error);
        let default_ttl = config.ttl.map(Ttl::new).transpose().map_err(invalid)?;
        let connector = Arc::new(Connector::new(config.clone(), clock)?);
        let writer = Arc::new(Writer::new(Arc::clone(&connector), default_ttl));
        let places = Arc::new(Semaphore::new(OPERATIONS as usize));
        Ok(Self { connector, writer, lister: Lister::default(), places, closed: AtomicBool::new(false) })
    }

    /// Begins an operation, which [`Store::close`] waits for.
    async fn enter(&self, cx: &Context) -> Result<OwnedSemaphorePermit> {
        let closed = || Error::new(ErrorKind::Closed, "the cache was closed");
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        let busy = || Error::unavailable("too many operations wait for the server");
        cx.limit(Arc::clone(&self.places).acquire_owned()).await.ok_or_else(busy)?.map_err(|_| closed())
    }

    /// Runs what writes in a task of its own, so that it goes to its end though its caller goes away.
    async fn run<T, F, W>(&self, cx: &Context, work: W) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        W: FnOnce(Arc<Writer>) -> F,
    {
        let place = self.enter(cx).await?;
        let work = work(Arc::clone(&self.writer));
        let task = tokio::spawn(async move {
            let outcome = work.await;
            drop(place);
            outcome
        });
        task.await.map_err(|error| Error::new(ErrorKind::Internal, "a write was stopped").with_source(error))
    }

    async fn records(&self, keys: &[Key], cx: &Context) -> Result<Vec<Result<Option<Record>>>> {
        let _place = self.enter(cx).await?;
        let session = self.connector.session(cx).await?;
        Ok(read::last_many(&session, keys, cx).await)
    }
}

#[async_trait]
impl Store for JetstreamCache {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        let _place = self.enter(cx).await?;
        let session = self.connector.session(cx).await?;
        let found = read::last(&session, key, cx).await?;
        found.map_or_else(|| Ok(Lookup::missing()), |record| record.lookup(self.connector.clock().now(), options))
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        let answers = match self.records(keys, cx).await {
            Ok(answers) => answers,
            Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let now = self.connector.clock().now();
        let lookup = |found: Option<Record>| found.map_or(Ok(Lookup::missing()), |record| record.lookup(now, options));
        answers.into_iter().map(|found| found.and_then(lookup)).collect()
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        let answers = match self.records(keys, cx).await {
            Ok(answers) => answers,
            Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let now = self.connector.clock().now();
        let is_live = |found: Option<Record>| found.is_some_and(|record| record.is_live(now));
        answers.into_iter().map(|found| found.map(is_live)).collect()
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let place = self.enter(cx).await?;
        let (writer, context) = (Arc::clone(&self.writer), *cx);
        let work = async move {
            let outcome = writer.write(write, &context).await;
            drop(place);
            outcome
        };
        let stopped = |_| Err(Error::new(ErrorKind::Internal, "a write was stopped"));
        ToEnd::new(AssertUnwindSafe(work).catch_unwind()).await.unwrap_or_else(stopped)
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let (context, count) = (*cx, writes.len());
        let outcome = self.run(cx, |writer| async move { writer.write_many(writes, &context).await }).await;
        outcome.unwrap_or_else(|error| std::iter::repeat_n(error, count).map(Err).collect())
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        let _place = self.enter(cx).await?;
        let session = self.connector.session(cx).await?;
        self.lister.list(&session, prefix, options, self.connector.clock(), cx).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        let _place = self.enter(cx).await?;
        let session = self.connector.session(cx).await?;
        list::count(&session, prefix, self.connector.clock(), cx).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, _attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        let (context, prefix) = (*cx, prefix.clone());
        self.run(cx, |writer| async move { writer.clear(&prefix, stamp, &context).await }).await?
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        let (context, start) = (*cx, Instant::now());
        let ping = async {
            let session = self.run(cx, |writer| async move { writer.ping(&context).await }).await??;
            Ok(Ping::new(start.elapsed(), Some(session.server_version().to_owned())))
        };
        as_probe(ping, cx).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("jetstream");
        capabilities.durability = Durability::Primary;
        capabilities.shared = true;
        capabilities.revision = RevisionKind::Sequence;
        capabilities.listing = Listing::AtLeastOnce;
        capabilities.max_value_bytes = self.connector.max_value_bytes();
        capabilities.conditional_delete = true;
        capabilities.increment = true;
        capabilities
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        // Those that waited for a place are turned away; those that have one are waited for.
        let idle = cx.limit(self.places.acquire_many(OPERATIONS)).await;
        self.places.close();
        self.lister.close();
        self.connector.close();
        match idle {
            Some(_) => Ok(()),
            None => Err(Error::unavailable("operations were still under way when the cache was closed")),
        }
    }
}

#[async_trait]
impl CacheBackend for JetstreamCache {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        let (context, key, options) = (*cx, key.clone(), *options);
        self.run(cx, |writer| async move { writer.increment(&key, by, &options, &context).await }).await?
    }
}

//! The [`CacheChain`]: a cache, and a memory that stands in while it is away.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::chain::database::ChainOptions;
use crate::chain::in_flight::Scope;
use crate::chain::status::ChainStatus;
use crate::config::CacheChainConfig;
use crate::contract::{
    Attempt, CacheBackend, Capabilities, Context, GetOptions, IncrementOptions, KeyPage, ListOptions, Lookup, Ping,
    Store, Write, WriteAck,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::core::{Core, Parts};
use super::marker::{Found, Marker};
use super::{clear, guarded, read, reconcile, write};

/// A cache with another one, in memory, that stands in while it is away.
///
/// While the primary is away, puts, deletes, touches, clears and reads go to the one that stands in, at once. A miss there says that it is
/// one: [`Freshness::Fallback`](crate::contract::Freshness::Fallback); so does a hit. Conditions, counters, listings and counts are
/// unavailable. When the primary is back, what was written meanwhile is deleted there before it is read there again; it is never brought
/// there, because somebody else may have written since.
///
/// Up to 100 000 keys, 16 MiB of them and 64 cleared prefixes are told apart. Beyond that everything that begins with
/// [`ChainOptions::scope`] is cleared at the primary. So is it at the start if a process of the same folder
/// ([`CacheChainConfig::journal_path`]) died while it was degraded.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use agent_storage::backend::memory::MemoryCache;
/// use agent_storage::chain::{CacheChain, ChainOptions, ChainState};
/// use agent_storage::config::{CacheChainConfig, MemoryCacheConfig};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let memory = || Arc::new(MemoryCache::new(&MemoryCacheConfig::default()));
/// let options = ChainOptions::new(Duration::from_secs(5));
/// let chain = CacheChain::open(memory(), memory(), &CacheChainConfig::default(), options).await?;
/// assert_eq!(chain.status().state, ChainState::Normal);
/// # Ok::<(), agent_storage::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct CacheChain {
    core: Arc<Core>,
    tasks: Vec<JoinHandle<()>>,
}

impl CacheChain {
    /// Opens a chain, and asks the primary whether it is there. One that is not is no error: the chain begins degraded.
    ///
    /// `fallback` stands in: a cache in memory, empty, that nobody else uses. The chain closes both.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if a folder is configured that cannot be used.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn open(
        primary: Arc<dyn CacheBackend>,
        fallback: Arc<dyn CacheBackend>,
        config: &CacheChainConfig,
        options: ChainOptions,
    ) -> Result<Self> {
        let ChainOptions { timeout, fingerprint, scope, default_ttl, clock, stamps } = options;
        let (mut marker, mut found) = (None, Found::default());
        if let Some(folder) = &config.journal_path {
            let about = fingerprint.map(|primary| format!("{primary} {:?}", scope.as_str()));
            let (opened, left) = Marker::open(folder.clone(), about).await?;
            (marker, found) = (Some(opened), left);
        }
        let core = Core::new(config, Parts { primary, fallback, scope, default_ttl, timeout, clock, stamps, marker });
        if found.is_dirty {
            core.change_dirty(|dirty| dirty.add_everything());
        }
        if !found.left.is_empty() {
            core.board().change(|status| status.left_journals = found.left);
        }
        core.probe().await;
        core.announce(None);
        let tasks =
            vec![tokio::spawn(Arc::clone(&core).probe_for_ever()), tokio::spawn(reconcile::run(Arc::clone(&core)))];
        Ok(Self { core, tasks })
    }

    /// Ends the probes and the reconciliation.
    pub(crate) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// How the chain is now.
    #[must_use]
    pub fn status(&self) -> ChainStatus {
        self.core.current_status()
    }

    /// Tells each change of the chain's state. A watcher that is slow sees the latest.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ChainStatus> {
        self.core.board().watch()
    }
}

impl Drop for CacheChain {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for CacheChain {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        read::get(&self.core, key, options, cx).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        read::get_many(&self.core, keys, options, cx).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        read::exists(&self.core, keys, cx).await
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let answer = write::write_many(&self.core, vec![write], cx).await.pop();
        answer.unwrap_or_else(|| Err(Error::internal("a write was not answered")))
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        write::write_many(&self.core, writes, cx).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        guarded::list(&self.core, prefix, options, cx).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        guarded::count(&self.core, prefix, cx).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        clear::clear(&self.core, prefix, (stamp, attempt), cx).await
    }

    /// Asks the primary, also while the breaker is open.
    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.core.admit(cx)?;
        self.core.primary.ping(cx).await
    }

    fn capabilities(&self) -> Capabilities {
        self.core.primary.capabilities()
    }

    /// Deletes at the primary what is still to be deleted there, if it answers before the deadline.
    async fn close(&self, cx: &Context) -> Result<()> {
        let is_first = self.core.close();
        if is_first {
            // What is on its way may yet make its key dirty. Whoever has its turn after this is turned away.
            // The other half of the time is for what is to be deleted.
            let half = Context::with_timeout(cx.remaining() / 2);
            drop(self.core.in_flight.enter(Scope::Prefix(KeyPrefix::empty()), &half).await);
            self.stop();
            reconcile::finish(&self.core, cx).await;
            reconcile::warn_of_debts(&self.core);
        }
        let primary = self.core.primary.close(cx).await;
        let fallback = self.core.fallback.close(cx).await;
        if let Some(marker) = self.core.marker.as_ref().filter(|_| is_first) {
            // A disk that hangs holds nobody up; whoever starts next finds the mark of a process that is gone.
            let _ = cx.limit(marker.close()).await;
        }
        primary.and(fallback)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheBackend for CacheChain {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        guarded::increment(&self.core, key, by, options, cx).await
    }
}

//! A chain over a memory cache that fails as told.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryCache;
use agent_storage::chain::{CacheChain, ChainOptions, ChainState, ChainStatus};
use agent_storage::config::{CacheChainConfig, MemoryCacheConfig};
use agent_storage::contract::{CacheBackend, Durability, Freshness, Lookup};
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Cache, ErrorKind, KeyPrefix, Result, Value};

use crate::primary::Primary;

/// How long the calls through the chain may take.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);

/// What the chain may clear.
pub(crate) const SCOPE: &str = "app:";

/// A primary, the switch that makes it fail, a chain before it, and a handle of somebody else who needs no chain.
pub(crate) struct Rig {
    pub(crate) faults: Faults,
    pub(crate) primary: Arc<Primary>,
    pub(crate) chain: Arc<CacheChain>,
    /// A handle through the chain.
    pub(crate) cache: Cache,
    /// A handle to the primary itself, that never fails: another process.
    pub(crate) other: Cache,
}

/// How a rig is made.
pub(crate) struct Plan {
    pub(crate) faults: Faults,
    pub(crate) config: CacheChainConfig,
    pub(crate) options: ChainOptions,
    pub(crate) memory: MemoryCacheConfig,
    /// What the primary holds; it outlives the rig.
    pub(crate) store: Arc<MemoryCache>,
    pub(crate) timeout: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        let mut config = CacheChainConfig::default();
        config.breaker.probe_interval = Duration::from_millis(50);
        config.breaker.slow_call = Duration::from_millis(50);
        let mut options = ChainOptions::new(TIMEOUT);
        options.scope = KeyPrefix::parse(SCOPE).unwrap();
        Self {
            faults: Faults::seeded(1),
            config,
            options,
            memory: MemoryCacheConfig::default(),
            store: Arc::new(MemoryCache::new(&MemoryCacheConfig::default())),
            timeout: TIMEOUT,
        }
    }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Plan::default()).await
    }

    pub(crate) async fn with(plan: Plan) -> Self {
        let Plan { faults, config, options, memory, store, timeout } = plan;
        let other: Arc<dyn CacheBackend> = store.clone();
        let primary = Arc::new(Primary::new(store));
        let faulty = Arc::new(FaultBackend::new(Arc::clone(&primary), faults.clone()));
        let memory = Arc::new(MemoryCache::new(&memory));
        let chain = Arc::new(CacheChain::open(faulty, memory, &config, options).await.unwrap());
        let through: Arc<dyn CacheBackend> = chain.clone();
        let cache = Cache::new(through).with_timeout(timeout);
        Self { faults, primary, chain, cache, other: Cache::new(other) }
    }

    /// Makes the primary refuse everything, and waits until the chain knows.
    pub(crate) async fn fall(&self) {
        self.faults.set(Fault::FailBefore);
        let _ = self.cache.get("fall").await;
        self.until(|status| status.state == ChainState::Degraded).await;
    }

    /// Heals the primary, and waits until nothing is dirty any more.
    pub(crate) async fn recover(&self) {
        self.faults.heal();
        self.until(|status| status.state == ChainState::Normal).await;
        assert_eq!(self.chain.status().pending, 0);
    }

    pub(crate) async fn until(&self, reached: impl Fn(&ChainStatus) -> bool + Send + Sync) {
        let mut watch = self.chain.watch();
        let reached = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(|status| reached(status))).await;
        assert!(reached.is_ok(), "still {:?}", self.chain.status());
    }

    pub(crate) async fn set(&self, key: &str, number: i64) -> Durability {
        self.cache.set(key, Value::from_integer(number)).await.unwrap().durability
    }

    /// What a reader through the chain is told, and from where.
    pub(crate) async fn read(&self, key: &str) -> (Option<i64>, Freshness) {
        read(self.cache.lookup(key).await)
    }

    /// The number under a key in the primary itself.
    pub(crate) async fn stored(&self, key: &str) -> Option<i64> {
        self.other.get_json(key).await.unwrap()
    }
}

/// The number that a reader is told, and from where.
pub(crate) fn read(lookup: Result<Lookup>) -> (Option<i64>, Freshness) {
    let lookup = lookup.unwrap();
    let freshness = lookup.freshness();
    (lookup.into_value().map(|value| value.decode().unwrap()), freshness)
}

#[track_caller]
pub(crate) fn unavailable<T: std::fmt::Debug>(answer: Result<T>) {
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
}

//! A chain over a memory database that fails as told.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::{ChainOptions, ChainState, ChainStatus, DatabaseChain};
use agent_storage::config::{DatabaseChainConfig, DatabaseFallback, MemoryDatabaseConfig, MinDurability, OutageReads};
use agent_storage::contract::{Append, Context, DatabaseBackend, Durability, Freshness, Lookup, Write};
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Clock, Database, ErrorKind, HybridClock, Key, Result, Stamp, Value};
use futures_util::TryFutureExt;

/// How long the calls through the chain may take.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);

/// A primary, the switch that makes it fail, a chain before it, and a handle of somebody else who needs no chain.
pub(crate) struct Rig {
    pub(crate) faults: Faults,
    pub(crate) chain: Arc<DatabaseChain>,
    /// A handle through the chain.
    pub(crate) database: Database,
    /// A handle to the primary itself, that never fails.
    pub(crate) primary: Database,
    /// The wall clock of all of them.
    pub(crate) clock: Clock,
    /// Somebody else, in another process.
    pub(crate) other: Other,
    /// The primary between the chain and its faults.
    faulty: Arc<FaultBackend<dyn DatabaseBackend>>,
}

/// Somebody else who writes to the primary, with a clock of its own.
pub(crate) struct Other {
    backend: Arc<dyn DatabaseBackend>,
    stamps: HybridClock,
}

impl Other {
    /// One who reads this wall clock.
    pub(crate) fn new(backend: Arc<dyn DatabaseBackend>, wall: Clock) -> Self {
        Self { backend, stamps: HybridClock::new(wall) }
    }

    /// A stamp that is newer than any of ours so far.
    pub(crate) fn newer(&self) -> Stamp {
        self.stamps.issue_after(HybridClock::process().issue())
    }

    /// Writes a number; ours to come are newer.
    pub(crate) async fn set(&self, key: &str, number: i64, stamp: Stamp) {
        let write = Write::put(Key::parse(key).unwrap(), Value::from_integer(number), stamp);
        self.backend.write(write, &soon()).await.unwrap();
        HybridClock::process().observe(stamp);
    }

    pub(crate) async fn delete(&self, key: &str, stamp: Stamp) {
        self.backend.write(Write::delete(Key::parse(key).unwrap(), stamp), &soon()).await.unwrap();
        HybridClock::process().observe(stamp);
    }

    pub(crate) async fn append(&self, key: &str, number: i64) {
        let append = Append::new(Key::parse(key).unwrap(), Value::from_integer(number), self.stamps.issue());
        self.backend.append_many(vec![append], &soon()).await.remove(0).unwrap();
    }
}

pub(crate) fn soon() -> Context {
    Context::with_timeout(Duration::from_secs(10))
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut DatabaseChainConfig)) -> Self {
        Self::over(Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default())), change).await
    }

    pub(crate) async fn over(primary: Arc<dyn DatabaseBackend>, change: impl FnOnce(&mut DatabaseChainConfig)) -> Self {
        Self::start(primary, Clock::system(), Faults::seeded(1), change).await
    }

    /// A rig whose time stands still until it is moved.
    pub(crate) async fn timeless() -> Self {
        let clock = Clock::manual();
        let stamps = Arc::new(HybridClock::new(clock.clone()));
        let primary = MemoryDatabase::with_clocks(&MemoryDatabaseConfig::default(), clock.clone(), stamps);
        Self::start(Arc::new(primary), clock, Faults::seeded(1), |_| ()).await
    }

    /// Opens a chain whose primary may fail from the start.
    pub(crate) async fn start(
        primary: Arc<dyn DatabaseBackend>,
        clock: Clock,
        faults: Faults,
        change: impl FnOnce(&mut DatabaseChainConfig),
    ) -> Self {
        let mut config = DatabaseChainConfig::default();
        config.min_durability = MinDurability::Volatile;
        config.breaker.probe_interval = Duration::from_millis(100);
        config.breaker.slow_call = Duration::from_millis(50);
        change(&mut config);
        let faulty = Arc::new(FaultBackend::new(Arc::clone(&primary), faults.clone()));
        let failing: Arc<dyn DatabaseBackend> = faulty.clone();
        let mut options = ChainOptions::new(TIMEOUT);
        options.clock = clock.clone();
        let chain = Arc::new(DatabaseChain::open(failing, DatabaseFallback::Memory, &config, options).await.unwrap());
        let through: Arc<dyn DatabaseBackend> = chain.clone();
        let database = Database::new(through).with_timeout(TIMEOUT);
        let other = Other::new(Arc::clone(&primary), clock.clone());
        Self { faults, chain, database, primary: Database::new(primary), clock, other, faulty }
    }

    /// Makes the primary refuse everything, and waits until the chain knows.
    pub(crate) async fn fall(&self) {
        self.faults.set(Fault::FailBefore);
        let _ = self.database.get("fall").await;
        self.until(|status| status.state == ChainState::Degraded).await;
    }

    /// Lets the writes land that were held up on their way.
    pub(crate) async fn deliver(&self) {
        assert_eq!(self.faulty.deliver().await, 1, "one write was held up");
    }

    /// The same, however many those are.
    pub(crate) async fn deliver_all(&self) {
        self.faulty.deliver().await;
    }

    /// Heals the primary, and waits until nothing is owed any more.
    pub(crate) async fn recover(&self) {
        self.faults.heal();
        self.until(|status| status.state == ChainState::Normal).await;
        assert_eq!(self.chain.status().pending, 0);
        let left = self.chain.journaled(0).await.unwrap();
        assert_eq!(left.len(), self.chain.status().parked, "what was replayed is out of the journal: {left:?}");
    }

    /// Waits until the primary was called so many times more, by the probes if by nobody else.
    pub(crate) async fn until_called(&self, times: u64) {
        let goal = self.faults.counts().calls + times;
        let reached = async {
            while self.faults.counts().calls < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the primary is called");
    }

    pub(crate) async fn until(&self, reached: impl Fn(&ChainStatus) -> bool + Send + Sync) {
        let mut watch = self.chain.watch();
        let wait = watch.wait_for(|status| reached(status)).map_ok(drop);
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok();
        assert!(waited, "still {:?}", self.chain.status());
    }

    pub(crate) async fn set(&self, key: &str, number: i64) -> Durability {
        self.database.set(key, Value::from_integer(number)).await.unwrap().durability
    }

    /// Waits until nothing is owed but what was put aside.
    pub(crate) async fn until_settled(&self) {
        let settled = async {
            while self.chain.status().pending > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.expect("what waits is replayed");
    }

    /// The number under a key in the primary itself.
    pub(crate) async fn stored(&self, key: &str) -> Option<i64> {
        self.primary.get_json(key).await.unwrap()
    }

    pub(crate) async fn items(&self, key: &str) -> Vec<i64> {
        self.primary.range_json(key, 0, -1).await.unwrap()
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

/// Reads that guess, for those who asked for them.
pub(crate) fn guessing(config: &mut DatabaseChainConfig) {
    config.reads = OutageReads::Available;
}

//! A machine on which processes with a chain come and go, each with a clock of its own, over one primary.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::{ChainOptions, ChainStatus, DatabaseChain};
use agent_storage::config::{Conflicts, DatabaseChainConfig, DatabaseFallback, MemoryDatabaseConfig};
use agent_storage::contract::{
    Append, ConflictRecord, DatabaseBackend, Durability, GetOptions, LostOperation, Store, Write,
};
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Clock, Database, HybridClock, Key, Stamp, Value};
use tempfile::TempDir;

use crate::picky::Picky;
use crate::rig::soon;

pub(crate) struct Machine {
    pub(crate) faults: Faults,
    pub(crate) picky: Arc<Picky>,
    /// The primary itself, that never fails.
    pub(crate) primary: Database,
    /// The wall clock, which stands still until it is moved.
    pub(crate) clock: Clock,
    pub(crate) config: DatabaseChainConfig,
    /// The primary as the processes know it.
    pub(crate) backend: Arc<dyn DatabaseBackend>,
    _folder: TempDir,
}

/// A process with a chain.
pub(crate) struct Process {
    pub(crate) chain: DatabaseChain,
    pub(crate) stamps: Arc<HybridClock>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let (clock, faults, folder) = (Clock::manual(), Faults::seeded(1), tempfile::tempdir().unwrap());
        let stamps = Arc::new(HybridClock::new(clock.clone()));
        let memory = MemoryDatabase::with_clocks(&MemoryDatabaseConfig::default(), clock.clone(), stamps);
        let picky = Arc::new(Picky::new(Arc::new(memory), Value::from_integer(13)));
        let primary: Arc<dyn DatabaseBackend> = picky.clone();
        let backend: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(primary.clone(), faults.clone()));
        let mut config = DatabaseChainConfig::default();
        config.journal.path = folder.path().join("journal");
        config.breaker.probe_interval = Duration::from_millis(100);
        Self { faults, picky, primary: Database::new(primary), clock, config, backend, _folder: folder }
    }

    pub(crate) fn where_the_primary_wins(mut self) -> Self {
        self.config.conflicts = Conflicts::PrimaryWins;
        self
    }

    /// The journals in the folder.
    pub(crate) fn journals(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(&self.config.journal.path).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "db")).collect()
    }

    /// How many of the journals belong to a process that lives.
    pub(crate) fn owned_journals(&self) -> usize {
        self.journals().iter().filter(|journal| !is_free(&journal.with_extension("lock"))).count()
    }

    /// Starts a process.
    pub(crate) async fn start(&self) -> Process {
        self.start_at(Arc::clone(&self.backend), "here").await
    }

    /// Starts a process that is configured for a database at some address.
    pub(crate) async fn start_at(&self, primary: Arc<dyn DatabaseBackend>, address: &str) -> Process {
        let stamps = Arc::new(HybridClock::new(self.clock.clone()));
        let mut options = ChainOptions::new(Duration::from_secs(2));
        options.clock = self.clock.clone();
        options.stamps = Arc::clone(&stamps);
        options.fingerprint = Some(address.to_owned());
        let chain = DatabaseChain::open(primary, DatabaseFallback::Sqlite, &self.config, options).await.unwrap();
        Process { chain, stamps }
    }

    /// The key and number of each value that lost.
    pub(crate) async fn lost(&self) -> Vec<(String, i64)> {
        let records = self.primary.conflicts().collect().await.unwrap();
        let name = |record: ConflictRecord| match record.operation {
            LostOperation::Put { value, .. } => (record.key.to_string(), value.decode().unwrap()),
            other => panic!("{other:?}"),
        };
        records.into_iter().map(name).collect()
    }

    /// Takes the primary away from all.
    pub(crate) fn fall(&self) {
        self.faults.set(Fault::FailBefore);
    }

    /// Has all processes of the machine die without a word.
    pub(crate) async fn kill<const COUNT: usize>(&self, processes: [Process; COUNT]) {
        drop(processes);
        until_dead(&self.config.journal.path).await;
    }
}

impl Process {
    /// Writes a number, which must be journaled.
    pub(crate) async fn owe(&self, key: &str, number: i64) -> Stamp {
        let stamp = self.stamps.issue();
        let write = Write::put(Key::parse(key).unwrap(), Value::from_integer(number), stamp);
        let ack = self.chain.write(write, &soon()).await.unwrap();
        assert_eq!(ack.durability, Durability::Local);
        stamp
    }

    /// Appends a number, which must be journaled.
    pub(crate) async fn owe_item(&self, key: &str, number: i64) {
        let append = Append::new(Key::parse(key).unwrap(), Value::from_integer(number), self.stamps.issue());
        let ack = self.chain.append_many(vec![append], &soon()).await.remove(0).unwrap();
        assert_eq!(ack.durability, Durability::Local);
    }

    /// The number that a reader is told.
    pub(crate) async fn number(&self, key: &str) -> Option<i64> {
        let lookup = self.chain.get(&Key::parse(key).unwrap(), &GetOptions::default(), &soon()).await.unwrap();
        lookup.into_value().map(|value| value.decode().unwrap())
    }

    pub(crate) async fn until(&self, reached: impl Fn(&ChainStatus) -> bool + Send + Sync) {
        let reached = async {
            while !reached(&self.chain.status()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(waited.is_ok(), "still {:?}", self.chain.status());
    }
}

/// Waits until nobody holds a journal of a folder any more: a chain that is dropped takes a moment.
pub(crate) async fn until_dead(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            until_free(&path).await;
        }
    }
}

/// Waits until nobody holds a journal any more.
pub(crate) async fn until_free(journal: &Path) {
    let lock = journal.with_extension("lock");
    let free = async {
        while !is_free(&lock) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free).await.expect("its threads end");
}

/// Whether nobody holds a lock.
fn is_free(lock: &Path) -> bool {
    match File::open(lock).map(|file| file.try_lock()) {
        Ok(Err(TryLockError::WouldBlock)) => false,
        Ok(Err(TryLockError::Error(error))) => panic!("{error}"),
        // The lock goes with the file.
        Ok(Ok(())) | Err(_) => true,
    }
}

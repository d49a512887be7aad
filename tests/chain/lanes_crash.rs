//! Four writes in flight, in every combination of what becomes of them, when their process dies; and what its heir finds.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::{ChainOptions, ChainState, DatabaseChain};
use agent_storage::config::{DatabaseChainConfig, DatabaseFallback, MemoryDatabaseConfig};
use agent_storage::contract::DatabaseBackend;
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Clock, Database};
use tempfile::TempDir;

use crate::lanes::{Fates, InFlight, are_in_flight, for_each, four_in_flight, prepare, write_on};
use crate::machine::until_dead;
use crate::rig::TIMEOUT;

/// How long a call may take: many processes force what they keep to one disk here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A primary, and a folder of journals that outlive their processes.
struct Machine {
    faults: Faults,
    faulty: Arc<FaultBackend<dyn DatabaseBackend>>,
    primary: Database,
    config: DatabaseChainConfig,
    _folder: TempDir,
}

/// A process with a chain.
struct Process {
    chain: Arc<DatabaseChain>,
    database: Database,
}

impl Machine {
    fn new() -> Self {
        let (faults, folder) = (Faults::seeded(1), tempfile::tempdir().unwrap());
        let memory: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
        let mut config = DatabaseChainConfig::default();
        config.journal.path = folder.path().join("journal");
        config.breaker.probe_interval = Duration::from_millis(100);
        let faulty = Arc::new(FaultBackend::new(Arc::clone(&memory), faults.clone()));
        Self { faults, faulty, primary: Database::new(memory), config, _folder: folder }
    }

    async fn start(&self) -> Process {
        let mut options = ChainOptions::new(TIMEOUT);
        options.clock = Clock::system();
        let failing: Arc<dyn DatabaseBackend> = self.faulty.clone();
        let chain = DatabaseChain::open(failing, DatabaseFallback::Sqlite, &self.config, options).await.unwrap();
        let chain = Arc::new(chain);
        let through: Arc<dyn DatabaseBackend> = chain.clone();
        Process { chain, database: Database::new(through).with_timeout(PATIENCE) }
    }

    /// Has a process die without a word; says which of its writes were acknowledged.
    async fn kill(&self, process: Process, writes: InFlight) -> [bool; 4] {
        let mut acknowledged = [false; 4];
        for (write, acknowledged) in writes.into_iter().zip(&mut acknowledged) {
            write.abort();
            // One that had ended has an answer.
            *acknowledged = write.await.is_ok_and(|answer| answer.is_ok());
        }
        drop(process);
        until_dead(&self.config.journal.path).await;
        acknowledged
    }

    async fn stored(&self, key: &str) -> Option<i64> {
        self.primary.get_json(key).await.unwrap()
    }

    async fn items(&self, key: &str) -> Vec<i64> {
        self.primary.range_json(key, 0, -1).await.unwrap()
    }

    /// Lets the heir bring the primary what it is owed, and then what is late arrive.
    async fn settle(&self, heir: &Process, acknowledged: [bool; 4], fates: Fates) {
        heir.recover().await;
        self.check(acknowledged, fates).await;
        self.faulty.deliver().await;
        self.check(acknowledged, fates).await;
    }

    /// What the heir wrote stands, what was acknowledged before is there once, and what was not is there at most once.
    async fn check(&self, acknowledged: [bool; 4], fates: Fates) {
        for key in ["set", "delete", "batch:1"] {
            assert_eq!(self.stored(key).await, Some(2), "{key}, {fates:?}");
        }
        let batch = self.stored("batch:2").await;
        assert!(batch == Some(1) || (batch.is_none() && !acknowledged[3]), "{batch:?}, {fates:?}");
        let items = self.items("append").await;
        let ours: Vec<i64> = items.iter().copied().filter(|item| *item != 1).collect();
        assert_eq!(ours, [0, 2], "{fates:?}");
        let of_the_dead = items.len() - ours.len();
        assert!(of_the_dead == 1 || (of_the_dead == 0 && !acknowledged[1]), "{items:?}, {fates:?}");
        let items = self.items("delete").await;
        assert!(items == [2] || (items == [0, 2] && !acknowledged[2]), "{items:?}, {fates:?}");
    }
}

impl Process {
    async fn recover(&self) {
        let settled = async {
            while self.chain.status().state != ChainState::Normal || self.chain.status().pending > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), settled).await;
        assert!(waited.is_ok(), "still {:?}", self.chain.status());
    }
}

#[tokio::test]
async fn in_every_combination_a_crash_loses_nothing_that_was_acknowledged() {
    for_each(|fates| async move {
        let machine = Machine::new();
        let process = machine.start().await;
        prepare(&process.database).await;
        let writes = four_in_flight(&machine.faults, &process.database, fates).await;
        let is_reached = are_in_flight(&writes, fates);
        let acknowledged = machine.kill(process, writes).await;
        machine.faults.heal();
        let heir = machine.start().await;
        write_on(&heir.database).await;
        machine.settle(&heir, acknowledged, fates).await;
        is_reached
    })
    .await;
}

#[tokio::test]
async fn in_every_combination_a_crash_in_an_outage_loses_nothing_that_was_acknowledged() {
    for_each(|fates| async move {
        let machine = Machine::new();
        let process = machine.start().await;
        prepare(&process.database).await;
        let writes = four_in_flight(&machine.faults, &process.database, fates).await;
        let is_reached = are_in_flight(&writes, fates);
        // The primary falls, and what is in flight is journaled; or the process dies in the midst of that.
        machine.faults.set(Fault::FailBefore);
        let _ = process.database.get("fall").await;
        let acknowledged = machine.kill(process, writes).await;
        let heir = machine.start().await;
        write_on(&heir.database).await;
        assert!(heir.chain.status().pending > 0);
        machine.faults.heal();
        machine.settle(&heir, acknowledged, fates).await;
        is_reached
    })
    .await;
}

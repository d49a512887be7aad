//! Another database is accepted as the known one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::Database;
use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::{ChainOptions, ChainState, ChainStatus, DatabaseChain, JournalFile};
use agent_storage::config::{DatabaseChainConfig, DatabaseFallback, MemoryDatabaseConfig};
use agent_storage::contract::{DatabaseBackend, Durability};
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use futures_util::FutureExt;

use crate::machine::Machine;
use crate::rig::{Rig, soon};

/// A process with a journal in a folder, which knows its database under an address.
struct Process {
    chain: Arc<DatabaseChain>,
    database: Database,
}

impl Process {
    async fn start(memory: &Arc<dyn DatabaseBackend>, faults: &Faults, folder: &Path, address: &str) -> Self {
        let primary: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(Arc::clone(memory), faults.clone()));
        let mut config = DatabaseChainConfig::default();
        config.journal.path = folder.to_owned();
        config.breaker.probe_interval = Duration::from_millis(50);
        let mut options = ChainOptions::new(Duration::from_secs(5));
        options.fingerprint = Some(address.to_owned());
        let chain = DatabaseChain::open(primary, DatabaseFallback::Sqlite, &config, options).await.unwrap();
        let chain = Arc::new(chain);
        let through: Arc<dyn DatabaseBackend> = chain.clone();
        Self { chain, database: Database::new(through) }
    }

    async fn until(&self, what: impl FnMut(&ChainStatus) -> bool) {
        let mut watch = self.chain.watch();
        let changed = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(what)).await;
        drop(changed.unwrap_or_else(|_| panic!("{:?}", self.chain.status())).unwrap());
    }

    async fn owes(&self, key: &str) {
        assert_eq!(self.database.set_json(key, &1).await.unwrap().durability, Durability::Local);
    }
}

fn memory() -> Arc<dyn DatabaseBackend> {
    Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()))
}

#[tokio::test]
async fn what_was_owed_is_replayed_to_the_accepted_database() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    let known = rig.chain.known_primary().unwrap();
    rig.faults.wipe();
    let _ = rig.database.get("k").await;
    rig.until(|status| status.fenced).await;
    let reason = rig.chain.status().reason.unwrap();
    assert!(reason.message().contains("agent-storage reconcile --accept"), "{reason}");
    rig.set("owed", 2).await;
    let accepted = rig.chain.accept_primary().await.unwrap();
    assert_ne!(accepted.identity.id, known.id);
    rig.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(rig.stored("owed").await, Some(2));
    assert_eq!(rig.chain.known_primary().unwrap().id, accepted.identity.id);
}

#[tokio::test]
async fn nothing_is_accepted_while_no_database_answers() {
    let rig = Rig::new().await;
    let known = rig.chain.known_primary();
    rig.fall().await;
    rig.chain.accept_primary().await.unwrap_err();
    assert_eq!(rig.chain.known_primary().map(|known| known.id), known.map(|known| known.id));
    rig.faults.wipe();
    rig.faults.heal();
    rig.until(|status| status.fenced).await;
}

#[tokio::test]
async fn the_other_processes_of_the_folder_learn_of_it_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let (memory, faults) = (memory(), Faults::seeded(1));
    let first = Process::start(&memory, &faults, folder.path(), "here").await;
    let second = Process::start(&memory, &faults, folder.path(), "here").await;
    faults.wipe();
    for process in [&first, &second] {
        let _ = process.database.get("k").await;
        process.until(|status| status.fenced).await;
    }
    first.owes("first").await;
    second.owes("second").await;
    let accepted = first.chain.accept_primary().await.unwrap();
    assert_eq!((accepted.told, accepted.taken_over), (1, 0));
    for process in [&first, &second] {
        process.until(|status| status.state == ChainState::Normal).await;
    }
    let stored = Database::new(memory);
    assert_eq!((stored.get_json("first").await.unwrap(), stored.get_json("second").await.unwrap()), (Some(1), Some(1)));
    while left_words(folder.path()) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The next one is another decision.
    faults.wipe();
    let _ = second.database.get("k").await;
    second.until(|status| status.fenced).await;
}

fn left_words(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "accept")).count()
}

#[tokio::test]
async fn what_is_owed_to_another_address_is_taken_over_when_it_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (memory, faults) = (memory(), Faults::seeded(1));
    let former = Process::start(&memory, &faults, folder.path(), "there").await;
    faults.set(Fault::FailBefore);
    let _ = former.database.get("k").await;
    former.owes("k").await;
    drop(former);
    while JournalFile::list(folder.path()).await.unwrap().iter().any(|journal| journal.is_owned) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    faults.heal();
    let memory = self::memory();
    let moved = Process::start(&memory, &faults, folder.path(), "here").await;
    assert_eq!(moved.chain.status().left_journals.len(), 1);
    assert_eq!(moved.chain.status().pending, 0);
    let accepted = moved.chain.accept_primary().await.unwrap();
    assert_eq!((accepted.told, accepted.taken_over), (0, 1));
    assert!(moved.chain.status().left_journals.is_empty());
    moved.until(|status| status.state == ChainState::Normal && status.replayed == 1).await;
    assert_eq!(Database::new(memory).get_json("k").await.unwrap(), Some(1));
}

#[tokio::test]
async fn it_is_carried_out_though_whoever_asked_for_it_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let (memory, faults) = (memory(), Faults::seeded(1));
    let former = Process::start(&memory, &faults, folder.path(), "there").await;
    let process = Process::start(&memory, &faults, folder.path(), "here").await;
    faults.set(Fault::FailBefore);
    let _ = former.database.get("k").await;
    former.owes("theirs").await;
    drop(former);
    while JournalFile::list(folder.path()).await.unwrap().iter().filter(|journal| journal.is_owned).count() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    faults.wipe();
    faults.heal();
    let _ = process.database.get("k").await;
    process.until(|status| status.fenced).await;
    process.owes("ours").await;
    let mut asked = Box::pin(process.chain.accept_primary());
    assert!(asked.as_mut().now_or_never().is_none());
    drop(asked);
    process.until(|status| status.state == ChainState::Normal && status.replayed == 2).await;
    let stored = Database::new(memory);
    assert_eq!((stored.get_json("theirs").await.unwrap(), stored.get_json("ours").await.unwrap()), (Some(1), Some(1)));
}

#[tokio::test]
async fn what_was_accepted_stays_known_though_one_who_had_not_heard_of_it_owed_more() {
    let machine = Machine::new();
    let accepted = Beside::new();
    let deaf = machine.start().await;
    machine.fall();
    for key in ["a", "b"] {
        deaf.owe(key, 1).await;
    }
    let process = machine.start_at(accepted.backend(), "here").await;
    process.chain.accept_primary().await.unwrap();
    process.until(|status| status.state == ChainState::Normal).await;
    accepted.faults.set(Fault::FailBefore);
    process.owe("after it", 1).await;
    machine.kill([deaf, process]).await;
    // The former one answers again.
    machine.faults.heal();
    let process = machine.start().await;
    assert!(process.chain.status().fenced, "{:?}", process.chain.status());
    machine.kill([process]).await;
    // By somebody else's handle, who expects nothing.
    machine.backend.expect(None).unwrap();
    assert_eq!(machine.primary.get_json::<i64>("after it").await.unwrap(), None);
    accepted.faults.heal();
    let process = machine.start_at(accepted.backend(), "here").await;
    process.until(|status| status.state == ChainState::Normal).await;
    for key in ["a", "b", "after it"] {
        assert_eq!(Database::new(Arc::clone(&accepted.memory)).get_json::<i64>(key).await.unwrap(), Some(1));
    }
}

#[tokio::test]
async fn what_was_accepted_at_one_address_says_nothing_of_another() {
    let machine = Machine::new();
    let there = Beside::new();
    let first = machine.start().await;
    machine.fall();
    first.owe("a", 1).await;
    let elsewhere = machine.start_at(there.backend(), "there").await;
    elsewhere.chain.accept_primary().await.unwrap();
    // One that starts beside the first, and one that takes over what they leave.
    let second = machine.start().await;
    second.owe("b", 1).await;
    machine.faults.heal();
    second.until(|status| status.state == ChainState::Normal).await;
    machine.fall();
    second.owe("c", 1).await;
    machine.kill([first, second, elsewhere]).await;
    machine.faults.heal();
    let third = machine.start().await;
    third.until(|status| status.state == ChainState::Normal).await;
    for key in ["a", "b", "c"] {
        assert_eq!(machine.primary.get_json::<i64>(key).await.unwrap(), Some(1));
    }
}

#[tokio::test]
async fn those_that_were_fenced_for_another_address_hear_of_it_too() {
    let machine = Machine::new();
    let known = machine.start().await;
    machine.kill([known]).await;
    let down = Beside::new();
    down.faults.set(Fault::FailBefore);
    let there = machine.start_at(down.backend(), "there").await;
    there.owe("k", 1).await;
    machine.kill([there]).await;
    let first = machine.start().await;
    let second = machine.start().await;
    assert!(first.chain.status().fenced && second.chain.status().fenced);
    assert_eq!(first.chain.accept_primary().await.unwrap().taken_over, 1);
    let heard = second.until(|status| status.state == ChainState::Normal);
    tokio::time::timeout(Duration::from_secs(5), heard).await.expect("with one of the next probes");
}

#[tokio::test]
async fn a_word_is_gone_once_the_next_start_has_written_it_down() {
    let machine = Machine::new();
    let accepted = Beside::new();
    let deaf = machine.start().await;
    machine.fall();
    deaf.owe("a", 1).await;
    let process = machine.start_at(accepted.backend(), "here").await;
    process.chain.accept_primary().await.unwrap();
    assert_eq!(left_words(&machine.config.journal.path), 1);
    machine.kill([deaf, process]).await;
    // It hears of it as it starts, and is never told by a probe.
    accepted.faults.set(Fault::FailBefore);
    let process = machine.start_at(accepted.backend(), "here").await;
    assert_eq!(left_words(&machine.config.journal.path), 0);
    assert_eq!(process.chain.known_primary().map(|known| known.id), accepted.id().await);
}

/// Another database, with faults of its own.
struct Beside {
    memory: Arc<dyn DatabaseBackend>,
    faults: Faults,
}

impl Beside {
    fn new() -> Self {
        Self { memory: memory(), faults: Faults::seeded(2) }
    }

    /// Which database it is.
    async fn id(&self) -> Option<u128> {
        self.memory.ping(&soon()).await.unwrap().identity.map(|identity| identity.id)
    }

    fn backend(&self) -> Arc<dyn DatabaseBackend> {
        Arc::new(FaultBackend::new(Arc::clone(&self.memory), self.faults.clone()))
    }
}

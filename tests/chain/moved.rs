//! The address of the primary was changed while it was owed something.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::backend::sqlite::SqliteDatabase;
use agent_storage::chain::ChainState;
use agent_storage::config::{MemoryDatabaseConfig, SqliteConfig};
use agent_storage::contract::{DatabaseBackend, Store, Write};
use agent_storage::testkit::FaultBackend;
use agent_storage::{Database, Key, Value};
use tokio::task::JoinSet;

use crate::machine::Machine;
use crate::picky::Picky;
use crate::rig::soon;

fn memory() -> Arc<dyn DatabaseBackend> {
    Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()))
}

/// A machine on which a process died that owed something.
async fn owing() -> Machine {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    process.owe("k", 1).await;
    machine.kill([process]).await;
    machine.faults.heal();
    machine
}

#[tokio::test]
async fn another_database_at_the_new_address_is_fenced_off_and_the_reason_is_told() {
    let machine = owing().await;
    let empty = memory();
    let process = machine.start_at(Arc::clone(&empty), "there").await;
    let status = process.chain.status();
    let reason = status.reason.map(|reason| reason.to_string()).unwrap_or_default();
    assert!(status.fenced && status.state == ChainState::Degraded, "{reason}");
    assert!(reason.contains("1 operations owed") && reason.contains("here") && reason.contains("--accept"), "{reason}");
    process.owe("other", 2).await;
    assert_eq!(status.left_journals.len(), 1);
    // Somebody says that it is right.
    assert_eq!(process.chain.accept_primary().await.unwrap().taken_over, 1);
    process.until(|status| status.state == ChainState::Normal).await;
    let stored = Database::new(empty);
    assert_eq!(stored.get_json::<i64>("k").await.unwrap(), Some(1));
    assert_eq!(stored.get_json::<i64>("other").await.unwrap(), Some(2));
    assert!(process.chain.status().left_journals.is_empty());
}

#[tokio::test]
async fn the_same_database_at_the_new_address_is_brought_what_it_is_owed() {
    let machine = owing().await;
    let process = machine.start_at(Arc::clone(&machine.backend), "there").await;
    process.until(|status| status.state == ChainState::Normal).await;
    assert!(process.chain.status().left_journals.is_empty());
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(1));
}

#[tokio::test]
async fn the_same_database_is_recognised_at_the_new_address_as_soon_as_it_is_back() {
    let machine = owing().await;
    machine.fall();
    let process = machine.start_at(Arc::clone(&machine.backend), "there").await;
    assert_eq!(process.chain.status().left_journals.len(), 1);
    machine.picky.take_replays(0);
    machine.faults.heal();
    process.until(|status| status.state == ChainState::Reconciling).await;
    assert_eq!(process.number("k").await, Some(1), "what is owed is known before anything is read");
    machine.picky.take_replays(u64::MAX);
    process.until(|status| status.state == ChainState::Normal).await;
    assert!(process.chain.status().left_journals.is_empty());
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(1));
}

#[tokio::test]
async fn an_older_copy_of_the_database_at_the_new_address_is_fenced_off() {
    let (machine, folder) = (Machine::new(), tempfile::tempdir().unwrap());
    let (file, copy) = (folder.path().join("here.db"), folder.path().join("there.db"));
    let open = |path| Arc::new(SqliteDatabase::new(&SqliteConfig::at(path)));
    let original = open(&file);
    let here = Arc::new(FaultBackend::new(original.clone(), machine.faults.clone()));
    let process = machine.start_at(here, "here").await;
    rusqlite::Connection::open(&file).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    for _ in 0..20 {
        process.chain.ping(&soon()).await.unwrap();
    }
    machine.fall();
    process.owe("k", 1).await;
    machine.kill([process]).await;

    let there: Arc<dyn DatabaseBackend> = open(&copy);
    let stored = Database::new(open(&copy));
    for _ in 0..2 {
        let process = machine.start_at(Arc::clone(&there), "there").await;
        // Probes have their say, and a replay would have its chance.
        tokio::time::sleep(machine.config.breaker.probe_interval * 5).await;
        let status = process.chain.status();
        assert!(status.fenced && status.state == ChainState::Degraded && status.pending == 1, "{status:?}");
        let reason = status.reason.unwrap().to_string();
        assert!(reason.contains("an older state") && !reason.contains("address"), "{reason}");
        assert_eq!(stored.get_json::<i64>("k").await.unwrap(), None);
        machine.kill([process]).await;
    }
    let process = machine.start_at(original.clone(), "here").await;
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(Database::new(original).get_json::<i64>("k").await.unwrap(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_start_at_once_are_fenced_off_from_another_database() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    // Large enough that who looks through it has it for a while.
    for part in 0..10 {
        let writes = (0..1000).map(|number| {
            let key = Key::parse(format!("k:{part}:{number}")).unwrap();
            Write::put(key, Value::from_integer(number), process.stamps.issue())
        });
        let acks = process.chain.write_many(writes.collect(), &soon()).await;
        assert!(acks.iter().all(Result::is_ok), "{:?}", acks[0]);
    }
    machine.kill([process]).await;
    machine.faults.heal();
    let empty = memory();
    let mut starts = JoinSet::new();
    let machine = Arc::new(machine);
    for _ in 0..8 {
        let (machine, empty) = (Arc::clone(&machine), Arc::clone(&empty));
        starts.spawn(async move { machine.start_at(empty, "there").await });
    }
    for process in starts.join_all().await {
        assert!(process.chain.status().fenced, "{:?}", process.chain.status());
    }
}

#[tokio::test]
async fn a_wrong_database_at_the_new_address_is_not_taken_for_the_known_one() {
    let machine = owing().await;
    let process = machine.start_at(memory(), "there").await;
    assert!(process.chain.status().fenced, "{:?}", process.chain.status());
    process.owe("while fenced", 1).await;
    machine.kill([process]).await;
    // The address leads to the right one at last.
    let process = machine.start_at(Arc::clone(&machine.backend), "there").await;
    process.until(|status| status.state == ChainState::Normal).await;
    for key in ["k", "while fenced"] {
        assert_eq!(machine.primary.get_json::<i64>(key).await.unwrap(), Some(1));
    }
}

#[tokio::test]
async fn a_copy_is_not_raised_by_probes_until_it_passes_for_the_original() {
    let (machine, folder) = (Machine::new(), tempfile::tempdir().unwrap());
    let (file, copy) = (folder.path().join("here.db"), folder.path().join("there.db"));
    let open = |path| Arc::new(SqliteDatabase::new(&SqliteConfig::at(path)));
    let here = Arc::new(FaultBackend::new(open(&file), machine.faults.clone()));
    let process = machine.start_at(here, "here").await;
    rusqlite::Connection::open(&file).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    for _ in 0..5 {
        process.chain.ping(&soon()).await.unwrap();
    }
    machine.fall();
    process.owe("k", 1).await;
    machine.kill([process]).await;
    let process = machine.start_at(Arc::new(FaultBackend::new(open(&copy), machine.faults.clone())), "there").await;
    // Somebody looks through the folder, so that what is owed cannot be taken over yet.
    let looking = File::open(machine.config.journal.path.join("looking")).unwrap();
    looking.lock().unwrap();
    machine.faults.heal();
    tokio::time::sleep(machine.config.breaker.probe_interval * 15).await;
    drop(looking);
    process.until(|status| status.pending == 1).await;
    tokio::time::sleep(machine.config.breaker.probe_interval * 5).await;
    let status = process.chain.status();
    assert!(status.fenced && status.pending == 1, "{status:?}");
    assert_eq!(Database::new(open(&copy)).get_json::<i64>("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_ping_does_not_take_a_wrong_database_for_the_known_one() {
    // Written before the database was ever seen: nobody knows which one it is owed to.
    let machine = Machine::new();
    machine.fall();
    let process = machine.start().await;
    process.owe("k", 1).await;
    machine.kill([process]).await;
    machine.faults.heal();
    let process = machine.start_at(memory(), "there").await;
    process.chain.ping(&soon()).await.unwrap();
    process.until(|status| status.fenced).await;
    tokio::time::sleep(machine.config.breaker.probe_interval * 3).await;
    assert_eq!(process.chain.known_primary(), None);
    machine.kill([process]).await;
    let process = machine.start().await;
    process.until(|status| status.state == ChainState::Normal).await;
    machine.kill([process]).await;
    let process = machine.start_at(memory(), "there").await;
    process.until(|status| status.state == ChainState::Normal).await;
}

#[test]
fn who_rests_while_it_looks_through_the_folder_keeps_nobody_out() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (resting, other) = (runtime(), runtime());
    let machine = Machine::new();
    // Whose journal is looked at more than once.
    let neighbour = other.block_on(machine.start_at(memory(), "elsewhere"));
    let process = resting.block_on(async {
        machine.fall();
        let process = machine.start().await;
        process.owe("k", 1).await;
        drop(process);
        while machine.owned_journals() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        machine.faults.heal();
        let process = machine.start_at(memory(), "there").await;
        // It looks again at once, for it has seen which database answers, and is not done yet.
        tokio::time::sleep(Duration::from_millis(20)).await;
        process
    });
    std::thread::sleep(Duration::from_millis(300));
    let start = machine.start_at(memory(), "there");
    let started = other.block_on(async { tokio::time::timeout(Duration::from_secs(10), start).await });
    assert!(started.unwrap().chain.status().fenced);
    drop((process, neighbour));
}

#[tokio::test]
async fn nothing_is_made_in_an_empty_database_at_the_new_address() {
    let (machine, folder) = (owing().await, tempfile::tempdir().unwrap());
    let there = folder.path().join("there.db");
    let process = machine.start_at(Arc::new(SqliteDatabase::new(&SqliteConfig::at(&there))), "there").await;
    assert!(process.chain.status().fenced, "{:?}", process.chain.status());
    assert!(std::fs::metadata(&there).is_ok_and(|file| file.len() == 0) || !there.exists());
    // Somebody says that it is right.
    process.chain.accept_primary().await.unwrap();
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(process.number("k").await, Some(1));
}

#[tokio::test]
async fn the_fence_goes_when_the_former_address_is_used_again_and_whichever_answers_is_known() {
    let machine = owing().await;
    machine.fall();
    let moved = machine.start_at(memory(), "there").await;
    assert!(moved.chain.status().fenced, "{:?}", moved.chain.status());
    let back = machine.start().await;
    assert_eq!(back.chain.status().pending, 1);
    moved.chain.accept_primary().await.unwrap();
    moved.until(|status| status.state == ChainState::Normal).await;
    machine.faults.heal();
    back.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(1));
}

#[tokio::test]
async fn what_was_written_while_fenced_stays_here_over_a_restart() {
    let machine = owing().await;
    let empty = memory();
    for life in 0..3 {
        let process = machine.start_at(Arc::clone(&empty), "there").await;
        assert!(process.chain.status().fenced, "{:?}", process.chain.status());
        process.owe("other", life).await;
        machine.kill([process]).await;
    }
    // By somebody else's handle, who expects nothing.
    empty.expect(None).unwrap();
    assert_eq!(Database::new(empty).get_json::<i64>("other").await.unwrap(), None);
}

#[tokio::test]
async fn a_database_at_the_new_address_that_cannot_say_which_it_is_is_not_used() {
    let machine = owing().await;
    let empty = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
    let busy = Arc::new(Picky::new(empty.clone(), Value::from_integer(13)));
    busy.be_too_busy_for_pings();
    let process = machine.start_at(busy, "there").await;
    assert!(process.chain.status().fenced, "{:?}", process.chain.status());
    process.owe("other", 2).await;
    // By somebody else's handle, who expects nothing.
    empty.expect(None).unwrap();
    assert_eq!(Database::new(empty).get_json::<i64>("other").await.unwrap(), None);
}

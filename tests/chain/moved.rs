//! The address of the primary was changed while it was owed something.

use std::sync::Arc;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::backend::sqlite::SqliteDatabase;
use agent_storage::chain::ChainState;
use agent_storage::config::{MemoryDatabaseConfig, SqliteConfig};
use agent_storage::contract::{DatabaseBackend, Store};
use agent_storage::testkit::FaultBackend;
use agent_storage::{Database, Value};

use crate::machine::Machine;
use crate::picky::Picky;
use crate::rig::soon;

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
    let empty: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
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
        assert_eq!(stored.get_json::<i64>("k").await.unwrap(), None);
        machine.kill([process]).await;
    }
    let process = machine.start_at(original.clone(), "here").await;
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(Database::new(original).get_json::<i64>("k").await.unwrap(), Some(1));
}

#[tokio::test]
async fn what_was_written_while_fenced_stays_here_over_a_restart() {
    let machine = owing().await;
    let empty: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
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
    assert_eq!(Database::new(empty).get_json::<i64>("other").await.unwrap(), None);
}

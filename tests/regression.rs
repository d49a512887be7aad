//! Every bug leaves a test here, or in the conformance suite where the behaviour is the contract's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::config::{BatchingConfig, MemoryDatabaseConfig, StorageConfig};
use agent_storage::contract::DatabaseBackend;
use agent_storage::layer::Coalesce;
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Database, ErrorKind, Revision, SetOptions, StorageManager, Ttl, Value};

fn memory() -> Arc<dyn DatabaseBackend> {
    Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()))
}

fn coalesced(faults: &Faults, max_batch: u32) -> Database {
    let mut config = BatchingConfig::default();
    (config.lanes, config.max_batch) = (Some(1), max_batch);
    let faulty: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(memory(), faults.clone()));
    Database::new(Arc::new(Coalesce::database(&config, faulty)))
}

/// A revision of a time that no clock gives moved this process's clock to the end of time, where all stamps are the same.
#[tokio::test]
async fn a_made_up_revision_does_not_move_the_clock() {
    let database = Database::new(memory());
    let revision: Revision = "f".repeat(32).parse().unwrap();
    assert_eq!(revision.to_stamp(), None, "a backend steps its clock past the stamp it finds here");
    database.set_json("k", &1).await.unwrap();
    let update = database.set_with("k", Value::from_integer(2), SetOptions::new().if_revision(revision));
    assert_eq!(update.await.unwrap_err().kind(), ErrorKind::Conflict);
    for number in 0..3 {
        database.set_json("k", &number).await.unwrap();
        assert_eq!(database.get_json("k").await.unwrap(), Some(number));
    }
}

/// A server that was away for a moment at the start closed the application's own backend for good.
#[tokio::test]
async fn a_failed_start_does_not_close_an_injected_backend() {
    let faults = Faults::seeded(1);
    let mut config = StorageConfig::default();
    config.database.options.required = true;
    config.database.options.retry.attempts = 1;
    let database: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(memory(), faults.clone()));
    let manager = StorageManager::builder().config(config).shared_database(database).build();
    faults.set(Fault::FailBefore);
    assert_eq!(manager.database().await.unwrap_err().kind(), ErrorKind::Unavailable);
    faults.heal();
    manager.database().await.unwrap().set_json("k", &1).await.unwrap();
}

/// Calls whose callers had gone hid the ones behind them, which then waited for nothing.
#[tokio::test]
async fn calls_whose_callers_are_gone_hold_up_nobody() {
    let faults = Faults::seeded(1);
    let database = coalesced(&faults, 1);
    faults.set_for_next(Fault::Slow(Duration::from_millis(100)), 1);
    let first = tokio::spawn({
        let database = database.clone();
        async move { database.set_json("first", &1).await }
    });
    tokio::task::yield_now().await;
    let hurried = database.clone().with_timeout(Duration::from_millis(20));
    let gone = (0..50).map(|number| {
        let hurried = hurried.clone();
        tokio::spawn(async move { hurried.set_json(format!("gone:{number}"), &1).await })
    });
    let gone: Vec<_> = gone.collect();
    tokio::task::yield_now().await;
    let last = tokio::time::timeout(Duration::from_secs(3), database.set_json("last", &1)).await;
    last.expect("the last call was not held up").unwrap();
    first.await.unwrap().unwrap();
    for call in gone {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

/// A runtime that ended with a call on its way left the lane closed for every later one.
#[test]
fn a_lane_outlives_the_runtime_of_its_call() {
    let faults = Faults::seeded(1);
    let database = coalesced(&faults, 512);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    faults.set_for_next(Fault::Slow(Duration::from_secs(60)), 1);
    let first = runtime();
    first.block_on(async {
        let call = tokio::time::timeout(Duration::from_millis(20), database.set_json("k", &1));
        call.await.unwrap_err();
    });
    drop(first);
    let again = database.with_timeout(Duration::from_secs(5));
    runtime().block_on(async { again.set_json("k", &2).await.map(drop) }).unwrap();
}

/// An entry that ended during an update was found there again by each attempt, whose time was that of the first.
#[tokio::test]
async fn an_update_of_an_entry_that_ends_meanwhile_makes_it_anew() {
    let database = Database::new(memory());
    let ttl = Ttl::from_millis(500).unwrap();
    database.set_with("k", Value::from_integer(1), ttl.into()).await.unwrap();
    let mut found = Vec::new();
    let update = database.update_json("k", |old: Option<i64>| {
        found.push(old);
        std::thread::sleep(Duration::from_millis(600));
        Ok(2)
    });
    tokio::time::timeout(Duration::from_secs(4), update).await.unwrap().unwrap();
    assert_eq!(found, [Some(1), None]);
}

//! The manager: lazy, one attempt however many ask, clear about what is down.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::{MemoryCache, MemoryDatabase};
use agent_storage::config::{MemoryCacheConfig, MemoryDatabaseConfig, StorageConfig};
use agent_storage::contract::DatabaseBackend;
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{ErrorKind, HealthStatus, StorageManager};

fn faulty() -> (Arc<dyn DatabaseBackend>, Faults) {
    let faults = Faults::seeded(1);
    let memory: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
    (Arc::new(FaultBackend::new(memory, faults.clone())), faults)
}

/// Short timeouts and a single attempt, so that nothing waits for long.
fn config(required: bool) -> StorageConfig {
    let mut config = StorageConfig::default();
    config.database.options.timeout = Duration::from_millis(200);
    config.database.options.retry.attempts = 1;
    config.database.options.required = required;
    config
}

#[tokio::test]
async fn nothing_is_asked_before_it_is_used() {
    let (database, faults) = faulty();
    let manager = StorageManager::builder().shared_database(database).build();
    manager.validate_config().unwrap();
    manager.cache().await.unwrap();
    assert_eq!(faults.counts().calls, 0);
    assert!(!manager.is_connected());
    manager.database().await.unwrap();
    assert!(manager.is_connected());
}

#[tokio::test]
async fn first_callers_share_one_attempt() {
    let (database, faults) = faulty();
    let manager = Arc::new(StorageManager::builder().shared_database(database).build());
    let callers = (0..50).map(|_| {
        let manager = Arc::clone(&manager);
        tokio::spawn(async move { manager.database().await.map(drop) })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(faults.counts().calls, 1);
}

#[tokio::test]
async fn a_primary_that_is_down_at_the_start_is_a_degraded_start() {
    let (database, faults) = faulty();
    faults.set(Fault::FailBefore);
    let manager = StorageManager::builder().config(config(false)).shared_database(database).build();
    let storage = manager.connect().await.unwrap();
    let error = storage.database.get("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(manager.health_check().await.status(), HealthStatus::Unhealthy);
    faults.heal();
    storage.database.set_json("k", &1).await.unwrap();
    assert_eq!(manager.health_check().await.status(), HealthStatus::Healthy);
}

#[tokio::test]
async fn a_required_primary_that_is_down_at_the_start_is_an_error() {
    let (database, faults) = faulty();
    faults.set(Fault::FailBefore);
    let manager = StorageManager::builder().config(config(true)).shared_database(database).build();
    assert_eq!(manager.connect().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_health_check_ends_even_if_a_store_hangs() {
    let (database, faults) = faulty();
    let manager = StorageManager::builder().config(config(false)).shared_database(database).build();
    manager.connect().await.unwrap();
    faults.set(Fault::Hang);
    let health = tokio::time::timeout(Duration::from_secs(10), manager.health_check()).await.unwrap();
    assert_eq!(health.cache.status(), HealthStatus::Healthy);
    assert_eq!(health.database.status(), HealthStatus::Unhealthy);
    assert!(health.database.members[0].error.is_some());
}

#[tokio::test]
async fn disconnect_closes_both_and_the_manager_can_connect_again() {
    let manager = StorageManager::in_memory();
    let before = manager.connect().await.unwrap();
    manager.disconnect().await.unwrap();
    manager.disconnect().await.unwrap();
    assert!(!manager.is_connected());
    assert_eq!(before.cache.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(before.database.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
    let after = manager.connect().await.unwrap();
    assert_eq!(after.database.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn injected_backends_take_prefix_and_timeout_from_the_configuration() {
    let mut config = StorageConfig::default();
    config.cache.options.key_prefix = "app:".to_owned();
    let cache = Arc::new(MemoryCache::new(&MemoryCacheConfig::default()));
    let manager = StorageManager::builder().config(config).shared_cache(cache.clone()).build();
    manager.cache().await.unwrap().set_json("k", &1).await.unwrap();
    let raw = agent_storage::Cache::new(cache);
    assert_eq!(raw.list("").unwrap().collect().await.unwrap()[0].as_str(), "app:k");
}

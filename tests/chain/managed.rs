//! A chain as the manager builds it.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::ChainState;
use agent_storage::config::{DatabaseFallback, Fallback, MemoryDatabaseConfig, MinDurability, StorageConfig};
use agent_storage::contract::{DatabaseBackend, Durability};
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{HealthStatus, StorageManager};

#[tokio::test]
async fn a_manager_goes_on_without_its_primary_and_tells_so() {
    let faults = Faults::seeded(1);
    let memory: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
    let mut config = StorageConfig::default();
    config.database.fallback = Fallback::To(DatabaseFallback::Memory);
    config.database.chain.min_durability = MinDurability::Volatile;
    config.database.chain.breaker.probe_interval = Duration::from_millis(100);
    config.database.options.key_prefix = "app:".to_owned();
    config.database.options.retry.attempts = 1;
    let primary: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(memory, faults.clone()));
    let manager = StorageManager::builder().config(config).shared_database(primary).build();
    assert!(manager.database_chain().is_none(), "nothing is built before it is used");
    let database = manager.database().await.unwrap();
    let mut watch = manager.watch_database_chain().await.unwrap().unwrap();
    assert_eq!(database.set_json("k", &1).await.unwrap().durability, Durability::Primary);
    assert_eq!(manager.health_check().await.status(), HealthStatus::Healthy);

    faults.set(Fault::FailBefore);
    assert_eq!(database.set_json("k", &2).await.unwrap().durability, Durability::Volatile);
    assert_eq!(database.get_json("k").await.unwrap(), Some(2));
    let health = manager.health_check().await;
    assert_eq!(health.status(), HealthStatus::Degraded);
    assert_eq!(health.database.chain.unwrap().pending, 1);
    watch.wait_for(|status| status.state == ChainState::Degraded).await.unwrap();

    faults.heal();
    let normal = watch.wait_for(|status| status.state == ChainState::Normal);
    drop(tokio::time::timeout(Duration::from_secs(10), normal).await.expect("it recovers").unwrap());
    assert_eq!(database.set_json("k", &3).await.unwrap().durability, Durability::Primary);
    assert_eq!(manager.health_check().await.status(), HealthStatus::Healthy);
    manager.disconnect().await.unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_database_in_memory_is_another_one_at_each_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = StorageConfig::default();
    config.database.fallback = Fallback::To(DatabaseFallback::Sqlite);
    config.database.chain.journal.path = folder.path().join("journal");
    for _ in 0..2 {
        let manager = StorageManager::builder().config(config.clone()).build();
        for _ in 0..2 {
            let database = manager.database().await.unwrap();
            let status = manager.database_chain().unwrap();
            assert!(!status.fenced && status.state == ChainState::Normal, "{status:?}");
            assert_eq!(database.get_json::<i64>("k").await.unwrap(), None);
            assert_eq!(database.set_json("k", &1).await.unwrap().durability, Durability::Primary);
            manager.disconnect().await.unwrap();
        }
    }
}

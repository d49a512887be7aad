//! A chain as the manager builds it.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryCache;
use agent_storage::chain::ChainState;
use agent_storage::config::{CacheFallback, Fallback, MemoryCacheConfig, StorageConfig};
use agent_storage::contract::{CacheBackend, Durability, Freshness};
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Cache, HealthStatus, StorageManager};

use crate::rig::read;

#[tokio::test]
async fn a_manager_goes_on_without_its_cache_and_tells_so() {
    let faults = Faults::seeded(1);
    let memory: Arc<dyn CacheBackend> = Arc::new(MemoryCache::new(&MemoryCacheConfig::default()));
    let mut config = StorageConfig::default();
    config.cache.fallback = Fallback::To(CacheFallback::Memory(MemoryCacheConfig::default()));
    config.cache.chain.breaker.probe_interval = Duration::from_millis(100);
    config.cache.options.key_prefix = "app:".to_owned();
    let stored = Cache::new(Arc::clone(&memory));
    let primary: Arc<dyn CacheBackend> = Arc::new(FaultBackend::new(memory, faults.clone()));
    faults.set(Fault::FailBefore);
    let manager = StorageManager::builder().config(config).shared_cache(primary).build();
    assert!(manager.cache_chain().is_none(), "nothing is built before it is used");
    let cache = manager.cache().await.expect("a start without the primary is a degraded one");
    let mut watch = manager.watch_cache_chain().await.unwrap().unwrap();
    assert_eq!(manager.cache_chain().unwrap().state, ChainState::Degraded);
    let calls = faults.counts().calls;
    assert_eq!(cache.set_json("k", &2).await.unwrap().durability, Durability::Volatile);
    assert_eq!(read(cache.lookup("k").await), (Some(2), Freshness::Fallback));
    assert!(faults.counts().calls - calls <= 2, "neither was tried again and again");
    let health = manager.health_check().await;
    assert_eq!(health.status(), HealthStatus::Degraded);
    assert_eq!(health.cache.chain.unwrap().pending, 1);

    stored.set_json("app:k", &1).await.unwrap();
    faults.heal();
    let normal = watch.wait_for(|status| status.state == ChainState::Normal);
    drop(tokio::time::timeout(Duration::from_secs(10), normal).await.expect("it recovers").unwrap());
    assert_eq!(read(cache.lookup("k").await), (None, Freshness::Primary));
    assert_eq!(cache.set_json("k", &3).await.unwrap().durability, Durability::Primary);
    assert_eq!(stored.get_json("app:k").await.unwrap(), Some(3));
    assert_eq!(manager.health_check().await.status(), HealthStatus::Healthy);
    manager.disconnect().await.unwrap();
}

#[tokio::test]
async fn memory_has_no_fallback_unless_it_is_asked_for() {
    let manager = StorageManager::in_memory();
    manager.connect().await.unwrap();
    assert!(manager.cache_chain().is_none() && manager.watch_cache_chain().await.unwrap().is_none());
}

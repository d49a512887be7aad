//! The journal on disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::Database;
use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::{ChainOptions, ChainState, DatabaseChain};
use agent_storage::config::{DatabaseChainConfig, DatabaseFallback, MemoryDatabaseConfig};
use agent_storage::contract::{Context, DatabaseBackend, Durability, Freshness, Store};
use agent_storage::testkit::{Fault, FaultBackend, Faults};

use crate::machine::until_dead;
use crate::rig::{read, unavailable};

async fn open(primary: &Arc<dyn DatabaseBackend>, folder: &Path) -> (Arc<DatabaseChain>, Database) {
    let mut config = DatabaseChainConfig::default();
    config.journal.path = folder.join("journal");
    config.breaker.probe_interval = Duration::from_millis(100);
    let mut options = ChainOptions::new(Duration::from_secs(2));
    options.fingerprint = Some("here".to_owned());
    let chain = DatabaseChain::open(Arc::clone(primary), DatabaseFallback::Sqlite, &config, options).await.unwrap();
    let chain = Arc::new(chain);
    let through: Arc<dyn DatabaseBackend> = chain.clone();
    (chain, Database::new(through))
}

#[tokio::test]
async fn what_is_owed_outlives_the_process_and_is_known_before_the_first_read() {
    let folder = tempfile::tempdir().unwrap();
    let memory: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
    let faults = Faults::seeded(1);
    let primary: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(Arc::clone(&memory), faults.clone()));
    let stored = Database::new(memory);
    for life in 0..3 {
        let (chain, database) = open(&primary, folder.path()).await;
        if life > 0 {
            assert_eq!(chain.status().state, ChainState::Degraded);
            assert_eq!(read(database.lookup("k").await), (Some(life - 1), Freshness::LocalPending));
            unavailable(database.get("other").await);
        }
        faults.set(Fault::FailBefore);
        assert_eq!(database.set_json("k", &life).await.unwrap().durability, Durability::Local);
        assert_eq!(database.append_json("list", &life).await.unwrap().durability, Durability::Local);
        // It ends without a word. Its threads take a moment.
        drop((chain, database));
        until_dead(&folder.path().join("journal")).await;
    }
    let (chain, _) = open(&primary, folder.path()).await;
    let journaled = chain.journaled(0).await.unwrap();
    assert_eq!(journaled.len(), 6);
    assert_eq!(chain.journaled(journaled[4].seq).await.unwrap(), journaled[5..]);
    drop(chain);
    until_dead(&folder.path().join("journal")).await;
    faults.heal();
    let (chain, database) = open(&primary, folder.path()).await;
    let mut watch = chain.watch();
    let normal = watch.wait_for(|status| status.state == ChainState::Normal);
    drop(tokio::time::timeout(Duration::from_secs(10), normal).await.expect("it recovers").unwrap());
    assert_eq!(stored.get_json("k").await.unwrap(), Some(2));
    assert_eq!(stored.range_json::<i64>("list", 0, -1).await.unwrap(), [0, 1, 2]);
    assert_eq!(database.set_json("k", &3).await.unwrap().durability, Durability::Primary);
}

#[tokio::test]
async fn another_database_behind_the_same_address_is_not_taken_for_the_known_one() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = || -> Arc<dyn DatabaseBackend> { Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default())) };
    let (chain, database) = open(&fresh(), folder.path()).await;
    assert_eq!(database.set_json("k", &1).await.unwrap().durability, Durability::Primary);
    chain.close(&Context::with_timeout(Duration::from_secs(2))).await.unwrap();
    let empty = fresh();
    let (chain, database) = open(&empty, folder.path()).await;
    assert!(
        chain.status().fenced,
        "{:?} {:?}",
        chain.status(),
        std::fs::read_dir(folder.path().join("journal")).unwrap().collect::<Vec<_>>()
    );
    unavailable(database.get("k").await);
    assert_eq!(database.set_json("k", &2).await.unwrap().durability, Durability::Local);
    assert_eq!(chain.status().pending, 1);
}

//! Another database answers.

#[cfg(feature = "sqlite")]
use std::sync::Arc;
#[cfg(feature = "sqlite")]
use std::time::Duration;

#[cfg(feature = "sqlite")]
use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::ChainState;
#[cfg(feature = "sqlite")]
use agent_storage::config::MemoryDatabaseConfig;
#[cfg(feature = "sqlite")]
use agent_storage::contract::{DatabaseBackend, Store};
use agent_storage::contract::{Durability, Freshness};

#[cfg(feature = "sqlite")]
use crate::machine::Machine;
#[cfg(feature = "sqlite")]
use crate::rig::soon;
use crate::rig::{Rig, read, unavailable};

#[tokio::test]
async fn an_emptied_primary_is_fenced_off() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.faults.wipe();
    unavailable(rig.database.get("k").await);
    rig.until(|status| status.fenced).await;
    assert_eq!(rig.set("owed", 2).await, Durability::Volatile);
    assert_eq!(read(rig.database.lookup("owed").await), (Some(2), Freshness::LocalPending));
    unavailable(rig.database.get("k").await);
    // Probes have their say, and a replay would have its chance.
    rig.until_called(5).await;
    let status = rig.chain.status();
    assert!(status.fenced && status.state == ChainState::Degraded && status.pending == 1, "{status:?}");
    assert_eq!(rig.stored("owed").await, None, "nothing is replayed to another database");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_process_that_starts_knows_the_database_that_the_living_ones_know() {
    let machine = Machine::new();
    let one = machine.start().await;
    assert_eq!(machine.start().await.chain.known_primary().unwrap().id, one.chain.known_primary().unwrap().id);
    let empty: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
    let two = machine.start_at(Arc::clone(&empty), "here").await;
    assert!(two.chain.status().fenced, "{:?}", two.chain.status());
    two.owe("k", 1).await;
    // At another address it is another database, and none of theirs.
    let elsewhere = machine.start_at(Arc::clone(&empty), "there").await;
    assert_eq!(elsewhere.chain.status().state, ChainState::Normal);
    // What was accepted is known to those who start before the living ones have heard of it.
    let accepted = two.chain.accept_primary().await.unwrap();
    let three = machine.start_at(empty, "here").await;
    assert_eq!(three.chain.status().state, ChainState::Normal, "{:?}", three.chain.status());
    assert_eq!(three.chain.known_primary().unwrap().id, accepted.identity.id);
}

#[tokio::test]
async fn a_journal_that_is_full_while_fenced_says_what_helps() {
    let rig = Rig::with(|config| config.journal.max_bytes = 1 << 20).await;
    rig.set("k", 1).await;
    rig.faults.wipe();
    unavailable(rig.database.get("k").await);
    rig.until(|status| status.fenced && !status.journal_full).await;
    let mut kept = 0_usize;
    while rig.database.set_bytes(format!("k:{kept}"), vec![7; 50_000]).await.is_ok() {
        kept += 1;
    }
    rig.until(|status| status.fenced && status.journal_full).await;
    let reason = rig.chain.status().reason.unwrap();
    assert!(kept > 0 && reason.message().contains("agent-storage reconcile --accept"), "{kept}: {reason}");
    // Once it is followed, nothing that was acknowledged is lost.
    rig.chain.accept_primary().await.unwrap();
    rig.until(|status| status.state == ChainState::Normal).await;
    for number in 0..kept {
        assert!(rig.primary.exists(format!("k:{number}")).await.unwrap());
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn what_a_ping_raised_is_known_as_what_a_probe_raised_is() {
    let mut machine = Machine::new();
    machine.config.breaker.probe_interval = Duration::from_secs(3600);
    let process = machine.start().await;
    let before = process.chain.known_primary().unwrap();
    let raised = process.chain.ping(&soon()).await.unwrap().identity.unwrap();
    assert!(before.canary < raised.canary);
    // An older state of the database would be told by this.
    assert_eq!(process.chain.known_primary(), Some(raised));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn what_is_known_of_the_primary_is_written_down_when_another_answers() {
    let machine = Machine::new();
    let process = machine.start().await;
    // The first probes are over, after which it is written down.
    tokio::time::sleep(machine.config.breaker.probe_interval * 5).await;
    for _ in 0..20 {
        process.chain.ping(&soon()).await.unwrap();
    }
    machine.faults.wipe();
    process.until(|status| status.fenced).await;
    let known = process.chain.known_primary().unwrap();
    let [journal] = &machine.journals()[..] else { panic!("{:?}", machine.journals()) };
    let connection = rusqlite::Connection::open(journal).unwrap();
    let canary = || connection.query_row("SELECT canary FROM meta", [], |row| row.get::<_, u32>(0)).unwrap();
    let written = async {
        while u64::from(canary()) != known.canary {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), written).await.expect("whoever starts now knows less");
}

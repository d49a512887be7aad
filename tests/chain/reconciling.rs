//! The primary is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::ChainState;
use agent_storage::config::MemoryDatabaseConfig;
use agent_storage::contract::{DatabaseBackend, Durability};
use agent_storage::testkit::Fault;
use agent_storage::{Error, Value};

use crate::picky::Picky;
use crate::rig::Rig;

#[tokio::test]
async fn a_writer_that_never_rests_does_not_keep_the_replay_from_ending() {
    let rig = Rig::new().await;
    rig.fall().await;
    for number in 0..2000 {
        rig.set(&format!("k:{}", number % 100), number).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let writers = (0..8_i64).map(|writer| {
        let (database, done) = (rig.database.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                last += 1;
                database.set_json(format!("k:{writer}"), &last).await.unwrap();
                tokio::task::yield_now().await;
            }
            last
        })
    });
    let writers: Vec<_> = writers.collect();
    rig.recover().await;
    done.store(true, Ordering::Relaxed);
    for (key, writer) in writers.into_iter().enumerate() {
        let last = writer.await.unwrap();
        rig.until(|status| status.state == ChainState::Normal).await;
        assert_eq!(rig.stored(&format!("k:{key}")).await, Some(last));
    }
}

#[tokio::test]
async fn a_replay_that_breaks_off_goes_on_where_it_was() {
    let rig = Rig::new().await;
    rig.fall().await;
    for number in 0..3000 {
        rig.database.append_json("list", &number).await.unwrap();
    }
    rig.faults.heal();
    rig.faults.set_for_some(Fault::FailAfter, 30);
    let begun = async {
        while rig.chain.status().pending == 3000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), begun).await.expect("the replay begins");
    rig.faults.set(Fault::FailBefore);
    assert!(rig.chain.status().pending > 0, "it was to break off in the middle");
    rig.until(|status| status.state != ChainState::Reconciling).await;
    rig.recover().await;
    assert_eq!(rig.items("list").await, (0..3000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_flapping_primary_loses_nothing() {
    let rig = Rig::new().await;
    for number in 0..400 {
        match number % 40 {
            10 => rig.faults.set(Fault::FailBefore),
            20 => rig.faults.set(Fault::FailAfter),
            30 => rig.faults.heal(),
            _ => {}
        }
        rig.database.append_json("list", &number).await.unwrap();
        rig.set("k", number).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rig.recover().await;
    assert_eq!(rig.items("list").await, (0..400).collect::<Vec<_>>());
    assert_eq!(rig.stored("k").await, Some(399));
    assert_eq!(rig.set("k", 1).await, Durability::Primary);
}

#[tokio::test]
async fn what_hinders_a_replay_is_told_and_puts_nothing_aside() {
    let memory = MemoryDatabase::new(&MemoryDatabaseConfig::default());
    let picky = Arc::new(Picky::new(Arc::new(memory), Value::from_integer(13)));
    let primary: Arc<dyn DatabaseBackend> = picky.clone();
    let rig = Rig::over(primary, |_| ()).await;
    for (number, reason) in (0..).zip([Error::unavailable("no room is left"), Error::config("the tables are newer")]) {
        picky.hinder_by(reason.clone());
        picky.take_replays(0);
        rig.fall().await;
        rig.set("k", number).await;
        rig.faults.heal();
        let told = |found: &Option<Error>| found.as_ref().is_some_and(|found| found.message() == reason.message());
        rig.until(|status| status.state == ChainState::Reconciling && told(&status.reason)).await;
        assert_eq!((rig.chain.status().pending, rig.chain.status().parked), (1, 0));
        picky.take_replays(u64::MAX);
        rig.recover().await;
        assert!(rig.chain.status().reason.is_none());
        assert_eq!(rig.stored("k").await, Some(number));
    }
}

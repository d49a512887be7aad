//! Deletes and clears that land late: nothing that was acknowledged before may go with them.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::contract::Durability;
use agent_storage::{SetOptions, Value};
use tokio::sync::watch;

use crate::rig::{Plan, Rig};

/// How long a lock is asked for before what was held back lands.
const WHILE: Duration = Duration::from_millis(500);

/// A rig whose calls may take longer than that.
async fn rig() -> Rig {
    let mut plan = Plan::default();
    (plan.options.timeout, plan.timeout) = (4 * WHILE, 4 * WHILE);
    let rig = Rig::with(plan).await;
    rig.set("k", 1).await;
    rig
}

async fn until_called(rig: &Rig, call: &str) {
    let called = async {
        while !rig.primary.take_log().iter().any(|logged| logged == call) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), called).await.expect(call);
}

/// Has somebody ask for a lock while what removes it is held back, and lets that land. Whenever the lock was given, it stands.
async fn the_lock_stands(rig: &Rig, held_back: Arc<watch::Sender<bool>>) {
    rig.until(|status| status.state != ChainState::Degraded).await;
    let cache = rig.cache.clone();
    let locked = tokio::spawn(async move {
        let create = || cache.set_with("k", Value::from_integer(7), SetOptions::new().if_absent());
        while create().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::time::sleep(WHILE).await;
    held_back.send_replace(true);
    while Arc::strong_count(&held_back) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::timeout(Duration::from_secs(20), locked).await.expect("it is given in the end").unwrap();
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(7), "it was acknowledged");
}

#[tokio::test]
async fn a_delete_that_was_broken_off_takes_nothing_that_was_acknowledged_since() {
    let rig = rig().await;
    rig.fall().await;
    rig.set("k", 2).await;
    rig.primary.let_deletes(false);
    rig.faults.heal();
    until_called(&rig, "delete 1").await;
    let held_back = rig.primary.keep_deletes();
    rig.fall().await;
    assert_eq!(rig.set("k", 3).await, Durability::Volatile, "nobody waits for it");
    rig.faults.heal();
    the_lock_stands(&rig, held_back).await;
}

#[tokio::test]
async fn nor_does_a_clear() {
    let rig = rig().await;
    rig.fall().await;
    rig.cache.clear("k").await.unwrap();
    rig.primary.let_deletes(false);
    rig.faults.heal();
    until_called(&rig, "clear k").await;
    let held_back = rig.primary.keep_deletes();
    rig.fall().await;
    rig.faults.heal();
    the_lock_stands(&rig, held_back).await;
}

#[tokio::test]
async fn nor_does_a_clear_that_somebody_waited_for() {
    let rig = rig().await;
    rig.primary.let_deletes(false);
    let cache = rig.cache.clone();
    let clear = tokio::spawn(async move { cache.clear("k").await });
    until_called(&rig, "clear k").await;
    let held_back = rig.primary.keep_deletes();
    rig.fall().await;
    assert_eq!(clear.await.unwrap().unwrap(), None, "it is answered at once");
    rig.faults.heal();
    the_lock_stands(&rig, held_back).await;
}

#[tokio::test]
async fn nor_does_a_clear_whose_caller_went_away() {
    let rig = rig().await;
    rig.primary.let_deletes(false);
    let cache = rig.cache.clone();
    let clear = tokio::spawn(async move { cache.clear("k").await });
    until_called(&rig, "clear k").await;
    let held_back = rig.primary.keep_deletes();
    clear.abort();
    assert!(clear.await.unwrap_err().is_cancelled());
    rig.other.delete("k").await.unwrap();
    the_lock_stands(&rig, held_back).await;
}

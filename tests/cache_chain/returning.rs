//! The primary is back.

use std::time::Duration;

use agent_storage::chain::{ChainState, ChainStatus};
use agent_storage::contract::{Context, Durability, Freshness, Store};
use agent_storage::testkit::Fault;
use agent_storage::{ErrorKind, SetOptions, Value};

use crate::rig::{Plan, Rig, SCOPE, unavailable};

#[tokio::test]
async fn what_was_written_meanwhile_is_deleted_and_what_others_wrote_is_never_overwritten() {
    let rig = Rig::new().await;
    for key in ["set", "deleted", "touched", "both", "theirs"] {
        rig.set(key, 1).await;
    }
    rig.fall().await;
    rig.set("set", 2).await;
    rig.cache.delete("deleted").await.unwrap();
    rig.cache.touch("touched", None).await.unwrap();
    rig.set("both", 2).await;
    rig.other.set_json("both", &9).await.unwrap();
    rig.other.set_json("theirs", &9).await.unwrap();
    rig.recover().await;
    for key in ["set", "deleted", "touched", "both"] {
        assert_eq!(rig.stored(key).await, None, "{key}");
        assert_eq!(rig.read(key).await, (None, Freshness::Primary), "{key}");
    }
    assert_eq!(rig.read("theirs").await, (Some(9), Freshness::Primary));
}

#[tokio::test]
async fn why_nothing_can_be_deleted_is_said() {
    let rig = Rig::new().await;
    rig.fall().await;
    rig.set("k", 2).await;
    rig.primary.refuse_deletes(true);
    rig.faults.heal();
    let says =
        |status: &ChainStatus| status.reason.as_ref().is_some_and(|reason| reason.message().contains("no right"));
    rig.until(|status| status.state == ChainState::Reconciling && says(status)).await;
    rig.primary.refuse_deletes(false);
    rig.until(|status| status.state == ChainState::Normal && status.reason.is_none()).await;
}

#[tokio::test]
async fn until_it_is_deleted_a_key_is_answered_here_and_its_writes_wait() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.set("clean", 1).await;
    rig.fall().await;
    rig.set("k", 2).await;
    rig.cache.delete("gone").await.unwrap();
    rig.primary.let_deletes(false);
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Reconciling).await;
    assert_eq!(rig.read("k").await, (Some(2), Freshness::Fallback));
    assert_eq!(rig.read("gone").await, (None, Freshness::Fallback));
    assert_eq!(rig.read("clean").await, (Some(1), Freshness::Primary));
    assert_eq!(rig.set("clean", 2).await, Durability::Primary);
    unavailable(rig.cache.list_page("", Default::default()).await);
    unavailable(rig.cache.count("k").await);
    assert_eq!(rig.cache.count("clean").await.unwrap(), 1);
    while !rig.primary.take_log().iter().any(|call| call.starts_with("delete")) {
        tokio::task::yield_now().await;
    }
    let writer = tokio::spawn({
        let cache = rig.cache.clone();
        async move { cache.set_json("k", &3).await }
    });
    tokio::task::yield_now().await;
    assert!(!writer.is_finished() && rig.stored("k").await == Some(1), "nothing gets before the delete");
    rig.primary.let_deletes(true);
    assert_eq!(writer.await.unwrap().unwrap().durability, Durability::Primary);
    rig.recover().await;
    assert_eq!(rig.read("k").await, (Some(3), Freshness::Primary));
}

#[tokio::test]
async fn what_needs_the_primary_waits_for_its_key_to_be_clean() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.fall().await;
    rig.cache.clear("k").await.unwrap();
    rig.primary.let_deletes(false);
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Reconciling).await;
    unavailable(rig.cache.increment("k", 1).await);
    unavailable(rig.cache.set_with("k", Value::from_integer(1), SetOptions::new().if_absent()).await);
    assert_eq!(rig.set("k", 5).await, Durability::Volatile, "a clear may take long, so nobody waits for it");
    assert_eq!(rig.read("k").await, (Some(5), Freshness::Fallback));
    rig.primary.let_deletes(true);
    rig.recover().await;
    assert_eq!(rig.cache.increment("k", 1).await.unwrap(), 1);
}

#[tokio::test]
async fn a_clear_without_a_reply_is_soon_sent_again() {
    let rig = Rig::new().await;
    rig.fall().await;
    rig.cache.clear("x:").await.unwrap();
    rig.primary.let_deletes(false);
    rig.faults.heal();
    let mut clears = 0;
    let twice = async {
        while clears < 2 {
            clears += rig.primary.take_log().iter().filter(|call| *call == "clear x:").count();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), twice).await.expect("it is sent again");
    rig.primary.let_deletes(true);
    rig.recover().await;
}

#[tokio::test]
async fn every_delete_comes_behind_a_ping_of_its_own() {
    let rig = Rig::new().await;
    rig.fall().await;
    for number in 0..600 {
        rig.set(&format!("k:{number}"), number).await;
    }
    rig.cache.clear("x:").await.unwrap();
    rig.primary.take_log();
    rig.recover().await;
    let log = rig.primary.take_log();
    let work: Vec<usize> = log.iter().enumerate().filter(|(_, call)| *call != "ping").map(|(at, _)| at).collect();
    assert!(work.len() >= 4, "{log:?}");
    assert!(work.iter().all(|at| *at > 0 && log[at - 1] == "ping"), "{log:?}");
}

#[tokio::test]
async fn a_write_that_lands_late_is_deleted_too() {
    let mut plan = Plan::default();
    (plan.options.timeout, plan.timeout) = (Duration::from_secs(2), Duration::from_secs(2));
    let rig = Rig::with(plan).await;
    rig.primary.let_puts(false);
    // The client carries them on, whoever waits.
    let callers: Vec<_> = (0..2)
        .map(|number| {
            let cache = rig.cache.clone();
            let create = if number == 0 { SetOptions::new() } else { SetOptions::new().if_absent() };
            tokio::spawn(async move { cache.set_with(format!("k:{number}"), Value::from_integer(1), create).await })
        })
        .collect();
    while rig.primary.take_log().iter().filter(|call| call.starts_with("put")).count() < 2 {
        tokio::task::yield_now().await;
        if callers.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    rig.fall().await;
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(caller.await.unwrap());
    }
    assert_eq!(answers[0].as_ref().unwrap().durability, Durability::Volatile);
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    rig.set("k:0", 2).await;
    rig.set("k:1", 2).await;
    rig.set("other", 2).await;
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Reconciling).await;
    while rig.chain.status().pending > 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The primary is long back when they land.
    rig.primary.let_puts(true);
    rig.recover().await;
    assert_eq!((rig.stored("k:0").await, rig.stored("k:1").await), (None, None));
}

#[tokio::test]
async fn a_write_whose_caller_went_away_may_land_late_too() {
    let mut plan = Plan::default();
    (plan.options.timeout, plan.timeout) = (Duration::from_secs(2), Duration::from_secs(2));
    let rig = Rig::with(plan).await;
    rig.primary.let_puts(false);
    let put = rig.cache.set_json("k", &1);
    assert!(tokio::time::timeout(Duration::from_millis(10), put).await.is_err());
    rig.fall().await;
    rig.set("k", 2).await;
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Reconciling).await;
    rig.primary.let_puts(true);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, None);
}

#[tokio::test]
async fn what_stood_in_is_forgotten() {
    let rig = Rig::new().await;
    rig.fall().await;
    rig.set("k", 2).await;
    rig.recover().await;
    rig.set("k", 3).await;
    rig.fall().await;
    assert_eq!(rig.read("k").await, (None, Freshness::Fallback), "and not the 2 of the last outage");
}

#[tokio::test]
async fn a_reconciliation_that_is_broken_off_goes_on_later() {
    let rig = Rig::new().await;
    for number in 0..2000 {
        rig.other.set_json(format!("k:{number}"), &1).await.unwrap();
    }
    rig.fall().await;
    for number in 0..2000 {
        rig.set(&format!("k:{number}"), 2).await;
    }
    rig.faults.heal();
    rig.faults.set_for_some(Fault::FailAfter, 30);
    rig.until(|status| status.state != ChainState::Degraded).await;
    rig.faults.set(Fault::FailBefore);
    rig.until(|status| status.state == ChainState::Degraded).await;
    assert_ne!(rig.read("k:0").await.0, Some(1));
    rig.recover().await;
    for number in 0..2000 {
        assert_eq!(rig.stored(&format!("k:{number}")).await, None);
    }
}

#[tokio::test]
async fn too_many_keys_clear_what_is_the_chains_and_nothing_else() {
    let rig = Rig::new().await;
    let inside = format!("{SCOPE}old");
    rig.set(&inside, 1).await;
    rig.set("outside", 1).await;
    rig.fall().await;
    for from in (0..=100_000).step_by(1000) {
        let batch = (from..from + 1000).map(|number| (format!("{SCOPE}{number}"), Value::from_integer(number)));
        assert!(rig.cache.set_many(batch).await.iter().all(Result::is_ok));
    }
    assert_eq!(rig.chain.status().pending, 1, "they are not told apart any more");
    assert_eq!(rig.read(&inside).await, (None, Freshness::Fallback));
    rig.primary.let_deletes(false);
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Reconciling).await;
    assert_eq!(rig.read(&inside).await, (None, Freshness::Fallback), "not the old value");
    rig.primary.let_deletes(true);
    rig.recover().await;
    assert_eq!((rig.stored(&inside).await, rig.stored("outside").await), (None, Some(1)));
    rig.set(&inside, 5).await;
    rig.fall().await;
    let newest = format!("{SCOPE}100000");
    assert_eq!(rig.read(&newest).await, (None, Freshness::Fallback), "what stood in was emptied");
}

#[tokio::test]
async fn closing_deletes_what_is_left_if_the_primary_is_there() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.fall().await;
    rig.set("k", 2).await;
    rig.primary.let_deletes(false);
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Reconciling).await;
    let stored = rig.stored("k").await;
    rig.primary.let_deletes(true);
    rig.chain.close(&Context::with_timeout(Duration::from_secs(5))).await.unwrap();
    assert_eq!((stored, rig.chain.status().pending), (Some(1), 0));
    assert_eq!(rig.cache.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
}

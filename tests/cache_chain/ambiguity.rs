//! Replies that are lost.

use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::contract::{Context, Durability, Freshness, Store, Write, WriteOp};
use agent_storage::testkit::Fault;
use agent_storage::{ErrorKind, HybridClock, Key, Revision, SetOptions, Value};

use crate::rig::{Plan, Rig};

#[tokio::test]
async fn a_write_in_doubt_counts_as_written_here_and_is_deleted_there() {
    for fault in [Fault::FailAfter, Fault::HangAfter, Fault::Hang] {
        let rig = Rig::new().await;
        rig.set("k", 1).await;
        rig.primary.let_deletes(false);
        rig.faults.set_for_next(fault, 1);
        assert_eq!(rig.set("k", 2).await, Durability::Volatile, "{fault:?}");
        assert_eq!(rig.read("k").await, (Some(2), Freshness::Fallback), "{fault:?}");
        assert_eq!(rig.chain.status().state, ChainState::Reconciling, "{fault:?}");
        rig.primary.let_deletes(true);
        rig.recover().await;
        assert_eq!(rig.read("k").await, (None, Freshness::Primary), "{fault:?}");
        assert_eq!(rig.set("k", 3).await, Durability::Primary);
        assert_eq!(rig.read("k").await, (Some(3), Freshness::Primary));
    }
}

#[tokio::test]
async fn a_delete_in_doubt_is_repeated() {
    for fault in [Fault::FailAfter, Fault::Hang] {
        let rig = Rig::new().await;
        rig.set("k", 1).await;
        rig.faults.set_for_next(fault, 1);
        assert_eq!(rig.cache.delete("k").await.unwrap().durability, Durability::Volatile);
        rig.recover().await;
        assert_eq!(rig.stored("k").await, None, "{fault:?}");
    }
}

#[tokio::test]
async fn a_clear_in_doubt_is_repeated() {
    for fault in [Fault::FailAfter, Fault::Hang] {
        let rig = Rig::new().await;
        rig.set("a:1", 1).await;
        rig.set("b", 1).await;
        rig.faults.set_for_next(fault, 1);
        assert_eq!(rig.cache.clear("a:").await.unwrap(), None);
        rig.recover().await;
        assert_eq!((rig.stored("a:1").await, rig.stored("b").await), (None, Some(1)), "{fault:?}");
    }
}

#[tokio::test]
async fn what_has_a_condition_is_in_doubt_and_takes_nobodys_lock_away() {
    let rig = Rig::new().await;
    rig.other.set_json("lock", &"somebody's").await.unwrap();
    let create = || rig.cache.set_with("lock", Value::from_integer(1), SetOptions::new().if_absent());
    for fault in [Fault::FailAfter, Fault::Hang] {
        rig.faults.set_for_next(fault, 1);
        assert_eq!(create().await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        rig.faults.set_for_next(fault, 1);
        assert_eq!(rig.cache.increment("lock", 1).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        rig.faults.set_for_next(fault, 1);
        assert_eq!(rig.cache.touch("lock", None).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }
    assert_eq!((rig.chain.status().state, rig.chain.status().pending), (ChainState::Normal, 0));
    assert!(rig.other.exists("lock").await.unwrap());
}

#[tokio::test]
async fn the_newest_of_a_batch_stands_here_though_an_older_one_was_in_doubt() {
    for seed in 0..10 {
        let mut plan = Plan::default();
        // So long that no probe takes the fault that is meant for the batch.
        (plan.options.timeout, plan.timeout) = (Duration::from_secs(60), Duration::from_secs(60));
        (plan.config.breaker.probe_interval, plan.config.breaker.slow_call) = (plan.timeout, plan.timeout);
        let rig = Rig::with(plan).await;
        rig.primary.let_deletes(false);
        rig.faults.set_for_next(Fault::Slow(Duration::ZERO), seed);
        for _ in 0..seed {
            let _ = rig.cache.get("advances the seed").await;
        }
        rig.faults.set_for_next(Fault::TornBatch, 1);
        let batch = (0..10).map(|number| (format!("k:{}", number % 7), Value::from_integer(number)));
        for answer in rig.cache.set_many(batch).await {
            assert_eq!(answer.unwrap().durability, Durability::Volatile);
        }
        for key in 0..7 {
            let newest = if key < 3 { key + 7 } else { key };
            assert_eq!(rig.read(&format!("k:{key}")).await, (Some(newest), Freshness::Fallback));
        }
        rig.primary.let_deletes(true);
        rig.recover().await;
        for key in 0..7 {
            assert_eq!(rig.stored(&format!("k:{key}")).await, None);
        }
    }
}

#[tokio::test]
async fn what_the_primary_applied_after_a_write_in_doubt_is_not_undone_here() {
    let (stamps, cx) = (HybridClock::process(), Context::with_timeout(Duration::from_secs(5)));
    let key = Key::parse("k").unwrap();
    let stamp = stamps.issue();
    let first = Write::put(key.clone(), Value::from_integer(1), stamp);
    let only_if = Some(Revision::from_stamp(stamp));
    let newer = Write::put(key.clone(), Value::from_integer(2), stamps.issue());
    let removed = Write::new(key.clone(), WriteOp::Delete { only_if }, stamps.issue());
    for (second, left) in [(newer, Some(2)), (removed, None)] {
        let rig = Rig::new().await;
        rig.primary.let_deletes(false);
        rig.primary.lose_first();
        let answers = rig.chain.write_many(vec![first.clone(), second], &cx).await;
        let durability: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().durability).collect();
        assert_eq!(durability, [Durability::Volatile, Durability::Primary]);
        assert_eq!(rig.read("k").await, (left, Freshness::Fallback), "and not the 1");
        rig.primary.let_deletes(true);
        rig.recover().await;
        assert_eq!(rig.stored("k").await, None);
    }
}

#[tokio::test]
async fn a_batch_whose_caller_went_away_does_not_land_over_what_was_written_since() {
    let rig = Rig::new().await;
    rig.primary.let_puts(false);
    let cache = rig.cache.clone();
    let batch = tokio::spawn(async move { cache.set_many(["a", "b"].map(|key| (key, Value::from_integer(1)))).await });
    while !rig.primary.take_log().contains(&"write 2".to_owned()) {
        tokio::task::yield_now().await;
    }
    batch.abort();
    assert!(batch.await.unwrap_err().is_cancelled());
    let cache = rig.cache.clone();
    let later = tokio::spawn(async move { cache.set("b", Value::from_integer(2)).await });
    tokio::task::yield_now().await;
    assert!(!rig.primary.take_log().contains(&"put b".to_owned()), "it would be overtaken");
    rig.primary.let_puts(true);
    assert_eq!(later.await.unwrap().unwrap().durability, Durability::Primary);
    assert_eq!((rig.stored("a").await, rig.stored("b").await), (Some(1), Some(2)));
}

#[tokio::test]
async fn a_write_whose_caller_went_away_keeps_its_key_until_it_is_done() {
    let rig = Rig::new().await;
    rig.primary.let_puts(false);
    let put = rig.cache.set("k", Value::from_integer(1));
    assert!(tokio::time::timeout(Duration::from_millis(5), put).await.is_err());
    let cache = rig.cache.clone();
    let later = tokio::spawn(async move { cache.set("k", Value::from_integer(2)).await });
    tokio::task::yield_now().await;
    assert_eq!(rig.primary.take_log().iter().filter(|call| *call == "put k").count(), 1, "the later one waits");
    rig.primary.let_puts(true);
    assert_eq!(later.await.unwrap().unwrap().durability, Durability::Primary);
    assert_eq!(rig.stored("k").await, Some(2));
}

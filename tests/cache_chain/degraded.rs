//! The primary is away.

use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::config::MemoryCacheConfig;
use agent_storage::contract::{Durability, Freshness};
use agent_storage::handle::TimeToLive;
use agent_storage::testkit::Fault;
use agent_storage::{Error, ErrorKind, SetOptions, Ttl, Value};

use crate::rig::{Plan, Rig, unavailable};

#[tokio::test]
async fn while_all_is_well_calls_go_to_the_primary() {
    let rig = Rig::new().await;
    assert_eq!(rig.set("k", 1).await, Durability::Primary);
    assert_eq!(rig.read("k").await, (Some(1), Freshness::Primary));
    assert_eq!(rig.read("none").await, (None, Freshness::Primary));
    assert_eq!(rig.cache.increment("n", 2).await.unwrap(), 2);
    assert_eq!(rig.cache.clear("k").await.unwrap(), Some(1));
    assert_eq!((rig.stored("k").await, rig.stored("n").await), (None, Some(2)));
    assert_eq!((rig.chain.status().state, rig.chain.status().pending), (ChainState::Normal, 0));
}

#[tokio::test]
async fn memory_stands_in_and_says_so() {
    let rig = Rig::new().await;
    rig.set("before", 1).await;
    rig.fall().await;
    assert_eq!(rig.set("k", 2).await, Durability::Volatile);
    assert_eq!(rig.read("k").await, (Some(2), Freshness::Fallback));
    assert_eq!(rig.read("before").await, (None, Freshness::Fallback), "a miss is harmless, and says whose it is");
    assert!(rig.cache.exists("k").await.unwrap());
    assert!(!rig.cache.exists("before").await.unwrap());
    let answers = rig.cache.get_many(["k", "before", "k"]).await;
    assert_eq!(answers.into_iter().map(|answer| answer.unwrap().is_some()).collect::<Vec<_>>(), [true, false, true]);
    rig.cache.touch("k", Some(Ttl::from_secs(60).unwrap())).await.unwrap();
    assert!(matches!(rig.cache.ttl("k").await.unwrap(), TimeToLive::Left(_)));
    let deleted = rig.cache.delete("k").await.unwrap();
    assert_eq!((deleted.existed, deleted.durability), (None, Durability::Volatile), "only the primary knows");
    assert_eq!(rig.read("k").await, (None, Freshness::Fallback));
}

#[tokio::test]
async fn nothing_is_sent_to_a_primary_that_is_away_but_probes() {
    let rig = Rig::new().await;
    rig.fall().await;
    rig.primary.take_log();
    let calls = rig.faults.counts().calls;
    for number in 0..100 {
        rig.set(&format!("k:{number}"), number).await;
        assert_eq!(rig.read(&format!("k:{number}")).await.0, Some(number));
    }
    // A refused probe does not come as far as the log.
    assert_eq!(rig.primary.take_log(), Vec::<String>::new());
    assert!(rig.faults.counts().calls - calls < 50, "200 calls were not tried");
}

#[tokio::test]
async fn what_needs_the_primary_is_unavailable() {
    let rig = Rig::new().await;
    let revision = rig.cache.set("k", Value::from_integer(1)).await.unwrap().revision.unwrap();
    rig.fall().await;
    let value = || Value::from_integer(2);
    unavailable(rig.cache.set_with("k", value(), SetOptions::new().if_absent()).await);
    unavailable(rig.cache.set_with("k", value(), SetOptions::new().if_revision(revision)).await);
    unavailable(rig.cache.delete_if("k", revision).await);
    unavailable(rig.cache.increment("k", 1).await);
    unavailable(rig.cache.list_page("", Default::default()).await);
    unavailable(rig.cache.count("").await);
    assert_eq!(rig.chain.status().pending, 0);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(1));
}

#[tokio::test]
async fn a_clear_forgets_here_and_is_done_at_the_primary_later() {
    let rig = Rig::new().await;
    rig.set("a:1", 1).await;
    rig.set("b", 1).await;
    rig.fall().await;
    rig.set("a:2", 2).await;
    assert_eq!(rig.cache.clear("a:").await.unwrap(), None);
    assert_eq!(rig.read("a:2").await, (None, Freshness::Fallback));
    rig.set("a:3", 3).await;
    assert_eq!(rig.read("a:3").await.0, Some(3));
    rig.recover().await;
    assert_eq!((rig.stored("a:1").await, rig.stored("a:3").await, rig.stored("b").await), (None, None, Some(1)));
    assert_eq!(rig.read("a:1").await, (None, Freshness::Primary));
}

#[tokio::test]
async fn calls_on_their_way_are_answered_at_once_when_the_primary_turns_out_to_be_away() {
    let mut plan = Plan::default();
    // So long that a call which waited for it would not end within the test.
    (plan.options.timeout, plan.timeout) = (Duration::from_secs(600), Duration::from_secs(600));
    plan.config.breaker.slow_call = Duration::from_secs(600);
    let rig = Rig::with(plan).await;
    rig.faults.set(Fault::Hang);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..50 {
        let cache = rig.cache.clone();
        calls.spawn(async move {
            match number % 3 {
                0 => Ok(cache.lookup(format!("k:{number}")).await?.freshness() == Freshness::Fallback),
                1 => Ok(cache.get_many(["a", "b"]).await.into_iter().all(|answer| answer.unwrap().is_none())),
                _ => Ok(cache.set_json(format!("k:{number}"), &number).await?.durability == Durability::Volatile),
            }
        });
    }
    while rig.faults.counts().calls < 51 {
        tokio::task::yield_now().await;
    }
    rig.fall().await;
    for answer in calls.join_all().await {
        let answer: Result<bool, Error> = answer;
        assert!(answer.unwrap());
    }
}

#[tokio::test]
async fn a_frozen_primary_is_found_out_before_the_deadline() {
    let rig = Rig::new().await;
    rig.faults.set(Fault::Hang);
    assert_eq!(rig.read("k").await, (None, Freshness::Fallback));
    rig.until(|status| status.state == ChainState::Degraded).await;
    let silent = rig.faults.counts().calls;
    assert!(silent <= 5, "a call and a few probes were enough, not {silent}");
}

#[tokio::test]
async fn no_caller_waits_for_a_frozen_primary_twice() {
    let rig = Rig::new().await;
    rig.faults.set(Fault::Hang);
    let callers = (0..16).map(|caller| {
        let cache = rig.cache.clone();
        tokio::spawn(async move {
            for number in 0..50 {
                let key = format!("{caller}:{number}");
                assert_eq!(cache.set_json(&key, &number).await.unwrap().durability, Durability::Volatile);
                assert_eq!(cache.lookup(&key).await.unwrap().freshness(), Freshness::Fallback);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let asked = rig.faults.counts().calls;
    assert!(asked < 16 + 50, "a call of each and a few probes, not {asked} of 1600");
}

#[tokio::test]
async fn the_read_that_finds_it_out_is_answered_here_too() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        let rig = Rig::new().await;
        rig.set("k", 1).await;
        rig.faults.set_for_next(fault, 1);
        assert_eq!(rig.read("k").await, (None, Freshness::Fallback), "{fault:?}");
        rig.recover().await;
        rig.faults.set_for_next(fault, 1);
        assert!(matches!(rig.cache.get_many(["k"]).await[..], [Ok(None)]), "{fault:?}");
        rig.recover().await;
        rig.faults.set_for_next(fault, 1);
        assert!(!rig.cache.exists("k").await.unwrap(), "{fault:?}");
        rig.recover().await;
        assert_eq!(rig.read("k").await, (Some(1), Freshness::Primary));
    }
}

#[tokio::test]
async fn an_answer_that_is_an_error_is_no_outage() {
    let rig = Rig::new().await;
    rig.faults.set(Fault::FailBefore);
    rig.faults.set_outage(None);
    unavailable(rig.cache.get("k").await);
    unavailable(rig.cache.set_json("k", &1).await);
    unavailable(rig.cache.clear("").await);
    assert_eq!((rig.chain.status().state, rig.chain.status().pending), (ChainState::Normal, 0));
}

#[tokio::test]
async fn what_stands_in_is_bounded_and_takes_no_more_than_the_primary() {
    let mut plan = Plan { memory: MemoryCacheConfig::default(), ..Plan::default() };
    plan.memory.max_entries = 10;
    let rig = Rig::with(plan).await;
    rig.fall().await;
    for number in 0..100 {
        rig.set(&format!("k:{number}"), number).await;
    }
    let keys = (0..100).map(|number| format!("k:{number}"));
    let held = rig.cache.get_many(keys).await.into_iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
    assert_eq!(held, 10);
    assert_eq!(rig.chain.status().pending, 100, "what was evicted is dirty all the same");

    let mut plan = Plan::default();
    let mut small = MemoryCacheConfig::default();
    small.max_bytes = 10_000;
    plan.store = std::sync::Arc::new(agent_storage::backend::memory::MemoryCache::new(&small));
    let rig = Rig::with(plan).await;
    rig.fall().await;
    let error = rig.cache.set_bytes("k", vec![7; 20_000]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn an_entry_without_a_ttl_gets_that_of_the_primary() {
    let mut plan = Plan::default();
    plan.options.default_ttl = Some(Ttl::from_secs(60).unwrap());
    let rig = Rig::with(plan).await;
    rig.fall().await;
    rig.set("k", 1).await;
    assert!(matches!(rig.cache.ttl("k").await.unwrap(), TimeToLive::Left(_)));
}

#[tokio::test]
async fn a_primary_that_is_down_at_the_start_is_a_degraded_start() {
    let plan = Plan::default();
    plan.faults.set(Fault::FailBefore);
    let rig = Rig::with(plan).await;
    assert_eq!(rig.chain.status().state, ChainState::Degraded);
    assert_eq!(rig.set("k", 1).await, Durability::Volatile);
    rig.recover().await;
    assert_eq!(rig.set("k", 2).await, Durability::Primary);
}

#[tokio::test]
async fn a_loaded_value_is_answered_though_it_cannot_be_kept() {
    let rig = Rig::new().await;
    rig.fall().await;
    let load = || async { Ok(7) };
    assert_eq!(rig.cache.get_or_load_json::<i64, _, _>("k", None, load).await.unwrap(), 7);
    assert_eq!(rig.chain.status().pending, 0);
}

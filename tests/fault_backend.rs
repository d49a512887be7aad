//! The fault-injecting backend does what it says, to every call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::{MemoryCache, MemoryDatabase};
use agent_storage::config::{MemoryCacheConfig, MemoryDatabaseConfig};
use agent_storage::contract::{
    Append, Attempt, CacheBackend, Context, DatabaseBackend, GetOptions, IncrementOptions, ListRange, Step, Store,
    Write,
};
use agent_storage::testkit::{Elapse, Fault, FaultBackend, Faults, Subject, check_cache, check_database};
use agent_storage::{Clock, ErrorKind, HybridClock, Key, KeyPrefix, Outage, Value};

type Database = FaultBackend<MemoryDatabase>;

fn database() -> (Faults, Database) {
    let faults = Faults::seeded(42);
    (faults.clone(), FaultBackend::new(Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default())), faults))
}

fn cx() -> Context {
    Context::with_timeout(Duration::from_secs(30))
}

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

fn put(name: &str) -> Write {
    Write::put(key(name), Value::from_integer(1), HybridClock::process().issue())
}

fn append(name: &str) -> Append {
    Append::new(key(name), Value::from_integer(1), HybridClock::process().issue())
}

async fn count(store: &Database) -> u64 {
    store.count(&KeyPrefix::empty(), &cx()).await.unwrap()
}

/// The kinds of error of one call of every method that writes.
async fn write_errors(store: &Database, cx: &Context) -> Vec<ErrorKind> {
    let mut kinds = vec![
        store.write(put("a"), cx).await.unwrap_err().kind(),
        store
            .clear(&KeyPrefix::parse("none").unwrap(), HybridClock::process().issue(), Attempt::First, cx)
            .await
            .unwrap_err()
            .kind(),
        store.ping(cx).await.unwrap_err().kind(),
        store.trim(&key("b"), 1, cx).await.unwrap_err().kind(),
        store.apply(vec![Step::Write(put("c"))], cx).await.unwrap_err().kind(),
    ];
    kinds.extend(store.write_many(vec![put("d"), put("e")], cx).await.into_iter().map(|e| e.unwrap_err().kind()));
    kinds
        .extend(store.append_many(vec![append("f"), append("g")], cx).await.into_iter().map(|e| e.unwrap_err().kind()));
    kinds
}

/// The kinds of error of one call of every method that reads.
async fn read_errors(store: &Database, cx: &Context) -> Vec<ErrorKind> {
    let keys = [key("a"), key("b")];
    let mut kinds = vec![
        store.get(&keys[0], &GetOptions::default(), cx).await.unwrap_err().kind(),
        store.list(&KeyPrefix::empty(), &Default::default(), cx).await.unwrap_err().kind(),
        store.count(&KeyPrefix::empty(), cx).await.unwrap_err().kind(),
        store.range(&keys[0], ListRange::ALL, cx).await.unwrap_err().kind(),
        store.length(&keys[0], cx).await.unwrap_err().kind(),
        store.identity(cx).await.unwrap_err().kind(),
    ];
    let values = store.get_many(&keys, &GetOptions::default(), cx).await;
    kinds.extend(values.into_iter().map(|answer| answer.unwrap_err().kind()));
    kinds.extend(store.exists(&keys, cx).await.into_iter().map(|answer| answer.unwrap_err().kind()));
    assert_eq!(kinds.len(), 10, "an answer an item");
    kinds
}

#[tokio::test]
async fn what_was_held_up_lands_when_it_is_delivered() {
    let (faults, store) = database();
    faults.set(Fault::Late);
    let soon = Context::with_timeout(Duration::from_millis(5));
    assert_eq!(write_errors(&store, &soon).await, [ErrorKind::OutcomeUnknown; 9]);
    assert!(store.get(&key("a"), &GetOptions::default(), &soon).await.is_err());
    faults.heal();
    assert_eq!(count(&store).await, 0);
    // A single write, a clear, a trim, a transaction and two batches.
    assert_eq!(store.deliver().await, 6);
    assert_eq!(count(&store).await, 6);
    assert_eq!(store.deliver().await, 0);
}

#[tokio::test]
async fn a_fault_can_wait_for_its_call() {
    let (faults, store) = database();
    faults.set_after(2, Fault::FailBefore, 1);
    let mut failed = Vec::new();
    for name in ["a", "b", "c", "d"] {
        failed.push(store.write(put(name), &cx()).await.is_err());
    }
    assert_eq!(failed, [false, false, true, false]);
}

#[tokio::test]
async fn without_a_fault_a_cache_keeps_every_rule() {
    let held = check_cache(|| async {
        let (clock, faults) = (Clock::manual(), Faults::default());
        let stamps = Arc::new(HybridClock::new(clock.clone()));
        let cache = MemoryCache::with_clocks(&MemoryCacheConfig::default(), clock.clone(), stamps.clone());
        Subject::cache(Arc::new(FaultBackend::new(Arc::new(cache), faults)), Elapse::Manual(clock)).with_stamps(stamps)
    });
    assert!(held.await.unwrap() > 100);
}

#[tokio::test]
async fn without_a_fault_a_database_keeps_every_rule() {
    let held = check_database(|| async {
        let (clock, faults) = (Clock::manual(), Faults::default());
        let stamps = Arc::new(HybridClock::new(clock.clone()));
        let store = MemoryDatabase::with_clocks(&MemoryDatabaseConfig::default(), clock.clone(), stamps.clone());
        Subject::database(Arc::new(FaultBackend::new(Arc::new(store), faults)), Elapse::Manual(clock))
            .with_stamps(stamps)
    });
    assert!(held.await.unwrap() > 100);
}

#[tokio::test]
async fn a_broken_store_fails_every_case_that_writes() {
    let broken = check_cache(|| async {
        let faults = Faults::default();
        faults.set(Fault::FailBefore);
        let cache = MemoryCache::new(&MemoryCacheConfig::default());
        Subject::cache(Arc::new(FaultBackend::new(Arc::new(cache), faults)), Elapse::Real)
    });
    let failures = broken.await.unwrap_err();
    let failed: Vec<&str> = failures.iter().map(|(name, _)| name).collect();
    assert!(failed.contains(&"writes::a_write_is_read_back"), "{failures}");
    assert!(failed.len() > 150, "{failures}");
}

#[tokio::test]
async fn a_failure_before_applies_nothing() {
    let (faults, store) = database();
    faults.set(Fault::FailBefore);
    assert!(write_errors(&store, &cx()).await.iter().all(|kind| *kind == ErrorKind::Unavailable));
    assert!(read_errors(&store, &cx()).await.iter().all(|kind| *kind == ErrorKind::Unavailable));
    faults.heal();
    assert_eq!(count(&store).await, 0);
}

#[tokio::test]
async fn a_failure_after_applies_everything() {
    let (faults, store) = database();
    faults.set(Fault::FailAfter);
    assert!(write_errors(&store, &cx()).await.iter().all(|kind| *kind == ErrorKind::OutcomeUnknown));
    assert!(read_errors(&store, &cx()).await.iter().all(|kind| *kind == ErrorKind::Unavailable));
    faults.heal();
    assert_eq!(count(&store).await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_ends_with_its_deadline() {
    let (faults, store) = database();
    faults.set(Fault::Hang);
    let short = Context::with_timeout(Duration::from_millis(5));
    assert!(write_errors(&store, &short).await.iter().all(|kind| *kind == ErrorKind::OutcomeUnknown));
    assert!(read_errors(&store, &short).await.iter().all(|kind| *kind == ErrorKind::Unavailable));
    faults.heal();
    assert_eq!(count(&store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_after_it_was_applied_is_unknown() {
    let (faults, store) = database();
    faults.set(Fault::HangAfter);
    let error = store.write(put("a"), &Context::with_timeout(Duration::from_secs(3600))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    faults.heal();
    assert_eq!(count(&store).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_applied_within_its_deadline_only() {
    let (faults, store) = database();
    faults.set(Fault::Slow(Duration::from_secs(60)));
    store.write(put("a"), &Context::with_timeout(Duration::from_secs(3600))).await.unwrap();
    let error = store.write(put("b"), &Context::with_timeout(Duration::from_secs(30))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    faults.heal();
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn a_torn_batch_is_applied_from_its_beginning() {
    let mut torn = 0;
    for seed in 0..20 {
        let faults = Faults::seeded(seed);
        let store = FaultBackend::new(Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default())), faults.clone());
        faults.set(Fault::TornBatch);
        let names = ["a", "b", "c", "d"];
        for answer in store.write_many(names.map(put).into(), &cx()).await {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        }
        faults.heal();
        let there = store.exists(&names.map(key), &cx()).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        assert!(there.is_sorted_by(|earlier, later| earlier >= later), "{there:?}");
        torn += usize::from(there.contains(&true) && there.contains(&false));
    }
    assert!(torn > 0, "no batch of twenty was torn in its middle");
}

#[tokio::test]
async fn a_transaction_is_never_torn() {
    let (faults, store) = database();
    faults.set(Fault::TornBatch);
    store.apply(vec![Step::Write(put("a")), Step::Write(put("b"))], &cx()).await.unwrap();
    assert_eq!(count(&store).await, 2);
}

#[tokio::test]
async fn a_read_only_store_is_read() {
    let (faults, store) = database();
    store.write(put("a"), &cx()).await.unwrap();
    faults.set(Fault::ReadOnly);
    assert!(write_errors(&store, &cx()).await.iter().all(|kind| *kind == ErrorKind::Unavailable));
    assert!(store.get(&key("a"), &GetOptions::default(), &cx()).await.unwrap().is_found());
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn a_wiped_store_is_another_empty_one() {
    let (faults, store) = database();
    store.write(put("a"), &cx()).await.unwrap();
    store.append_many(vec![append("list")], &cx()).await.pop().unwrap().unwrap();
    let before = store.identity(&cx()).await.unwrap();
    faults.wipe();
    assert_eq!(count(&store).await, 0);
    let after = store.identity(&cx()).await.unwrap();
    assert_ne!(after.id, before.id);
    store.write(put("a"), &cx()).await.unwrap();
    assert_eq!(count(&store).await, 1);
    assert_eq!(store.identity(&cx()).await.unwrap().id, after.id);
}

#[tokio::test]
async fn the_next_calls_fail_and_no_more() {
    let (faults, store) = database();
    faults.set_for_next(Fault::FailBefore, 2);
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(store.write(put("a"), &cx()).await.is_ok());
    }
    assert_eq!(answers, [false, false, true, true]);
}

#[tokio::test]
async fn the_same_seed_fails_the_same_calls() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let faults = Faults::seeded(seed);
        let cache = FaultBackend::new(Arc::new(MemoryCache::new(&MemoryCacheConfig::default())), faults.clone());
        faults.set_for_some(Fault::FailBefore, 50);
        let mut run = Vec::new();
        for _ in 0..64 {
            run.push(cache.increment(&key("a"), 1, &IncrementOptions::default(), &cx()).await.is_ok());
        }
        assert!(run.contains(&true) && run.contains(&false));
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn calls_and_faults_are_counted() {
    let (faults, store) = database();
    store.write(put("a"), &cx()).await.unwrap();
    faults.set(Fault::ReadOnly);
    drop(store.write_many(vec![put("b"), put("c")], &cx()).await);
    store.get(&key("a"), &GetOptions::default(), &cx()).await.unwrap();
    let counts = faults.counts();
    assert_eq!((counts.calls, counts.writes, counts.faults, counts.wipes), (3, 2, 1, 0));
}

#[tokio::test]
async fn errors_tell_of_the_outage_that_the_fault_stands_for_or_that_was_set() {
    let (faults, store) = database();
    let short = || Context::with_timeout(Duration::from_millis(20));
    let told = async || store.write(put("a"), &short()).await.unwrap_err().outage();
    for (fault, outage) in [
        (Fault::FailBefore, Outage::Down),
        (Fault::ReadOnly, Outage::Down),
        (Fault::FailAfter, Outage::Silent),
        (Fault::Hang, Outage::Silent),
        (Fault::HangAfter, Outage::Silent),
        (Fault::Slow(Duration::from_secs(60)), Outage::Silent),
    ] {
        faults.set(fault);
        assert_eq!(told().await, Some(outage), "{fault:?}");
        for set in [None, Some(Outage::Foreign)] {
            faults.set_outage(set);
            assert_eq!(told().await, set, "{fault:?}");
        }
        faults.heal();
    }
    faults.set(Fault::TornBatch);
    for answer in store.write_many(vec![put("a"), put("b")], &cx()).await {
        assert_eq!(answer.unwrap_err().outage(), Some(Outage::Silent));
    }
}

#[tokio::test]
async fn a_wiped_store_is_not_the_expected_one() {
    let (faults, store) = database();
    store.write(put("a"), &cx()).await.unwrap();
    let seen = store.ping(&cx()).await.unwrap().identity.unwrap();
    assert_eq!(seen, store.identity(&cx()).await.unwrap());
    store.expect(Some(seen)).unwrap();
    assert_eq!(count(&store).await, 1);
    faults.wipe();
    for _ in 0..2 {
        let error = store.get(&key("a"), &GetOptions::default(), &cx()).await.unwrap_err();
        assert_eq!((error.kind(), error.outage()), (ErrorKind::Unavailable, Some(Outage::Foreign)));
        for answer in store.write_many(vec![put("b"), put("c")], &cx()).await {
            assert_eq!(answer.unwrap_err().outage(), Some(Outage::Foreign));
        }
        assert_eq!(store.ping(&cx()).await.unwrap_err().outage(), Some(Outage::Foreign));
    }
    let found = store.identity(&cx()).await.unwrap();
    assert_ne!(found.id, seen.id);
    store.expect(Some(found)).unwrap();
    assert_eq!(count(&store).await, 0);
    assert_eq!(store.ping(&cx()).await.unwrap().identity.unwrap().id, found.id);
}

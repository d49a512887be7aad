//! What is repeated, how often, and what is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::{MemoryCache, MemoryDatabase};
use agent_storage::config::{MemoryCacheConfig, MemoryDatabaseConfig, RetryConfig};
use agent_storage::contract::{CacheBackend, Context, DatabaseBackend, ItemId};
use agent_storage::layer::Retry;
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Cache, Database, ErrorKind, SetOptions, Value};

fn database() -> (Database, Faults) {
    let faults = Faults::seeded(1);
    let memory: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
    let faulty: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(memory, faults.clone()));
    (Database::new(Arc::new(Retry::new(RetryConfig::default(), faulty))), faults)
}

fn cache() -> (Cache, Faults) {
    let faults = Faults::seeded(1);
    let memory: Arc<dyn CacheBackend> = Arc::new(MemoryCache::new(&MemoryCacheConfig::default()));
    let faulty: Arc<dyn CacheBackend> = Arc::new(FaultBackend::new(memory, faults.clone()));
    (Cache::new(Arc::new(Retry::new(RetryConfig::default(), faulty))), faults)
}

fn json(text: &'static str) -> Value {
    Value::json(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_not_applied_is_tried_three_times() {
    let (database, faults) = database();
    faults.set_for_next(Fault::FailBefore, 2);
    database.set("k", json("1")).await.unwrap();
    assert_eq!(faults.counts().calls, 3);
    faults.set(Fault::FailBefore);
    let error = database.get("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(faults.counts().calls, 6);
}

#[tokio::test(start_paused = true)]
async fn the_waits_grow_from_a_tenth_of_a_second() {
    let (database, faults) = database();
    faults.set(Fault::FailBefore);
    let began = tokio::time::Instant::now();
    database.get("k").await.unwrap_err();
    let waited = began.elapsed();
    // 100 ms and 200 ms, each made up to twice as long.
    assert!(waited >= Duration::from_millis(300) && waited <= Duration::from_millis(610), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn no_wait_reaches_past_the_deadline() {
    let (database, faults) = database();
    faults.set(Fault::FailBefore);
    let hurried = database.with_timeout(Duration::from_millis(50));
    hurried.get("k").await.unwrap_err();
    assert_eq!(faults.counts().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_guarded_write_is_repeated_after_a_lost_reply_and_leaves_open_what_was_there() {
    let (database, faults) = database();
    faults.set_for_next(Fault::FailAfter, 1);
    let ack = database.set("k", json("1")).await.unwrap();
    assert_eq!(ack.existed, None);
    faults.set_for_next(Fault::FailAfter, 1);
    let ack = database.delete("k").await.unwrap();
    assert_eq!(ack.existed, None, "the first attempt may have deleted it");
    assert_eq!(database.get("k").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_append_is_repeated_after_a_lost_reply_and_is_there_once() {
    let (database, faults) = database();
    faults.set_for_next(Fault::FailAfter, 2);
    let ack = database.append("list", json("1")).await.unwrap();
    assert_eq!((ack.position, ack.existed), (Some(0), None));
    assert_eq!(database.length("list").await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_not_repeated_after_a_lost_reply() {
    let (database, faults) = database();
    faults.set_for_next(Fault::FailAfter, 1);
    let error = database.set_with("k", json("1"), SetOptions::new().if_absent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(faults.counts().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_counter_is_not_repeated_after_a_lost_reply() {
    let (cache, faults) = cache();
    faults.set_for_next(Fault::FailAfter, 1);
    let error = cache.increment("n", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    faults.heal();
    assert_eq!(cache.increment("n", 1).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_trim_is_never_repeated() {
    let (database, faults) = database();
    database.append("list", json("1")).await.unwrap();
    let before = faults.counts().calls;
    faults.set(Fault::FailBefore);
    database.trim("list", 0).await.unwrap_err();
    assert_eq!(faults.counts().calls, before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_stays_unknown_when_the_later_attempts_are_not_applied() {
    let (database, faults) = database();
    faults.set(Fault::FailBefore);
    faults.set_for_next(Fault::FailAfter, 1);
    let error = database.set("k", json("1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_stays_unknown_when_the_store_is_closed_meanwhile() {
    let faults = Faults::seeded(1);
    let memory: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
    let faulty: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(Arc::clone(&memory), faults.clone()));
    let database = Database::new(Arc::new(Retry::new(RetryConfig::default(), faulty)));
    faults.set_for_next(Fault::FailAfter, 1);
    let cx = Context::with_timeout(Duration::from_secs(1));
    let (answer, closed) = tokio::join!(database.set("k", json("1")), memory.close(&cx));
    closed.unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(faults.counts().calls, 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_a_failure() {
    let (database, faults) = database();
    database.set("k", json("1")).await.unwrap();
    let before = faults.counts().calls;
    let error = database.set_with("k", json("2"), SetOptions::new().if_absent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(faults.counts().calls, before + 1);
}

#[tokio::test(start_paused = true)]
async fn of_a_torn_batch_every_item_is_there_once_and_in_order() {
    let (database, faults) = database();
    faults.set_for_next(Fault::TornBatch, 1);
    let items = (0..20).map(|number| ("list", Value::from_integer(number)));
    for ack in database.append_many(items).await {
        ack.unwrap();
    }
    let stored = database.range_json::<i64>("list", 0, -1).await.unwrap();
    assert_eq!(stored, (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_batch_keeps_the_order_of_the_writes_of_a_key() {
    let (database, faults) = database();
    faults.set_for_next(Fault::TornBatch, 1);
    let items = (0..20).map(|number| (format!("k{}", number % 2), Value::from_integer(number)));
    let acks = database.set_many(items).await;
    assert!(acks[18].is_ok() && acks[19].is_ok());
    // Of an earlier write of the key nobody can tell whether it was there for a moment.
    let honest = |ack: &agent_storage::Result<_>| match ack {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::OutcomeUnknown,
    };
    assert!(acks.iter().all(honest));
    assert_eq!(database.get_json::<i64>("k0").await.unwrap(), Some(18));
    assert_eq!(database.get_json::<i64>("k1").await.unwrap(), Some(19));
}

#[tokio::test(start_paused = true)]
async fn a_named_item_repeated_by_its_caller_says_that_it_was_there() {
    let (database, _) = database();
    let id = ItemId::parse("message-1").unwrap();
    database.append_with_id("list", json("1"), id.clone()).await.unwrap();
    let again = database.append_with_id("list", json("1"), id).await.unwrap();
    assert_eq!((again.position, again.existed), (Some(0), Some(true)));
}

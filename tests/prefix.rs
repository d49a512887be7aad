//! What a prefix keeps apart beyond the contract.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::config::MemoryDatabaseConfig;
use agent_storage::contract::{
    Attempt, ConflictOptions, Context, DatabaseBackend, ListOptions, ReplayOptions, ReplayOutcome, Step, Store, Write,
};
use agent_storage::layer::Prefix;
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Clock, Database, ErrorKind, HybridClock, Key, KeyPrefix, Stamp, StorageManager, Value};

#[tokio::test]
async fn a_key_that_is_the_prefix_itself_is_outside() {
    let database = StorageManager::in_memory().database().await.unwrap();
    let tenant = database.prefixed("tenant").unwrap();
    database.set_json("tenant", &0).await.unwrap();
    for name in ["a", "b", "c"] {
        tenant.set_json(name, &1).await.unwrap();
    }
    assert_eq!(tenant.count("").await.unwrap(), 3);
    assert_eq!(tenant.list("").unwrap().collect().await.unwrap().len(), 3);
    assert_eq!(tenant.clear("").await.unwrap(), Some(3));
    assert!(database.exists("tenant").await.unwrap());
    assert_eq!(database.count("").await.unwrap(), 1);
}

#[tokio::test]
async fn clearing_around_such_a_key_that_breaks_off_in_the_middle_is_of_unknown_outcome() {
    let stamp = || HybridClock::process().issue();
    // The first page is asked for after the look for such a key, the second after the deletes of the first.
    let kinds = [ErrorKind::Unavailable, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown, ErrorKind::OutcomeUnknown];
    for (passed, kind) in (1..).zip(kinds) {
        let whole = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
        let faults = Faults::seeded(1);
        let faulty = FaultBackend::new(Arc::clone(&whole), faults.clone());
        let tenant = Prefix::new(KeyPrefix::parse("tenant").unwrap(), Arc::new(faulty));
        let put = |name: String| Write::put(key(name), Value::from_integer(1), stamp());
        whole.write(put("tenant".to_owned()), &cx()).await.unwrap();
        let page = ListOptions::default().limit;
        let named = (0..2 * page).map(|number| put(number.to_string())).collect();
        assert!(tenant.write_many(named, &cx()).await.iter().all(Result::is_ok));
        faults.set_after(passed, Fault::FailBefore, 1);
        let error = tenant.clear(&KeyPrefix::empty(), stamp(), Attempt::First, &cx()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "after {passed} calls");
        let left = tenant.count(&KeyPrefix::empty(), &cx()).await.unwrap();
        assert_eq!(left < 2 * page as u64, kind == ErrorKind::OutcomeUnknown, "{left} are left");
    }
}

#[tokio::test]
async fn namespaces_nest_and_do_not_see_each_other() {
    let database = StorageManager::in_memory().database().await.unwrap();
    let (one, two) = (database.prefixed("1:").unwrap(), database.prefixed("2:").unwrap());
    one.prefixed("x:").unwrap().set_json("k", &1).await.unwrap();
    assert!(one.exists("x:k").await.unwrap() && database.exists("1:x:k").await.unwrap());
    assert_eq!(two.count("").await.unwrap(), 0);
    two.clear("").await.unwrap();
    assert_eq!(one.count("").await.unwrap(), 1);
}

#[tokio::test]
async fn a_prefix_counts_towards_the_length_of_a_key() {
    let database = StorageManager::in_memory().database().await.unwrap();
    let tenant = database.prefixed("t:").unwrap();
    assert!(tenant.set_json("k".repeat(1022), &1).await.is_ok());
    let error = tenant.set_json("k".repeat(1023), &1).await.unwrap_err();
    assert_eq!(error.kind(), agent_storage::ErrorKind::InvalidKey);
    let answers = tenant.get_many(["k".repeat(1023), "k".repeat(1022)]).await;
    assert!(answers[0].is_err() && answers[1].as_ref().unwrap().is_some(), "one bad key harms no other");
}

/// Two tenants of one database, with conflicts of each in turn.
struct Tenants {
    whole: Arc<MemoryDatabase>,
    one: Prefix<MemoryDatabase>,
    two: Prefix<MemoryDatabase>,
    ours: HybridClock,
}

fn cx() -> Context {
    Context::with_timeout(Duration::from_secs(10))
}

fn key(name: impl Into<String>) -> Key {
    Key::parse(name.into()).unwrap()
}

impl Tenants {
    async fn with_conflicts(conflicts: usize) -> Self {
        let whole = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
        let tenant = |prefix| Prefix::new(KeyPrefix::parse(prefix).unwrap(), Arc::clone(&whole));
        let (one, two) = (tenant("1:"), tenant("2:"));
        let tenants = Self { one, two, ours: HybridClock::new(Clock::system()), whole };
        let theirs = HybridClock::new(Clock::system());
        for number in 0..conflicts {
            let tenant = if number % 2 == 0 { &tenants.one } else { &tenants.two };
            let (key, lost) = (key(format!("k{number}")), tenants.ours.issue());
            let newer = Write::put(key.clone(), Value::from_integer(2), theirs.issue_after(lost));
            tenant.write(newer, &cx()).await.unwrap();
            let step = Step::Write(Write::put(key, Value::from_integer(1), lost));
            let outcome = tenant.replay(vec![step], &tenants.options(), &cx()).await.remove(0).unwrap();
            assert!(matches!(outcome, ReplayOutcome::Superseded { .. }));
        }
        tenants
    }

    fn options(&self) -> ReplayOptions {
        ReplayOptions::new(Stamp::MIN)
    }
}

#[tokio::test]
async fn conflicts_of_others_are_neither_listed_nor_forgotten() {
    let tenants = Tenants::with_conflicts(11).await;
    for limit in [1, 2, 3, 5, 1000] {
        let mut options = ConflictOptions::default().with_limit(limit);
        let mut listed = Vec::new();
        loop {
            let page = tenants.two.conflicts(&options, &cx()).await.unwrap();
            listed.extend(page.iter().map(|record| record.key.clone()));
            match page.last() {
                Some(last) if page.len() == limit => options = options.with_after(last),
                _ => break,
            }
        }
        assert_eq!(listed, ["k1", "k3", "k5", "k7", "k9"].map(key), "in pages of {limit}");
    }
    let record = tenants.two.conflicts(&ConflictOptions::default(), &cx()).await.unwrap().remove(0);
    assert!(!tenants.one.forget_conflict(&record.key, record.stamp, &cx()).await.unwrap());
    assert!(tenants.two.forget_conflict(&record.key, record.stamp, &cx()).await.unwrap());
    assert_eq!(tenants.two.conflicts(&ConflictOptions::default(), &cx()).await.unwrap().len(), 4);
    assert_eq!(tenants.whole.conflicts(&ConflictOptions::default(), &cx()).await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_replayed_clear_does_not_take_a_key_that_is_the_prefix_itself() {
    let tenants = Tenants::with_conflicts(0).await;
    let outside = Write::put(key("1:"), Value::from_integer(0), tenants.ours.issue());
    tenants.whole.write(outside, &cx()).await.unwrap();
    let steps = || {
        let put = Step::Write(Write::put(key("k"), Value::from_integer(1), tenants.ours.issue()));
        vec![put, Step::Clear { prefix: KeyPrefix::empty(), stamp: tenants.ours.issue() }]
    };
    let answers = tenants.one.replay(steps(), &tenants.options(), &cx()).await;
    assert_eq!(answers[0].as_ref().unwrap(), &ReplayOutcome::Applied);
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(tenants.whole.count(&KeyPrefix::empty(), &cx()).await.unwrap(), 2);
    let answers = tenants.two.replay(steps(), &tenants.options(), &cx()).await;
    assert!(answers.iter().all(|answer| *answer.as_ref().unwrap() == ReplayOutcome::Applied));
    assert_eq!(tenants.whole.count(&KeyPrefix::empty(), &cx()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_handle_lists_the_conflicts_of_its_namespace_and_forgets_them_on_the_way() {
    // More than are fetched at once.
    let tenants = Tenants::with_conflicts(241).await;
    let whole: Arc<dyn DatabaseBackend> = tenants.whole.clone();
    let database = Database::new(whole);
    let tenant = database.prefixed("1:").unwrap();
    let (mut stream, mut listed) = (tenant.conflicts(), 0);
    while let Some(record) = stream.next().await {
        let record = record.unwrap();
        assert_eq!(record.key.as_str(), format!("k{}", listed * 2));
        assert!(tenant.forget_conflict(record.key.as_str(), record.stamp).await.unwrap());
        assert!(!tenant.forget_conflict(record.key.as_str(), record.stamp).await.unwrap());
        listed += 1;
    }
    assert_eq!(listed, 121);
    assert!(tenant.conflicts().collect().await.unwrap().is_empty());
    let left = database.conflicts().collect().await.unwrap();
    assert!(left.len() == 120 && left.iter().all(|record| record.key.as_str().starts_with("2:k")));
    assert!(left.is_sorted_by_key(|record| record.stamp));
    database.backend().close(&cx()).await.unwrap();
    let mut stream = database.conflicts();
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(stream.next().await.is_none(), "an error is the end");
}

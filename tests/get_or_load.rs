//! One load a key, and the races between a load and everybody else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_storage::{Cache, Error, ErrorKind, StorageManager, Ttl, Value};
use tokio::sync::{Notify, oneshot};

async fn cache() -> Cache {
    StorageManager::in_memory().cache().await.unwrap()
}

fn json(text: &str) -> Value {
    Value::json(text.to_owned()).unwrap()
}

/// A loader that says when it began, and ends when it is told to.
struct Gate {
    began: Arc<Notify>,
    finish: Option<oneshot::Sender<Value>>,
    finished: Option<oneshot::Receiver<Value>>,
}

impl Gate {
    fn new() -> Self {
        let (finish, finished) = oneshot::channel();
        Self { began: Arc::new(Notify::new()), finish: Some(finish), finished: Some(finished) }
    }

    fn load(&mut self, cache: &Cache, key: &'static str) -> tokio::task::JoinHandle<agent_storage::Result<Value>> {
        let (cache, began, finished) = (cache.clone(), Arc::clone(&self.began), self.finished.take().unwrap());
        tokio::spawn(async move {
            cache
                .get_or_load(key, None, move || async move {
                    began.notify_one();
                    finished.await.map_err(Error::callback)
                })
                .await
        })
    }

    async fn begun(&self) {
        self.began.notified().await;
    }

    fn finish(&mut self, value: Value) {
        let _ = self.finish.take().unwrap().send(value);
    }
}

#[tokio::test]
async fn many_callers_share_one_load() {
    let (cache, loads) = (cache().await, Arc::new(AtomicUsize::new(0)));
    let calls = (0..100).map(|_| {
        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
        tokio::spawn(async move {
            let load = move || async move {
                loads.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(json("1"))
            };
            cache.get_or_load("k", None, load).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap(), json("1"));
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_delete_during_the_load_wins() {
    let (cache, mut gate) = (cache().await, Gate::new());
    let load = gate.load(&cache, "k");
    gate.begun().await;
    cache.delete("k").await.unwrap();
    gate.finish(json("\"old\""));
    load.await.unwrap().unwrap();
    assert_eq!(cache.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_set_during_the_load_wins_and_is_what_the_waiting_get() {
    let (cache, mut gate) = (cache().await, Gate::new());
    let load = gate.load(&cache, "k");
    gate.begun().await;
    cache.set("k", json("\"new\"")).await.unwrap();
    gate.finish(json("\"old\""));
    assert_eq!(load.await.unwrap().unwrap(), json("\"new\""));
    assert_eq!(cache.get("k").await.unwrap(), Some(json("\"new\"")));
}

#[tokio::test]
async fn a_clear_during_the_load_wins_through_a_namespace_too() {
    let (cache, mut gate) = (cache().await, Gate::new());
    let tenant = cache.prefixed("tenant:").unwrap();
    let load = gate.load(&tenant, "k");
    gate.begun().await;
    cache.clear("ten").await.unwrap();
    gate.finish(json("1"));
    load.await.unwrap().unwrap();
    assert_eq!(tenant.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_batch_of_deletes_overrules_a_load() {
    let (cache, mut gate) = (cache().await, Gate::new());
    let load = gate.load(&cache, "k");
    gate.begun().await;
    cache.delete_many(["other", "k"]).await;
    gate.finish(json("1"));
    load.await.unwrap().unwrap();
    assert_eq!(cache.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_load_after_a_delete_does_not_join_the_load_before_it() {
    let (cache, mut gate) = (cache().await, Gate::new());
    let before = gate.load(&cache, "k");
    gate.begun().await;
    cache.delete("k").await.unwrap();
    let after = cache.get_or_load("k", None, || async { Ok(json("\"new\"")) }).await.unwrap();
    assert_eq!(after, json("\"new\""));
    gate.finish(json("\"old\""));
    before.await.unwrap().unwrap();
    assert_eq!(cache.get("k").await.unwrap(), Some(json("\"new\"")));
}

#[tokio::test]
async fn the_loader_ends_though_its_first_caller_goes_away() {
    let (cache, mut gate) = (cache().await, Gate::new());
    let leader = gate.load(&cache, "k");
    gate.begun().await;
    let follower = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load("k", None, || async { Ok(json("\"follower\"")) }).await }
    });
    tokio::task::yield_now().await;
    leader.abort();
    gate.finish(json("\"leader\""));
    assert_eq!(follower.await.unwrap().unwrap(), json("\"leader\""));
}

#[tokio::test]
async fn a_loader_that_fails_or_panics_fails_its_callers_and_nothing_else() {
    let cache = cache().await;
    let error = cache.get_or_load("k", None, || async { Err(Error::callback("no weather")) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no weather");
    let error = cache.get_or_load("k", None, || async { panic!("expected by the test") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let value = cache.get_or_load("k", None, || async { Ok(json("1")) }).await.unwrap();
    assert_eq!(value, json("1"));
}

#[tokio::test]
async fn the_ttl_counts_for_the_loaded_value() {
    let cache = cache().await;
    let ttl = Ttl::from_secs(60).unwrap();
    cache.get_or_load("k", Some(ttl), || async { Ok(json("1")) }).await.unwrap();
    match cache.ttl("k").await.unwrap() {
        agent_storage::handle::TimeToLive::Left(left) => assert!(left <= Duration::from_secs(60)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cache_that_is_closed_does_not_fail_the_load() {
    let manager = StorageManager::in_memory();
    let cache = manager.cache().await.unwrap();
    manager.disconnect().await.unwrap();
    let value = cache.get_or_load("k", None, || async { Ok(json("1")) }).await.unwrap();
    assert_eq!(value, json("1"));
}

#[test]
fn nobody_waits_for_a_load_in_a_runtime_that_rests() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (resting, ours) = (runtime(), runtime());
    let cache = resting.block_on(cache());
    let hurried = resting.block_on(async {
        let load = cache.get_or_load("k", None, || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(json("2"))
        });
        tokio::time::timeout(Duration::from_millis(10), load).await
    });
    assert!(hurried.is_err());
    let load = cache.get_or_load("k", None, || async { Ok(json("1")) });
    let value = ours.block_on(async { tokio::time::timeout(Duration::from_secs(5), load).await.unwrap().unwrap() });
    assert_eq!(value, json("1"));
    // What is loaded late finds the key taken.
    resting.block_on(async { tokio::time::sleep(Duration::from_millis(200)).await });
    assert_eq!(ours.block_on(cache.get("k")).unwrap(), Some(json("1")));
    ours.block_on(cache.delete("k")).unwrap();
}

/// A handle may outlive the runtime of a call, as one that several tests share does.
#[test]
fn a_load_that_ended_with_its_runtime_is_begun_anew() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let cache = first.block_on(cache());
    let began = Arc::new(Notify::new());
    first.block_on(async {
        let (cache, begun) = (cache.clone(), Arc::clone(&began));
        let never = move || async move {
            begun.notify_one();
            std::future::pending().await
        };
        tokio::spawn(async move { cache.get_or_load("k", None, never).await });
        began.notified().await;
    });
    drop(first);
    let value = runtime().block_on(cache.get_or_load("k", None, || async { Ok(json("1")) })).unwrap();
    assert_eq!(value, json("1"));
}

//! What the memory cache does beyond the contract: it stays within its bounds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use agent_storage::backend::memory::MemoryCache;
use agent_storage::config::MemoryCacheConfig;
use agent_storage::contract::{Context, GetOptions, ListOptions, Store, Write, WriteMode, WriteOp};
use agent_storage::{Clock, ErrorKind, HybridClock, Key, KeyPrefix, Ttl, Value};
use std::sync::Arc;
use std::time::Duration;

fn cx() -> Context {
    Context::with_timeout(Duration::from_secs(10))
}

fn config(max_bytes: u64, max_entries: u64) -> MemoryCacheConfig {
    let mut config = MemoryCacheConfig::default();
    config.max_bytes = max_bytes;
    config.max_entries = max_entries;
    config
}

async fn put(cache: &MemoryCache, name: &str, bytes: usize, ttl: Option<Ttl>) {
    let op = WriteOp::Put { value: Value::binary(vec![0; bytes]).unwrap(), mode: WriteMode::Upsert, ttl };
    let write = Write::new(Key::parse(name).unwrap(), op, HybridClock::process().issue());
    cache.write(write, &cx()).await.unwrap();
}

async fn has(cache: &MemoryCache, name: &str) -> bool {
    cache.get(&Key::parse(name).unwrap(), &GetOptions::default(), &cx()).await.unwrap().is_found()
}

#[tokio::test]
async fn it_never_holds_more_entries_than_its_bound() {
    let cache = MemoryCache::new(&config(64 << 20, 100));
    for number in 0..10_000 {
        put(&cache, &format!("key:{number}"), 10, None).await;
        assert!(has(&cache, &format!("key:{number}")).await, "what was just written is there");
    }
    assert_eq!(cache.count(&KeyPrefix::empty(), &cx()).await.unwrap(), 100);
}

#[tokio::test]
async fn it_never_holds_more_bytes_than_its_bound() {
    let cache = MemoryCache::new(&config(1 << 20, 1_000_000));
    for number in 0..1000 {
        put(&cache, &format!("key:{number}"), 100_000, None).await;
    }
    let count = cache.count(&KeyPrefix::empty(), &cx()).await.unwrap();
    assert!((1..=10).contains(&count), "{count}");
}

#[tokio::test]
async fn overwriting_and_deleting_give_their_bytes_back() {
    let cache = MemoryCache::new(&config(1 << 20, 1000));
    put(&cache, "other", 10, None).await;
    for _ in 0..100 {
        put(&cache, "key", 900_000, None).await;
    }
    assert!(has(&cache, "other").await, "one key overwritten is no reason to evict another");
}

#[tokio::test]
async fn what_is_read_outlives_what_is_not() {
    let cache = MemoryCache::new(&config(64 << 20, 1000));
    put(&cache, "hot", 10, None).await;
    for number in 0..20_000 {
        put(&cache, &format!("cold:{number}"), 10, None).await;
        if number % 100 == 0 {
            assert!(has(&cache, "hot").await, "evicted at {number}");
        }
    }
}

/// Each cache hashes in its own way, so what holds for many of them does not hang on how the keys spread.
fn small_caches() -> impl Iterator<Item = MemoryCache> {
    std::iter::repeat_with(|| MemoryCache::new(&config(64 << 20, 40))).take(300)
}

#[tokio::test]
async fn what_is_read_outlives_what_is_not_however_small_the_cache() {
    for cache in small_caches() {
        put(&cache, "hot", 10, None).await;
        for number in 0..500 {
            put(&cache, &format!("cold:{number}"), 10, None).await;
            if number % 30 == 0 {
                assert!(has(&cache, "hot").await, "evicted at {number}");
            }
        }
    }
}

#[tokio::test]
async fn what_came_first_goes_first() {
    for cache in small_caches().take(30) {
        for number in 1000..1300 {
            put(&cache, &number.to_string(), 10, None).await;
        }
        let page = cache.list(&KeyPrefix::empty(), &ListOptions::default(), &cx()).await.unwrap();
        let newest: Vec<String> = (1260..1300).map(|number| number.to_string()).collect();
        assert_eq!(page.keys.iter().map(Key::as_str).collect::<Vec<_>>(), newest);
    }
}

#[tokio::test]
async fn what_is_used_again_goes_after_what_came_before_that() {
    for cache in small_caches().take(30) {
        for number in 1000..1040 {
            put(&cache, &number.to_string(), 10, None).await;
        }
        for number in 1000..1020 {
            assert!(has(&cache, &number.to_string()).await);
        }
        for number in 2000..2020 {
            put(&cache, &number.to_string(), 10, None).await;
        }
        for (prefix, left) in [("100", 10), ("101", 10), ("1", 20)] {
            let prefix = KeyPrefix::parse(prefix).unwrap();
            assert_eq!(cache.count(&prefix, &cx()).await.unwrap(), left);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_keep_the_bound_and_what_is_read() {
    let cache = Arc::new(MemoryCache::new(&config(64 << 20, 100)));
    put(&cache, "hot", 10, None).await;
    let write = |writer: usize| {
        let cache = Arc::clone(&cache);
        async move {
            for number in 0..5000 {
                put(&cache, &format!("cold:{writer}:{number}"), 10, None).await;
                assert!(has(&cache, "hot").await, "evicted at {number}");
            }
        }
    };
    let (one, two) = (tokio::spawn(write(1)), tokio::spawn(write(2)));
    one.await.unwrap();
    two.await.unwrap();
    // Each may have evicted one for the same entry too many.
    let count = cache.count(&KeyPrefix::empty(), &cx()).await.unwrap();
    assert!((99..=100).contains(&count), "{count}");
}

#[tokio::test]
async fn expired_entries_give_their_room_back() {
    let clock = Clock::manual();
    let cache =
        MemoryCache::with_clocks(&config(64 << 20, 1000), clock.clone(), Arc::new(HybridClock::new(clock.clone())));
    for number in 0..1000 {
        put(&cache, &format!("short:{number}"), 10, Some(Ttl::from_secs(1).unwrap())).await;
    }
    clock.advance(Duration::from_secs(1));
    for number in 0..900 {
        put(&cache, &format!("long:{number}"), 10, None).await;
    }
    assert_eq!(cache.count(&KeyPrefix::empty(), &cx()).await.unwrap(), 900);
}

#[tokio::test]
async fn a_value_larger_than_the_cache_is_refused_and_evicts_nothing() {
    let cache = MemoryCache::new(&config(1 << 20, 1000));
    put(&cache, "key", 10, None).await;
    let op = WriteOp::Put { value: Value::binary(vec![0; 2 << 20]).unwrap(), mode: WriteMode::Upsert, ttl: None };
    let write = Write::new(Key::parse("large").unwrap(), op, HybridClock::process().issue());
    assert_eq!(cache.write(write, &cx()).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(has(&cache, "key").await);
}

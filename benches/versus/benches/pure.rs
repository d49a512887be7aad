//! Measures the pure parts, which need no server: keys and values, subjects of NATS, the coalescer, and the configuration.
//!
//! See `docs/performance.md` for how to run it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking")]

/// What the file of the codec finds under these names in the library.
mod key {
    pub(crate) use agent_storage::{Key, KeyPrefix};
}

/// The codec is no part of the public interface, so its file is taken into the benchmark.
#[allow(unused, unreachable_pub, reason = "only its two directions are measured")]
#[path = "../../../src/backend/jetstream/codec.rs"]
mod codec;

use std::hint::black_box;
use std::sync::Arc;

use agent_storage::config::BatchingConfig;
use agent_storage::contract::{CacheBackend, Context, GetOptions};
use agent_storage::layer::Coalesce;
use agent_storage::{Cache, Environment, Key, KeyPattern, KeyPrefix, StorageConfig, StorageManager, Value};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

const KEY: &str = "session:0a1b2c3d4e";
const REFERENCE: &str = include_str!("../../../config/reference.yml");

fn keys(criterion: &mut Criterion) {
    let prefix = KeyPrefix::parse("tenant:7:").unwrap();
    let key = Key::parse(KEY).unwrap();
    let pattern = KeyPattern::parse("session:*").unwrap();
    let mut group = criterion.benchmark_group("key");
    group.bench_function("parse", |bench| bench.iter(|| Key::parse(black_box(KEY)).unwrap()));
    group.bench_function("prefix", |bench| bench.iter(|| prefix.join(black_box(&key)).unwrap()));
    group.bench_function("glob", |bench| bench.iter(|| pattern.matches(black_box(KEY))));
    for (name, key) in [("plain", KEY), ("unusual", "Ünï/😀 50%")] {
        let subject = codec::encode(key);
        group.bench_function(format!("to subject, {name}"), |bench| bench.iter(|| codec::encode(black_box(key))));
        group.bench_function(format!("from subject, {name}"), |bench| {
            bench.iter(|| codec::decode(black_box(&subject)).unwrap());
        });
    }
    group.finish();
}

fn values(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("value");
    for bytes in [200_usize, 20_000] {
        let text = format!(r#"{{"text":"{}"}}"#, "a ".repeat(bytes / 2));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("check {bytes} bytes of JSON"), |bench| {
            bench.iter_batched(|| text.clone(), |text| Value::json(text).unwrap(), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// What the layer adds to a call before a store that answers at once: a cache in memory.
fn coalescer(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let plain: Arc<dyn CacheBackend> =
        Arc::clone(runtime.block_on(StorageManager::in_memory().cache()).unwrap().backend());
    let coalesced: Arc<dyn CacheBackend> = Arc::new(Coalesce::cache(&BatchingConfig::default(), Arc::clone(&plain)));
    runtime.block_on(Cache::new(Arc::clone(&plain)).set(KEY, Value::from_integer(1))).unwrap();
    let mut group = criterion.benchmark_group("coalescer");
    for (name, store) in [("without", &plain), ("a lone call", &coalesced)] {
        group.bench_function(name, |bench| bench.iter(|| runtime.block_on(get(store))));
    }
    group.throughput(Throughput::Elements(256));
    group.bench_function("256 calls at once", |bench| bench.iter(|| crowd(&runtime, &coalesced)));
    group.finish();
}

async fn get(store: &Arc<dyn CacheBackend>) {
    let (key, cx) = (Key::parse(KEY).unwrap(), Context::with_timeout(std::time::Duration::from_secs(5)));
    assert!(store.get(&key, &GetOptions::default(), &cx).await.unwrap().into_value().is_some());
}

fn crowd(runtime: &Runtime, store: &Arc<dyn CacheBackend>) {
    let store = Arc::clone(store);
    runtime.block_on(async {
        let calls: Vec<_> = (0..256)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { get(&store).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    });
}

fn config(criterion: &mut Criterion) {
    let short = "storage: { cache: { type: in-memory }, database: { type: in-memory } }";
    let read = |yaml: &str| StorageConfig::from_yaml_with(yaml, "agent.yml", &Environment::empty()).unwrap();
    let mut group = criterion.benchmark_group("config");
    group.bench_function("short", |bench| bench.iter(|| read(black_box(short))));
    group.bench_function("reference", |bench| bench.iter(|| read(black_box(REFERENCE))));
    group.finish();
}

criterion_group!(pure, keys, values, coalescer, config);
criterion_main!(pure);

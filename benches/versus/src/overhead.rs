//! What a call costs in memory while it waits: so many callers before a store that never answers.

use std::future::{Future, pending};
use std::time::Duration;

use agent_storage::contract::{
    Attempt, CacheBackend, Capabilities, Context, Durability, GetOptions, IncrementOptions, KeyPage, ListOptions,
    Lookup, Ping, Store, Write, WriteAck,
};
use agent_storage::{Cache, Key, KeyPrefix, Result, Stamp, StorageManager, Value};
use anyhow::Context as _;
use async_trait::async_trait;

use crate::workload::Workload;

const CALLS: usize = 100_000;

/// Measures the memory of waiting calls beyond their callers' own tasks and values, and prints it.
///
/// First come tasks that hold a handle, a key and a value, and wait for nothing: they are the callers' own. Then come as many
/// tasks with the same things in their hands that call the library. All of them stay, so that no memory is used twice. What
/// the second lot takes more of the process' resident memory than the first is what the library adds, its futures within the
/// callers' tasks included.
pub async fn measure(work: &'static Workload) -> anyhow::Result<()> {
    println!("{CALLS} waiting calls, beyond their callers' own tasks and values:");
    for name in ["get", "set"] {
        let own = cost(work, |cache, key, value| async move {
            pending::<()>().await;
            drop((cache, key, value));
        });
        let own = own.await?;
        let calls = match name {
            "get" => cost(work, |cache, key, value| async move { drop((cache.get(&key).await, value)) }).await?,
            _ => cost(work, |cache, key, value| async move { drop(cache.set(&key, value).await) }).await?,
        };
        let beyond = calls.saturating_sub(own);
        let (each, megabytes) = (beyond / CALLS, beyond as f64 / 1e6);
        println!("{name}: {each} bytes a call, {megabytes:.1} MB (the callers themselves: {} bytes each)", own / CALLS);
    }
    Ok(())
}

/// The bytes of resident memory that so many callers take.
async fn cost<F>(work: &'static Workload, call: impl Fn(Cache, String, Value) -> F) -> anyhow::Result<usize>
where
    F: Future<Output = ()> + Send + 'static,
{
    let cache = StorageManager::builder().cache(Silent).build().cache().await?.with_timeout(Duration::from_secs(3600));
    let before = resident()?;
    for index in 0..CALLS {
        let value = Value::json(work.values[index % work.values.len()].to_vec())?;
        tokio::spawn(call(cache.clone(), format!("session:{index:06}"), value));
    }
    // Every task has had its first turn, and waits, once nothing changes any more.
    let mut last = resident()?;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = resident()?;
        if now == last {
            return Ok(now.saturating_sub(before));
        }
        last = now;
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> anyhow::Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").context("this measurement needs Linux")?;
    let pages: usize = statm.split(' ').nth(1).context("an unknown form of statm")?.parse()?;
    Ok(pages * rustix::param::page_size())
}

/// A durable store that can be reached and never answers.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Store for Silent {
    async fn get(&self, _key: &Key, _options: &GetOptions, _cx: &Context) -> Result<Lookup> {
        pending().await
    }

    async fn get_many(&self, _keys: &[Key], _options: &GetOptions, _cx: &Context) -> Vec<Result<Lookup>> {
        pending().await
    }

    async fn exists(&self, _keys: &[Key], _cx: &Context) -> Vec<Result<bool>> {
        pending().await
    }

    async fn write(&self, _write: Write, _cx: &Context) -> Result<WriteAck> {
        pending().await
    }

    async fn write_many(&self, _writes: Vec<Write>, _cx: &Context) -> Vec<Result<WriteAck>> {
        pending().await
    }

    async fn list(&self, _prefix: &KeyPrefix, _options: &ListOptions, _cx: &Context) -> Result<KeyPage> {
        pending().await
    }

    async fn count(&self, _prefix: &KeyPrefix, _cx: &Context) -> Result<u64> {
        pending().await
    }

    async fn clear(&self, _prefix: &KeyPrefix, _stamp: Stamp, _attempt: Attempt, _cx: &Context) -> Result<Option<u64>> {
        pending().await
    }

    async fn ping(&self, _cx: &Context) -> Result<Ping> {
        Ok(Ping::new(Duration::ZERO, None))
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("silent");
        capabilities.durability = Durability::Primary;
        capabilities
    }

    async fn close(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl CacheBackend for Silent {
    async fn increment(&self, _key: &Key, _by: i64, _options: &IncrementOptions, _cx: &Context) -> Result<i64> {
        pending().await
    }
}

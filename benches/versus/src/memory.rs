//! Caches in memory: ours without its handle, `moka` and `quick_cache`, each with a TTL that reads check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_storage::backend::memory::MemoryCache;
use agent_storage::config::MemoryCacheConfig;
use agent_storage::contract::{CacheBackend, Context as CallContext, GetOptions, Write, WriteMode, WriteOp};
use agent_storage::{HybridClock, Key, Ttl, Value};
use anyhow::Context;
use bytes::Bytes;

use crate::drive::{Contender, Shape};
use crate::workload::{Draw, Op, Workload};

const TTL: Duration = Duration::from_secs(3600);
const ENTRIES: u64 = 100_000;

fn shape(callers: usize) -> Shape {
    Shape { tasks: callers, batch: 1, stretch: 64 }
}

/// Our cache as layers hold it: `Arc<dyn CacheBackend>`, with keys that were checked before.
#[derive(Clone)]
pub struct Backend {
    cache: Arc<dyn CacheBackend>,
    keys: Arc<[Key]>,
    stamps: Arc<HybridClock>,
    cx: CallContext,
}

impl Backend {
    pub fn new(work: &Workload) -> anyhow::Result<Self> {
        let keys: Result<_, _> = work.keys.iter().map(Key::parse).collect();
        Ok(Self {
            cache: Arc::new(MemoryCache::new(&MemoryCacheConfig::default())),
            keys: keys?,
            stamps: HybridClock::process(),
            cx: CallContext::with_timeout(CallContext::MAX_TIMEOUT),
        })
    }

    async fn set(&self, key: &Key, value: Bytes) -> anyhow::Result<()> {
        let ttl = Some(Ttl::from_secs(TTL.as_secs())?);
        let op = WriteOp::Put { value: Value::json(value)?, mode: WriteMode::Upsert, ttl };
        self.cache.write(Write::new(key.clone(), op, self.stamps.issue()), &self.cx).await?;
        Ok(())
    }
}

impl Contender for Backend {
    fn who(&self) -> String {
        "agent-storage, no handle".to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append
    }

    fn shape(&self, _op: Op, callers: usize) -> Shape {
        shape(callers)
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        for (key, value) in self.keys.iter().zip(work.values.iter().cycle()) {
            self.set(key, value.clone()).await?;
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        let key = &self.keys[draw.index()];
        match op {
            Op::Get => {
                let lookup = self.cache.get(key, &GetOptions::default(), &self.cx).await?;
                lookup.into_value().context("a key is missing")?;
                Ok(())
            }
            _ => self.set(key, draw.value()).await,
        }
    }
}

/// `moka`'s cache for async code.
#[derive(Clone)]
pub struct Moka(moka::future::Cache<String, Bytes>);

impl Moka {
    pub fn new() -> Self {
        Self(moka::future::Cache::builder().max_capacity(ENTRIES).time_to_live(TTL).build())
    }
}

impl Contender for Moka {
    fn who(&self) -> String {
        "moka".to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append
    }

    fn shape(&self, _op: Op, callers: usize) -> Shape {
        shape(callers)
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        for (key, value) in work.keys.iter().zip(work.values.iter().cycle()) {
            self.0.insert(key.clone(), value.clone()).await;
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        match op {
            Op::Get => drop(self.0.get(draw.key()).await.context("a key is missing")?),
            _ => self.0.insert(draw.key().to_owned(), draw.value()).await,
        }
        Ok(())
    }
}

/// `quick_cache`, which knows no TTL: it is kept beside the value and checked by hand.
#[derive(Clone)]
pub struct Quick(Arc<quick_cache::sync::Cache<String, (Bytes, Instant)>>);

impl Quick {
    pub fn new() -> Self {
        Self(Arc::new(quick_cache::sync::Cache::new(ENTRIES as usize)))
    }
}

impl Contender for Quick {
    fn who(&self) -> String {
        "quick_cache".to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append
    }

    fn shape(&self, _op: Op, callers: usize) -> Shape {
        shape(callers)
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        for (key, value) in work.keys.iter().zip(work.values.iter().cycle()) {
            self.0.insert(key.clone(), (value.clone(), Instant::now() + TTL));
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        match op {
            Op::Get => {
                let found = self.0.get(draw.key()).filter(|(_, expiry)| *expiry > Instant::now());
                found.context("a key is missing")?;
            }
            _ => self.0.insert(draw.key().to_owned(), (draw.value(), Instant::now() + TTL)),
        }
        Ok(())
    }
}

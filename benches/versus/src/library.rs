//! This library, used as its users do: through the handles of a manager.

use agent_storage::{Cache, Database, SetOptions, StorageManager, Ttl, Value};
use anyhow::Context;

use crate::drive::{Contender, Shape};
use crate::workload::{Draw, Op, Workload};

/// The library before one store.
#[derive(Clone)]
pub struct Library {
    who: String,
    handle: Handle,
    stretch: usize,
}

#[derive(Clone)]
enum Handle {
    Cache(Cache),
    /// A cache in memory, with a TTL on every entry.
    Expiring(Cache, Ttl),
    Database(Database),
}

/// How the library is configured beside its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Default,
    Lanes(u32),
    Unbatched,
    /// Nothing stands behind the store while it is away.
    Unchained,
}

impl Variant {
    fn yaml(self) -> String {
        match self {
            Self::Default => String::new(),
            Self::Lanes(lanes) => format!(", batching: {{ lanes: {lanes} }}"),
            Self::Unbatched => ", batching: { enabled: false }".to_owned(),
            Self::Unchained => ", fallback: none".to_owned(),
        }
    }

    /// A manager with this configuration of one side.
    pub fn manager(self, side: &str, config: &str) -> anyhow::Result<StorageManager> {
        let variant = self.yaml();
        let yaml = format!("storage: {{ {side}: {{ {config}{variant} }} }}");
        StorageManager::from_yaml(&yaml).context("the library refuses its configuration")
    }

    fn who(self) -> String {
        match self {
            Self::Default => "agent-storage".to_owned(),
            Self::Lanes(lanes) => format!("agent-storage, lanes {lanes}"),
            Self::Unbatched => "agent-storage, batching off".to_owned(),
            Self::Unchained => "agent-storage, no fallback".to_owned(),
        }
    }
}

impl Library {
    /// A cache of this configuration, as `type: redis, url: ..`.
    pub async fn cache(config: &str, variant: Variant) -> anyhow::Result<Self> {
        let manager = variant.manager("cache", config)?;
        Ok(Self { who: variant.who(), handle: Handle::Cache(manager.cache().await?), stretch: 1 })
    }

    pub async fn memory() -> anyhow::Result<Self> {
        let cache = StorageManager::in_memory().cache().await?;
        let handle = Handle::Expiring(cache, Ttl::from_secs(3600)?);
        Ok(Self { who: Variant::Default.who(), handle, stretch: 64 })
    }

    pub async fn database(config: &str, variant: Variant) -> anyhow::Result<Self> {
        let manager = variant.manager("database", config)?;
        Ok(Self { who: variant.who(), handle: Handle::Database(manager.database().await?), stretch: 1 })
    }

    /// Writes a value.
    pub async fn set(&self, key: &str, value: Value) -> agent_storage::Result<()> {
        match &self.handle {
            Handle::Cache(cache) => cache.set(key, value).await?,
            Handle::Expiring(cache, ttl) => cache.set_with(key, value, SetOptions::new().with_ttl(*ttl)).await?,
            Handle::Database(database) => database.set(key, value).await?,
        };
        Ok(())
    }
}

impl Contender for Library {
    fn who(&self) -> String {
        self.who.clone()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append || matches!(self.handle, Handle::Database(_))
    }

    fn shape(&self, _op: Op, callers: usize) -> Shape {
        Shape { tasks: callers, batch: 1, stretch: self.stretch }
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        let items = work.keys.iter().zip(work.values.iter().cycle());
        for (key, value) in items {
            self.set(key, Value::json(value.clone())?).await?;
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        match (op, &self.handle) {
            (Op::Get, Handle::Cache(cache) | Handle::Expiring(cache, _)) => {
                cache.get(draw.key()).await?.context("a key is missing")?;
            }
            (Op::Get, Handle::Database(database)) => {
                database.get(draw.key()).await?.context("a key is missing")?;
            }
            (Op::Set, _) => self.set(draw.key(), Value::json(draw.value())?).await?,
            (Op::Append, Handle::Database(database)) => {
                database.append(draw.list(), Value::json(draw.value())?).await?;
            }
            (Op::Append, _) => anyhow::bail!("a cache has no lists"),
        }
        Ok(())
    }
}

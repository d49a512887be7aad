//! From a configuration to a backend in its layers.

use std::sync::Arc;

use crate::backend::memory::{MemoryCache, MemoryDatabase};
#[cfg(feature = "sqlite")]
use crate::chain::JournalFile;
use crate::chain::{CacheChain, ChainOptions, DatabaseChain};
use crate::config::{
    CacheBackendConfig, CacheConfig, CacheFallback, DatabaseBackendConfig, DatabaseConfig, DatabaseFallback, Fallback,
    SideOptions,
};
use crate::contract::{CacheBackend, Capabilities, DatabaseBackend, Durability};
use crate::error::Result;
use crate::handle::{Cache, Database, Handle, HandleBackend};
use crate::key::KeyPrefix;
use crate::layer::{Coalesce, Observe, Prefix, Retry, Side};
use crate::time::Ttl;

/// Where a backend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was injected, and whatever it is, it may fail for a passing reason.
    Own,
    /// It is the one of the configuration. In memory nothing fails that another attempt would mend.
    Configured,
}

/// Makes the cache's backend, without connecting it.
pub(super) fn cache_backend(config: &CacheBackendConfig) -> Result<Arc<dyn CacheBackend>> {
    match config {
        CacheBackendConfig::Memory(config) => Ok(Arc::new(MemoryCache::new(config))),
        #[cfg(feature = "redis")]
        CacheBackendConfig::Redis(config) => Ok(Arc::new(crate::backend::redis::RedisCache::new(config)?)),
        #[cfg(not(feature = "redis"))]
        CacheBackendConfig::Redis(_) => Err(crate::error::Error::feature_disabled("redis")),
        #[cfg(feature = "jetstream")]
        CacheBackendConfig::Jetstream(config) => {
            Ok(Arc::new(crate::backend::jetstream::JetstreamCache::new(config, crate::time::Clock::system())?))
        }
        #[cfg(not(feature = "jetstream"))]
        CacheBackendConfig::Jetstream(_) => Err(crate::error::Error::feature_disabled("jetstream")),
    }
}

/// Makes the database's backend, without connecting it.
pub(super) fn database_backend(config: &DatabaseBackendConfig) -> Result<Arc<dyn DatabaseBackend>> {
    match config {
        DatabaseBackendConfig::Memory(config) => Ok(Arc::new(MemoryDatabase::new(config))),
        #[cfg(feature = "sqlite")]
        DatabaseBackendConfig::Sqlite(config) => Ok(Arc::new(crate::backend::sqlite::SqliteDatabase::new(config))),
        #[cfg(not(feature = "sqlite"))]
        DatabaseBackendConfig::Sqlite(_) => Err(crate::error::Error::feature_disabled("sqlite")),
        #[cfg(feature = "postgres")]
        DatabaseBackendConfig::Postgres(config) => {
            Ok(Arc::new(crate::backend::postgres::PostgresDatabase::new(config)?))
        }
        #[cfg(not(feature = "postgres"))]
        DatabaseBackendConfig::Postgres(_) => Err(crate::error::Error::feature_disabled("postgres")),
    }
}

/// A cache in its layers, and the chain among them if there is one.
#[derive(Clone, Debug)]
pub(super) struct OpenCache {
    pub(super) handle: Cache,
    pub(super) chain: Option<Arc<CacheChain>>,
}

/// Puts the layers before a cache and connects it.
pub(super) async fn cache(backend: Arc<dyn CacheBackend>, origin: Origin, config: &CacheConfig) -> Result<OpenCache> {
    let chain = cache_chain(&backend, config).await?;
    let in_memory = origin == Origin::Configured && matches!(config.backend, CacheBackendConfig::Memory(_));
    let mut layered: Arc<dyn CacheBackend> = match &chain {
        Some(chain) => chain.clone(),
        None if in_memory => backend,
        None => Arc::new(Retry::new(config.options.retry, backend)),
    };
    if is_batched(&layered.capabilities(), &config.options) {
        layered = Arc::new(Coalesce::cache(&config.options.batching, layered));
    }
    let observed: Arc<dyn CacheBackend> = Arc::new(Observe::new(Side::Cache, layered));
    let prefix = KeyPrefix::parse(&config.options.key_prefix)?;
    let backend = if prefix.is_empty() { observed } else { Arc::new(Prefix::new(prefix, observed)) };
    let connected = connect(Side::Cache, Handle::new(backend), &config.options, chain.is_some()).await;
    if let (Err(_), Some(chain)) = (&connected, &chain) {
        chain.stop();
    }
    Ok(OpenCache { handle: connected?, chain })
}

/// Opens what stands in for a cache, if something does, with the retries below it.
async fn cache_chain(primary: &Arc<dyn CacheBackend>, config: &CacheConfig) -> Result<Option<Arc<CacheChain>>> {
    let Some(CacheFallback::Memory(memory)) = config.effective_fallback() else { return Ok(None) };
    let mut options = ChainOptions::new(config.options.timeout);
    options.fingerprint = config.backend.address();
    options.scope = KeyPrefix::parse(&config.options.key_prefix)?;
    if let CacheBackendConfig::Jetstream(jetstream) = &config.backend {
        options.default_ttl = jetstream.ttl.map(Ttl::new).transpose()?;
    }
    let retried = Arc::new(Retry::new(config.options.retry, Arc::clone(primary)).leaving_outages());
    let opened = CacheChain::open(retried, Arc::new(MemoryCache::new(&memory)), &config.chain, options).await?;
    Ok(Some(Arc::new(opened)))
}

/// A database in its layers, and the chain among them if there is one.
#[derive(Clone, Debug)]
pub(super) struct OpenDatabase {
    pub(super) handle: Database,
    pub(super) chain: Option<Arc<DatabaseChain>>,
}

/// Puts the layers before a database and connects it.
pub(super) async fn database(
    backend: Arc<dyn DatabaseBackend>,
    origin: Origin,
    config: &DatabaseConfig,
) -> Result<OpenDatabase> {
    let chain = database_chain(&backend, config).await?;
    let in_memory = origin == Origin::Configured && matches!(config.backend, DatabaseBackendConfig::Memory(_));
    let mut layered: Arc<dyn DatabaseBackend> = match &chain {
        Some(chain) => chain.clone(),
        None if in_memory => backend,
        None => Arc::new(Retry::new(config.options.retry, backend)),
    };
    if is_batched(&layered.capabilities(), &config.options) {
        layered = Arc::new(Coalesce::database(&config.options.batching, layered));
    }
    let observed: Arc<dyn DatabaseBackend> = Arc::new(Observe::new(Side::Database, layered));
    let prefix = KeyPrefix::parse(&config.options.key_prefix)?;
    let backend = if prefix.is_empty() { observed } else { Arc::new(Prefix::new(prefix, observed)) };
    let connected = connect(Side::Database, Handle::new(backend), &config.options, chain.is_some()).await;
    if let (Err(_), Some(chain)) = (&connected, &chain) {
        chain.stop();
    }
    Ok(OpenDatabase { handle: connected?, chain })
}

/// Opens what stands behind a database, if something does, with the retries below it.
async fn database_chain(
    primary: &Arc<dyn DatabaseBackend>,
    config: &DatabaseConfig,
) -> Result<Option<Arc<DatabaseChain>>> {
    let Some(fallback) = config.effective_fallback() else {
        #[cfg(feature = "sqlite")]
        warn_of_debts(config).await;
        return Ok(None);
    };
    if !primary.capabilities().replay {
        if matches!(config.fallback, Fallback::To(_)) {
            tracing::warn!("the fallback is not in force, because this database cannot replay a journal");
        }
        return Ok(None);
    }
    if fallback == DatabaseFallback::Sqlite && matches!(config.fallback, Fallback::Default) && !cfg!(feature = "sqlite")
    {
        tracing::warn!("nothing stands behind the database: the journal needs the feature `sqlite`");
        return Ok(None);
    }
    let mut options = ChainOptions::new(config.options.timeout);
    options.fingerprint = config.backend.address();
    let retried = Retry::new(config.options.retry, Arc::clone(primary)).leaving_outages();
    let opened = DatabaseChain::open(Arc::new(retried), fallback, &config.chain, options).await?;
    Ok(Some(Arc::new(opened)))
}

/// Says so where a journal holds what the database is owed, and nothing will bring it there, because the fallback was taken out.
#[cfg(feature = "sqlite")]
async fn warn_of_debts(config: &DatabaseConfig) {
    let folder = &config.chain.journal.path;
    let Some(address) = config.backend.address() else { return };
    let journals = JournalFile::list(folder).await.unwrap_or_default();
    let contents = journals.iter().filter_map(|journal| journal.contents.as_ref().ok());
    let owed = contents.filter(|contents| contents.owed_to.as_deref() == Some(&address));
    let operations: u64 = owed.map(|contents| contents.pending + contents.parked).sum();
    if operations > 0 {
        tracing::warn!(
            operations,
            folder = %folder.display(),
            "the database is owed what a journal holds, and without a fallback nothing brings it there; set `fallback` again until it has"
        );
    }
}

/// Whether calls share round trips: where there are round trips, or commits, to share.
fn is_batched(capabilities: &Capabilities, options: &SideOptions) -> bool {
    options.batching.enabled && capabilities.durability != Durability::Volatile
}

/// Proves that the store can be used. One that is only away for now is a degraded start, unless it is required.
/// Where something stands in for it, that has said so already.
async fn connect<B: HandleBackend + ?Sized>(
    side: Side,
    handle: Handle<B>,
    options: &SideOptions,
    is_chained: bool,
) -> Result<Handle<B>> {
    let handle = handle.with_timeout(options.timeout);
    let Err(error) = handle.ping().await else { return Ok(handle) };
    if error.is_transient() && !options.required {
        if !is_chained {
            tracing::warn!(
                side = side.as_str(),
                %error,
                "the store cannot be reached yet; calls are unavailable until it is there"
            );
        }
        return Ok(handle);
    }
    Err(error)
}

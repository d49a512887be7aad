//! The whole: [`StorageConfig`], with one cache and one database.

use super::jetstream::JetstreamConfig;
use super::memory::{MemoryCacheConfig, MemoryDatabaseConfig};
use super::postgres::PostgresConfig;
use super::redis::RedisConfig;
use super::side::{Fallback, SideOptions};
use super::sqlite::SqliteConfig;

/// Which cache and which database an application gets.
///
/// The default is a memory cache and a memory database: nothing to install, nothing kept.
///
/// # Examples
///
/// ```
/// use agent_storage::config::{DatabaseBackendConfig, SqliteConfig, StorageConfig};
///
/// let mut config = StorageConfig::default();
/// config.database.backend = DatabaseBackendConfig::Sqlite(SqliteConfig::at("agent.db"));
/// assert_eq!(config.database.backend.kind(), "sqlite");
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StorageConfig {
    /// The cache: may forget, must be fast.
    pub cache: CacheConfig,
    /// The database: must not forget.
    pub database: DatabaseConfig,
}

/// One cache: its backend, and what is common to all backends.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CacheConfig {
    /// The store that holds the entries.
    pub backend: CacheBackendConfig,
    /// What every backend understands.
    pub options: SideOptions,
    /// What serves while the backend is away.
    pub fallback: Fallback<CacheBackendConfig>,
}

impl CacheConfig {
    /// Makes a cache on a backend, everything else as by default.
    #[must_use]
    pub fn new(backend: CacheBackendConfig) -> Self {
        Self { backend, ..Self::default() }
    }
}

/// One database: its backend, and what is common to all backends.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// The store that holds the entries and lists.
    pub backend: DatabaseBackendConfig,
    /// What every backend understands.
    pub options: SideOptions,
    /// What stands behind the backend while it is away.
    pub fallback: Fallback<DatabaseBackendConfig>,
}

impl DatabaseConfig {
    /// Makes a database on a backend, everything else as by default.
    #[must_use]
    pub fn new(backend: DatabaseBackendConfig) -> Self {
        Self { backend, ..Self::default() }
    }
}

/// The store behind a cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CacheBackendConfig {
    /// `type: in-memory`: this process's memory.
    Memory(MemoryCacheConfig),
    /// `type: redis`: a Redis or Valkey server.
    Redis(RedisConfig),
    /// `type: jetstream`: a NATS JetStream key-value bucket.
    Jetstream(JetstreamConfig),
}

impl CacheBackendConfig {
    /// The backend's name, as `type` takes it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "in-memory",
            Self::Redis(_) => "redis",
            Self::Jetstream(_) => "jetstream",
        }
    }
}

impl Default for CacheBackendConfig {
    fn default() -> Self {
        Self::Memory(MemoryCacheConfig::default())
    }
}

/// The store behind a database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DatabaseBackendConfig {
    /// `type: in-memory`: this process's memory; everything is gone when it ends.
    Memory(MemoryDatabaseConfig),
    /// `type: sqlite`: a file on this machine.
    Sqlite(SqliteConfig),
    /// `type: postgres`: a PostgreSQL server.
    Postgres(PostgresConfig),
}

impl DatabaseBackendConfig {
    /// The backend's name, as `type` takes it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "in-memory",
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}

impl Default for DatabaseBackendConfig {
    fn default() -> Self {
        Self::Memory(MemoryDatabaseConfig::default())
    }
}

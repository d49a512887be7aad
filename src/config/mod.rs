//! The `storage:` section of an `agent.yml` as plain, validated data.
//!
//! [`StorageConfig`] says which cache and which database an application gets. It is made from a file, from text, or by
//! hand: every part has a `Default` and public fields. This module is compiled whatever the features, and knows no
//! backend: a backend reads its part of the data, never the file.
//!
//! Secrets are kept as [`SecretString`](secrecy::SecretString), so that no `Debug` shows them.

mod batching;
mod chain;
mod environment;
mod error;
mod jetstream;
mod memory;
mod postgres;
mod read;
mod redis;
mod rules;
mod side;
mod sqlite;
mod storage;
mod tls;

pub use batching::BatchingConfig;
pub use chain::{
    BreakerConfig, CacheChainConfig, CacheFallback, Conflicts, DatabaseChainConfig, DatabaseFallback, Fallback,
    JournalConfig, MinDurability, OutageReads,
};
pub use environment::Environment;
pub use error::{ConfigError, Problem};
pub use jetstream::{JetstreamConfig, NatsAuth, NatsServer, Placement, ReadFrom, StreamStorage};
pub use memory::{MemoryCacheConfig, MemoryDatabaseConfig};
pub use postgres::{PoolConfig, PostgresConfig, PostgresTls, TlsMode};
pub use redis::RedisConfig;
pub use side::{RetryConfig, SideOptions};
pub use sqlite::{SqliteConfig, Synchronous};
pub use storage::{CacheBackendConfig, CacheConfig, DatabaseBackendConfig, DatabaseConfig, StorageConfig};
pub use tls::{Tls, TlsFiles};

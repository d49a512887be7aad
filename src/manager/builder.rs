//! The [`StorageManagerBuilder`].

use std::sync::Arc;

use crate::config::StorageConfig;
use crate::contract::{CacheBackend, DatabaseBackend};

use super::storage::StorageManager;

/// Builds a [`StorageManager`] from a configuration, or from backends of your own, or a mixture.
///
/// # Examples
///
/// ```
/// use agent_storage::StorageManager;
/// use agent_storage::backend::memory::MemoryDatabase;
/// use agent_storage::config::MemoryDatabaseConfig;
///
/// let manager = StorageManager::builder().database(MemoryDatabase::new(&MemoryDatabaseConfig::default())).build();
/// # let _ = manager;
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it builds"]
pub struct StorageManagerBuilder {
    config: StorageConfig,
    cache: Option<Arc<dyn CacheBackend>>,
    database: Option<Arc<dyn DatabaseBackend>>,
}

impl StorageManagerBuilder {
    /// Sets the configuration; by default memory on both sides.
    pub fn config(mut self, config: StorageConfig) -> Self {
        self.config = config;
        self
    }

    /// Uses this backend for the cache, whatever type the configuration names. Prefix, retries and timeout still come from the
    /// configuration. The manager closes it.
    pub fn cache(self, backend: impl CacheBackend) -> Self {
        self.shared_cache(Arc::new(backend))
    }

    /// As [`StorageManagerBuilder::cache`], for a backend that is shared already.
    pub fn shared_cache(mut self, backend: Arc<dyn CacheBackend>) -> Self {
        self.cache = Some(backend);
        self
    }

    /// Uses this backend for the database, whatever type the configuration names. Prefix, retries and timeout still come from the
    /// configuration. The manager closes it.
    pub fn database(self, backend: impl DatabaseBackend) -> Self {
        self.shared_database(Arc::new(backend))
    }

    /// As [`StorageManagerBuilder::database`], for a backend that is shared already.
    pub fn shared_database(mut self, backend: Arc<dyn DatabaseBackend>) -> Self {
        self.database = Some(backend);
        self
    }

    /// Makes the manager. It connects nothing.
    #[must_use]
    pub fn build(self) -> StorageManager {
        StorageManager::assemble(self.config, self.cache, self.database)
    }
}

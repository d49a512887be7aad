//! The stores in this process's memory: [`MemoryCacheConfig`] and [`MemoryDatabaseConfig`].

use validator::Validate;

/// A cache in memory, bounded by bytes and by entries: it evicts, and never grows without end.
#[derive(Clone, Debug, Validate)]
#[non_exhaustive]
pub struct MemoryCacheConfig {
    /// The bytes that keys and values may take together. 64 MiB by default.
    #[validate(range(min = 1, message = "must be at least 1"))]
    pub max_bytes: u64,
    /// The number of entries it may hold. 100 000 by default.
    #[validate(range(min = 1, message = "must be at least 1"))]
    pub max_entries: u64,
}

impl Default for MemoryCacheConfig {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024 * 1024, max_entries: 100_000 }
    }
}

/// A database in memory: unbounded, and gone when the process ends.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MemoryDatabaseConfig {}

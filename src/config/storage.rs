//! The whole: [`StorageConfig`], with one cache and one database.

use std::path::Path;

use validator::Validate;

use super::chain::{CacheChainConfig, CacheFallback, DatabaseChainConfig, DatabaseFallback, Fallback};
use super::environment::Environment;
use super::error::{ConfigError, Problem};
use super::jetstream::JetstreamConfig;
use super::memory::{MemoryCacheConfig, MemoryDatabaseConfig};
use super::postgres::PostgresConfig;
use super::read;
use super::redis::RedisConfig;
use super::rules;
use super::side::SideOptions;
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
#[derive(Clone, Debug, Default, Validate)]
#[non_exhaustive]
pub struct StorageConfig {
    /// The cache: may forget, must be fast.
    #[validate(nested)]
    pub cache: CacheConfig,
    /// The database: must not forget.
    #[validate(nested)]
    pub database: DatabaseConfig,
    pub(super) warnings: Vec<Problem>,
    pub(super) places: SidePlaces,
}

/// Where the sides stand in the file: problems that say nothing yet.
#[derive(Clone, Debug)]
pub(super) struct SidePlaces {
    pub(super) cache: Problem,
    pub(super) database: Problem,
}

impl Default for SidePlaces {
    fn default() -> Self {
        let place = |path: &str| Problem {
            file: String::new(),
            line: 0,
            column: 0,
            path: path.to_owned(),
            message: String::new(),
        };
        Self { cache: place("storage.cache"), database: place("storage.database") }
    }
}

impl StorageConfig {
    /// Reads the `storage:` section of a file, with the variables of this process.
    ///
    /// A file without the section, or an empty one, gives the default. The file is at most 1 MiB; relative paths in it
    /// begin at its folder. It is read at once, without waiting for anything but the disk.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file, in one [`ConfigError`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_file_with(path, &Environment::process())
    }

    /// Reads a file as [`StorageConfig::from_file`] does, with variables of the caller's.
    ///
    /// # Errors
    ///
    /// As [`StorageConfig::from_file`].
    pub fn from_file_with(path: impl AsRef<Path>, environment: &Environment) -> Result<Self, ConfigError> {
        read::from_file(path.as_ref(), environment)
    }

    /// Reads text as if it stood in a file of the given name, which need not exist: messages name it, and relative paths
    /// begin at its folder.
    ///
    /// # Errors
    ///
    /// As [`StorageConfig::from_file`].
    ///
    /// # Examples
    ///
    /// ```
    /// use agent_storage::config::StorageConfig;
    ///
    /// let error = StorageConfig::from_yaml("storage:\n  cache:\n    type: reddis\n", "agent.yml").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "agent.yml:3:11: storage.cache.type: is not a known type; did you mean `redis`?"
    /// );
    /// ```
    pub fn from_yaml(yaml: &str, name: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_yaml_with(yaml, name, &Environment::process())
    }

    /// Reads text as [`StorageConfig::from_yaml`] does, with variables of the caller's.
    ///
    /// # Errors
    ///
    /// As [`StorageConfig::from_file`].
    pub fn from_yaml_with(yaml: &str, name: impl AsRef<Path>, environment: &Environment) -> Result<Self, ConfigError> {
        read::from_yaml(yaml, name.as_ref(), environment)
    }

    /// What loaded, but is not as it seems: keys without effect, sections that are not served, encryption that checks
    /// nothing.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Makes a problem of the cache at its place in the file, for what shows only when it is used: a server that is away, a
    /// refused password. The message must hold no secret.
    #[must_use]
    pub fn cache_problem(&self, message: impl Into<String>) -> Problem {
        Problem { message: message.into(), ..self.places.cache.clone() }
    }

    /// Makes a problem of the database at its place in the file, as [`StorageConfig::cache_problem`] does of the cache.
    #[must_use]
    pub fn database_problem(&self, message: impl Into<String>) -> Problem {
        Problem { message: message.into(), ..self.places.database.clone() }
    }

    /// Checks a configuration that was made or changed by hand; one that was read has been checked.
    ///
    /// # Errors
    ///
    /// Every rule that is broken, with the path that the value would have in a file.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems = read::problems(self);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::new(problems)) }
    }

    /// The JSON Schema (draft 7) of an `agent.yml`, for editors: closed inside `storage`, open beside it.
    #[must_use]
    pub fn json_schema() -> serde_json::Value {
        read::json_schema()
    }
}

/// One cache: its backend, and what is common to all backends.
#[derive(Clone, Debug, Default, Validate)]
#[non_exhaustive]
pub struct CacheConfig {
    /// The store that holds the entries.
    #[validate(nested)]
    pub backend: CacheBackendConfig,
    /// What every backend understands.
    #[validate(nested)]
    pub options: SideOptions,
    /// What serves while the backend is away.
    #[validate(nested)]
    pub fallback: Fallback<CacheFallback>,
    /// How a fallback is used.
    #[validate(nested)]
    pub chain: CacheChainConfig,
}

impl CacheConfig {
    /// Makes a cache on a backend, everything else as by default.
    #[must_use]
    pub fn new(backend: CacheBackendConfig) -> Self {
        Self { backend, ..Self::default() }
    }

    /// What stands behind the backend: what was asked for, or memory behind Redis and JetStream, and nothing behind memory.
    #[must_use]
    pub fn effective_fallback(&self) -> Option<CacheFallback> {
        match (&self.fallback, &self.backend) {
            (Fallback::To(fallback), _) => Some(fallback.clone()),
            (Fallback::None, _) | (Fallback::Default, CacheBackendConfig::Memory(_)) => None,
            (Fallback::Default, CacheBackendConfig::Redis(_) | CacheBackendConfig::Jetstream(_)) => {
                Some(CacheFallback::Memory(MemoryCacheConfig::default()))
            }
        }
    }
}

/// One database: its backend, and what is common to all backends.
#[derive(Clone, Debug, Default, Validate)]
#[validate(schema(function = "rules::database", skip_on_field_errors = false))]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// The store that holds the entries and lists.
    #[validate(nested)]
    pub backend: DatabaseBackendConfig,
    /// What every backend understands.
    #[validate(nested)]
    pub options: SideOptions,
    /// What stands behind the backend while it is away.
    pub fallback: Fallback<DatabaseFallback>,
    /// What is promised while it is away.
    #[validate(nested)]
    pub chain: DatabaseChainConfig,
}

impl DatabaseConfig {
    /// Makes a database on a backend, everything else as by default.
    #[must_use]
    pub fn new(backend: DatabaseBackendConfig) -> Self {
        Self { backend, ..Self::default() }
    }

    /// What is to stand behind the backend: what was asked for, or a journal on disk behind PostgreSQL, and nothing behind SQLite and
    /// memory.
    #[must_use]
    pub const fn effective_fallback(&self) -> Option<DatabaseFallback> {
        match (&self.fallback, &self.backend) {
            (Fallback::To(fallback), _) => Some(*fallback),
            (Fallback::Default, DatabaseBackendConfig::Postgres(_)) => Some(DatabaseFallback::Sqlite),
            (Fallback::None | Fallback::Default, _) => None,
        }
    }

    /// The backend as it is to be opened: where there is a fallback, its tombstones are kept for at least twice as long as an
    /// operation may wait in the journal, so that one which comes late does not bring back what was deleted meanwhile.
    #[must_use]
    pub fn effective_backend(&self) -> DatabaseBackendConfig {
        let mut backend = self.backend.clone();
        if self.effective_fallback().is_some() {
            let least = self.chain.journal.max_age.saturating_mul(2);
            match &mut backend {
                DatabaseBackendConfig::Memory(_) => {}
                DatabaseBackendConfig::Sqlite(config) => {
                    config.tombstone_retention = config.tombstone_retention.max(least);
                }
                DatabaseBackendConfig::Postgres(config) => {
                    config.tombstone_retention = config.tombstone_retention.max(least);
                }
            }
        }
        backend
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

impl CacheBackendConfig {
    /// Where the cache is, without user and password; `None` for one in memory, which is new with each process.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(config) => Some(format!("redis {}:{} {}", config.host, config.port, config.database)),
            Self::Jetstream(config) => {
                let servers = config.servers.iter().map(|server| format!("{}:{}", server.host, server.port));
                Some(format!("jetstream {} {:?}", servers.collect::<Vec<_>>().join(","), config.bucket))
            }
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
#[expect(clippy::large_enum_variant, reason = "there are one or two in a process, made at its start")]
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

    /// Where the database is, without user and password; `None` for one in memory, which is new with each process.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        match self {
            Self::Memory(_) => None,
            Self::Sqlite(config) => Some(format!("sqlite {}", config.path.display())),
            Self::Postgres(config) => {
                let PostgresConfig { host, port, database, schema, .. } = config;
                let socket = config.socket_dir.as_ref().map(|folder| folder.display().to_string());
                let host = socket.as_ref().unwrap_or(host);
                Some(format!("postgres {host}:{port} {database:?} {schema:?}"))
            }
        }
    }
}

impl Default for DatabaseBackendConfig {
    fn default() -> Self {
        Self::Memory(MemoryDatabaseConfig::default())
    }
}

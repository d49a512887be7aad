//! The [`StorageManager`].

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::chain::{ChainStatus, DatabaseChain};
use crate::config::{Problem, SideOptions, StorageConfig};
use crate::contract::{CacheBackend, Context, DatabaseBackend, Store};
use crate::error::{Error, Result};
use crate::handle::{Cache, Database, Handle, HandleBackend};
use crate::layer::Side;

use super::builder::StorageManagerBuilder;
use super::health::{Health, MemberHealth, SideHealth};
use super::open::{self, OpenCache, OpenDatabase, Origin};
use super::slot::Slot;

/// Both handles of a connected storage.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StorageBackends {
    /// The cache.
    pub cache: Cache,
    /// The database.
    pub database: Database,
}

/// From a configuration to a cache and a database, each built when it is first asked for.
///
/// Making a manager connects nothing. The handles are cheap to clone and work until [`StorageManager::disconnect`].
///
/// # Examples
///
/// ```
/// use agent_storage::StorageManager;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let manager = StorageManager::in_memory();
/// let database = manager.database().await?;
/// database.append_json("messages:42", &"hello").await?;
/// manager.disconnect().await?;
/// # Ok::<(), agent_storage::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct StorageManager {
    config: Arc<StorageConfig>,
    own_cache: Option<Arc<dyn CacheBackend>>,
    own_database: Option<Arc<dyn DatabaseBackend>>,
    cache: Slot<OpenCache>,
    database: Slot<OpenDatabase>,
}

impl StorageManager {
    /// Makes a manager of the `storage:` section of a file. It validates the section and connects nothing.
    ///
    /// Without a section, cache and database are in memory. Each warning about the file is logged, and stays readable through
    /// [`StorageManager::warnings`]. The file is read at once, without waiting for anything but the disk.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with everything that is wrong with the file, one problem a line; else as
    /// [`StorageManager::validate_config`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use agent_storage::StorageManager;
    ///
    /// let manager = StorageManager::from_file("agent.yml")?;
    /// # let _ = manager;
    /// # Ok::<(), agent_storage::Error>(())
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_read(StorageConfig::from_file(path)?)
    }

    /// As [`StorageManager::from_file`], for text that stands nowhere. Messages call it `agent.yml`; relative paths begin at the
    /// current folder. [`StorageConfig::from_yaml`] takes another name and folder.
    ///
    /// # Errors
    ///
    /// As [`StorageManager::from_file`].
    ///
    /// # Examples
    ///
    /// ```
    /// use agent_storage::StorageManager;
    ///
    /// let manager = StorageManager::from_yaml("storage: { cache: { type: in-memory } }")?;
    /// assert!(manager.warnings().is_empty());
    /// # Ok::<(), agent_storage::Error>(())
    /// ```
    pub fn from_yaml(yaml: &str) -> Result<Self> {
        Self::of_read(StorageConfig::from_yaml(yaml, "agent.yml")?)
    }

    fn of_read(config: StorageConfig) -> Result<Self> {
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let manager = Self::new(config);
        manager.validate_config()?;
        Ok(manager)
    }

    /// Makes a manager of a configuration.
    #[must_use]
    pub fn new(config: StorageConfig) -> Self {
        Self::builder().config(config).build()
    }

    /// Makes a manager whose cache and database are in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(StorageConfig::default())
    }

    /// Builds a manager from a configuration or backends of your own.
    pub fn builder() -> StorageManagerBuilder {
        StorageManagerBuilder::default()
    }

    pub(super) fn assemble(
        config: StorageConfig,
        own_cache: Option<Arc<dyn CacheBackend>>,
        own_database: Option<Arc<dyn DatabaseBackend>>,
    ) -> Self {
        Self { config: Arc::new(config), own_cache, own_database, cache: Slot::default(), database: Slot::default() }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &StorageConfig {
        &self.config
    }

    /// What the configuration file says that is not as it seems: keys without effect, sections that are not served, encryption
    /// that checks nothing. Empty for a configuration made by hand.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        self.config.warnings()
    }

    /// Checks, without connecting, that the configuration can be served: its values are valid and make sense together, and its
    /// backends are compiled in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FeatureDisabled`](crate::ErrorKind::FeatureDisabled) names the line to run;
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) says what is wrong.
    pub fn validate_config(&self) -> Result<()> {
        self.config.validate()?;
        if self.own_cache.is_none()
            && let Err(error) = open::cache_backend(&self.config.cache.backend)
        {
            return Err(at(&self.config.cache_problem(error.message()), &error));
        }
        if self.own_database.is_none()
            && let Err(error) = open::database_backend(&self.config.database.backend)
        {
            return Err(at(&self.config.database_problem(error.message()), &error));
        }
        Ok(())
    }

    /// The cache. The first call builds and connects it; those who call meanwhile share the attempt.
    ///
    /// A server that cannot be reached yet is no error, unless the configuration says `required: true`: the handle is there, and
    /// its calls are unavailable until the server is, or answered by the memory that stands in for it.
    ///
    /// # Errors
    ///
    /// As [`StorageManager::validate_config`]; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) where waiting cannot help,
    /// as with a wrong password. The next call tries again.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point; the next caller goes on with the attempt.
    pub async fn cache(&self) -> Result<Cache> {
        Ok(self.open_cache().await?.handle)
    }

    /// How the cache's chain is: whether the primary is there, and how much is to be deleted there. `None` if nothing stands in for the
    /// cache, or it was not used yet.
    #[must_use]
    pub fn cache_chain(&self) -> Option<ChainStatus> {
        Some(self.cache.ready()?.chain?.status())
    }

    /// Tells each change of the state of the cache's chain; `None` if nothing stands in for the cache. It builds a cache that was not
    /// used yet.
    ///
    /// # Errors
    ///
    /// As [`StorageManager::cache`].
    ///
    /// # Cancel safety
    ///
    /// As [`StorageManager::cache`].
    pub async fn watch_cache_chain(&self) -> Result<Option<watch::Receiver<ChainStatus>>> {
        Ok(self.open_cache().await?.chain.map(|chain| chain.watch()))
    }

    async fn open_cache(&self) -> Result<OpenCache> {
        let build = || {
            let (config, own) = (Arc::clone(&self.config), self.own_cache.clone());
            async move {
                if let Some(own) = own {
                    return open::cache(own, Origin::Own, &config.cache).await;
                }
                let backend = open::cache_backend(&config.cache.backend)?;
                let opened = open::cache(Arc::clone(&backend), Origin::Configured, &config.cache).await;
                or_close(opened, &*backend, &config.cache.options).await
            }
        };
        self.cache.get_or_build(build).await
    }

    /// The database. The first call builds and connects it; those who call meanwhile share the attempt.
    ///
    /// # Errors
    ///
    /// As [`StorageManager::cache`].
    ///
    /// # Cancel safety
    ///
    /// As [`StorageManager::cache`].
    pub async fn database(&self) -> Result<Database> {
        Ok(self.open_database().await?.handle)
    }

    /// How the database's chain is: whether the primary is there, and what it is owed. `None` if nothing stands behind the database,
    /// or it was not used yet.
    #[must_use]
    pub fn database_chain(&self) -> Option<ChainStatus> {
        Some(self.database.ready()?.chain?.status())
    }

    /// Tells each change of the state of the database's chain; `None` if nothing stands behind the database. It builds a database
    /// that was not used yet.
    ///
    /// # Errors
    ///
    /// As [`StorageManager::database`].
    ///
    /// # Cancel safety
    ///
    /// As [`StorageManager::database`].
    pub async fn watch_database_chain(&self) -> Result<Option<watch::Receiver<ChainStatus>>> {
        Ok(self.open_database().await?.chain.map(|chain| chain.watch()))
    }

    /// The database's chain itself, to steer it; `None` if nothing stands behind the database. It builds a database that was not used
    /// yet.
    ///
    /// # Errors
    ///
    /// As [`StorageManager::database`].
    ///
    /// # Cancel safety
    ///
    /// As [`StorageManager::database`].
    pub async fn open_database_chain(&self) -> Result<Option<Arc<DatabaseChain>>> {
        Ok(self.open_database().await?.chain)
    }

    async fn open_database(&self) -> Result<OpenDatabase> {
        let build = || {
            let (config, own) = (Arc::clone(&self.config), self.own_database.clone());
            async move {
                if let Some(own) = own {
                    return open::database(own, Origin::Own, &config.database).await;
                }
                let backend = open::database_backend(&config.database.effective_backend())?;
                let opened = open::database(Arc::clone(&backend), Origin::Configured, &config.database).await;
                or_close(opened, &*backend, &config.database.options).await
            }
        };
        self.database.get_or_build(build).await
    }

    /// Builds and connects both sides.
    ///
    /// # Errors
    ///
    /// As [`StorageManager::cache`]; the side that could be connected stays so.
    ///
    /// # Cancel safety
    ///
    /// As [`StorageManager::cache`].
    pub async fn connect(&self) -> Result<StorageBackends> {
        let (cache, database) = tokio::join!(self.cache(), self.database());
        Ok(StorageBackends { cache: cache?, database: database? })
    }

    /// Whether both sides have been built and not been disconnected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.cache.ready().is_some() && self.database.ready().is_some()
    }

    /// Closes both sides, each even if the other fails, waiting for what is in flight. Handles that were given out are closed
    /// with them. The manager can connect again, unless the backend was injected.
    ///
    /// # Errors
    ///
    /// The cache's error, or else the database's, if closing one did not end in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves what was not yet closed to close itself.
    pub async fn disconnect(&self) -> Result<()> {
        let close_cache = async {
            let cache = self.cache.take().await.map(|open| open.handle);
            close(cache, &self.config.cache.options).await
        };
        let close_database = async {
            let database = self.database.take().await.map(|open| open.handle);
            close(database, &self.config.database.options).await
        };
        let (cache, database) = tokio::join!(close_cache, close_database);
        if let (Err(_), Err(error)) = (&cache, &database) {
            tracing::warn!(%error, "the database could not be closed either");
        }
        cache.and(database)
    }

    /// Asks both sides how they are, by writing to them, within each side's timeout even if a server hangs. It builds a side
    /// that was not used yet.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn health_check(&self) -> Health {
        let StorageConfig { cache, database, .. } = &*self.config;
        let (cache, database) = tokio::join!(
            member_health(self.cache(), cache.backend.kind(), &cache.options),
            member_health(self.database(), database.backend.kind(), &database.options),
        );
        Health {
            cache: SideHealth::of(Side::Cache, cache, self.cache_chain()),
            database: SideHealth::of(Side::Database, database, self.database_chain()),
        }
    }
}

/// How the store of a side is, known within the side's timeout.
async fn member_health<B: HandleBackend + ?Sized>(
    built: impl Future<Output = Result<Handle<B>>> + Send,
    kind: &'static str,
    options: &SideOptions,
) -> MemberHealth {
    let cx = Context::with_timeout(options.timeout);
    match cx.limit(built).await {
        Some(Ok(handle)) => MemberHealth::ask(&**handle.backend(), &cx).await,
        Some(Err(error)) => MemberHealth::failed(kind, error),
        None => MemberHealth::failed(kind, Error::unavailable("the store did not answer within the side's timeout")),
    }
}

/// The error of a side with its place in the file.
fn at(problem: &Problem, error: &Error) -> Error {
    Error::new(error.kind(), problem.to_string()).with_source(error.clone())
}

/// Closes what a failed attempt made; the attempt's own error is the one to tell.
async fn or_close<T: Send, B: Store + ?Sized>(opened: Result<T>, backend: &B, options: &SideOptions) -> Result<T> {
    if opened.is_err() {
        let _ = backend.close(&Context::with_timeout(options.timeout)).await;
    }
    opened
}

async fn close<B: HandleBackend + ?Sized>(handle: Option<Handle<B>>, options: &SideOptions) -> Result<()> {
    match handle {
        Some(handle) => handle.backend().close(&Context::with_timeout(options.timeout)).await,
        None => Ok(()),
    }
}

//! The [`Cache`] handle.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::contract::{
    CacheBackend, Expiry, GetOptions, IncrementOptions, Lookup, Write, WriteAck, WriteMode, WriteOp,
};
use crate::error::Result;
use crate::key::{IntoKey, Key};
use crate::time::{Clock, Ttl};
use crate::value::Value;

use super::base::Handle;
use super::load::{FillPermit, Loads};
use super::read::VALUE_ONLY;

/// A handle to a cache.
///
/// # Examples
///
/// ```
/// # use agent_storage::StorageManager;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = StorageManager::in_memory().cache().await?;
/// cache.set_json("session:42", &"hello").await?;
/// assert_eq!(cache.get_json::<String>("session:42").await?.as_deref(), Some("hello"));
/// # Ok::<(), agent_storage::Error>(()) }).unwrap();
/// ```
pub type Cache = Handle<dyn CacheBackend>;

/// How long an entry still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToLive {
    /// There is no entry.
    Missing,
    /// The entry stays until it is deleted.
    Forever,
    /// The entry lives this long, by the clock of this machine.
    Left(Duration),
}

/// # Errors
///
/// As the methods common to all handles; `increment` also as
/// [`CacheBackend::increment`](crate::contract::CacheBackend::increment).
impl Cache {
    /// Reads a value, or loads and keeps it: however many ask for a key at once in a runtime, the loader runs once.
    ///
    /// The loader runs to its end though its first caller goes away. A write or delete of the key through this handle or a clone
    /// of it, while the loader runs, wins over the loaded value. The handle's timeout counts for the store's calls, not for the
    /// loader. If the cache cannot be used, the loader still runs and its value is answered, but not kept.
    ///
    /// # Errors
    ///
    /// The loader's error, for every caller that waited for it; make one of your own with
    /// [`Error::callback`](crate::Error::callback). [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the loader panicked.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point; the loader goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::{StorageManager, Ttl, Value};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = StorageManager::in_memory().cache().await?;
    /// let hour = Some(Ttl::from_secs(3600)?);
    /// let value = cache.get_or_load("weather", hour, || async { Value::json(r#""sunny""#) }).await?;
    /// assert_eq!(value.as_bytes(), br#""sunny""#);
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    #[doc(alias = "get_with")]
    pub async fn get_or_load<L, F>(&self, key: impl IntoKey, ttl: Option<Ttl>, loader: L) -> Result<Value>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Value>> + Send + 'static,
    {
        let key = key.into_key()?;
        let full_key = self.namespace.join(&key)?;
        match self.lookup_with(&key, VALUE_ONLY).await {
            Ok(Lookup::Found(entry)) => return Ok(entry.value),
            Ok(Lookup::Missing { .. }) => {}
            Err(error) => tracing::debug!(%error, "the cache could not be read, so the value is loaded"),
        }
        let cache = self.clone();
        let work = move |permit: FillPermit| async move {
            let loaded = loader().await?;
            match permit.fill(cache.fill(&key, loaded.clone(), ttl)).await {
                Some(true) => Ok(loaded),
                Some(false) | None => Ok(cache.get(&key).await.ok().flatten().unwrap_or(loaded)),
            }
        };
        Loads::join(&self.shared, full_key, work).await
    }

    /// As [`Cache::get_or_load`], for a JSON value of a type.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_load`], and [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if the value is not of that type.
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::get_or_load`].
    pub async fn get_or_load_json<T, L, F>(&self, key: impl IntoKey, ttl: Option<Ttl>, loader: L) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Send,
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let load = || async { Value::from_json(&loader().await?) };
        self.get_or_load(key, ttl, load).await?.decode()
    }

    /// Adds to a counter in one atomic step and answers its new value. A missing counter begins at 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if the value is not an integer;
    /// [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) if the sum would leave the range of `i64`.
    ///
    /// # Cancel safety
    ///
    /// As a write.
    #[doc(alias = "incr")]
    pub async fn increment(&self, key: impl IntoKey, by: i64) -> Result<i64> {
        self.increment_with(key, by, IncrementOptions::default()).await
    }

    /// As [`Cache::increment`], with a TTL for a counter that this call creates.
    ///
    /// # Errors
    ///
    /// As [`Cache::increment`].
    ///
    /// # Cancel safety
    ///
    /// As a write.
    pub async fn increment_with(&self, key: impl IntoKey, by: i64, options: IncrementOptions) -> Result<i64> {
        let key = key.into_key()?;
        let cx = self.context();
        self.shared.loads.overrule(&self.namespace, &key, &cx).await?;
        self.backend.increment(&key, by, &options, &cx).await
    }

    /// Says how long an entry still lives.
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    #[doc(alias = "pttl")]
    pub async fn ttl(&self, key: impl IntoKey) -> Result<TimeToLive> {
        let lookup = self.lookup_with(key, GetOptions::default().with_expiry()).await?;
        Ok(match lookup.into_entry().map(|entry| entry.expiry) {
            None => TimeToLive::Missing,
            Some(Expiry::At(at)) => TimeToLive::Left(at.since(Clock::system().now())),
            Some(Expiry::Never | Expiry::NotAsked) => TimeToLive::Forever,
        })
    }

    /// Sets or clears the TTL of an entry that is there; [`WriteAck::existed`] says whether there was one.
    ///
    /// # Errors
    ///
    /// As a write.
    ///
    /// # Cancel safety
    ///
    /// As a write.
    #[doc(alias = "expire")]
    pub async fn touch(&self, key: impl IntoKey, ttl: Option<Ttl>) -> Result<WriteAck> {
        let cx = self.context();
        self.send(key.into_key()?, WriteOp::Touch { ttl }, &cx).await
    }

    /// Writes a loaded value if the key is still empty. A cache that cannot be written to is no reason to fail the load.
    async fn fill(&self, key: &Key, value: Value, ttl: Option<Ttl>) -> bool {
        let op = WriteOp::Put { value, mode: WriteMode::Create, ttl };
        match self.backend.write(Write::new(key.clone(), op, self.stamp()), &self.context()).await {
            Ok(_) => true,
            Err(error) if error.is_conflict() => false,
            Err(error) => {
                tracing::debug!(%error, "a loaded value could not be kept");
                true
            }
        }
    }
}

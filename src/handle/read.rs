//! Reading values and keys through a handle.

use serde::de::DeserializeOwned;

use crate::contract::{GetOptions, KeyPage, ListOptions, Lookup};
use crate::error::{Error, Result};
use crate::key::{IntoKey, Key, KeyPattern, KeyPrefix};
use crate::layer::answer_each;
use crate::value::Value;

use super::base::{Handle, HandleBackend};
use super::keys::KeyStream;

/// What a read asks for that tells its caller the value alone.
pub(super) const VALUE_ONLY: GetOptions = GetOptions { expiry: false, without_revision: true };

/// # Errors
///
/// Every method: [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if a key, prefix or pattern is not one,
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the answer cannot be known now,
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the record cannot be read back, [`ErrorKind::Closed`](crate::ErrorKind::Closed)
/// after the store was closed.
///
/// # Cancel safety
///
/// Reads may be dropped at any point.
impl<B: HandleBackend + ?Sized> Handle<B> {
    /// Reads a value; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As above; it never answers `None` where the store cannot know.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::StorageManager;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let database = StorageManager::in_memory().database().await?;
    /// assert!(database.get("session:42").await?.is_none());
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    pub async fn get(&self, key: impl IntoKey) -> Result<Option<Value>> {
        let lookup = self.backend.get(&key.into_key()?, &VALUE_ONLY, &self.context()).await?;
        Ok(lookup.into_value())
    }

    /// Reads a JSON value into a type; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As above, and [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if the value is not of that type.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::StorageManager;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let database = StorageManager::in_memory().database().await?;
    /// database.set_json("numbers", &[1, 2, 3]).await?;
    /// assert_eq!(database.get_json::<Vec<u32>>("numbers").await?, Some(vec![1, 2, 3]));
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    pub async fn get_json<T: DeserializeOwned + Send>(&self, key: impl IntoKey) -> Result<Option<T>> {
        self.get(key).await?.map(|value| value.decode()).transpose()
    }

    /// Reads a value with its revision, and says where the answer comes from.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn lookup(&self, key: impl IntoKey) -> Result<Lookup> {
        self.lookup_with(key, GetOptions::default()).await
    }

    /// As [`Handle::lookup`], and tells what the options ask for.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn lookup_with(&self, key: impl IntoKey, options: GetOptions) -> Result<Lookup> {
        self.backend.get(&key.into_key()?, &options, &self.context()).await
    }

    /// Reads several values in one round trip: one answer a key, in the order of the keys, duplicates allowed. A key that
    /// fails does not hide the others.
    ///
    /// # Errors
    ///
    /// Each answer as that of a single call.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::StorageManager;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let database = StorageManager::in_memory().database().await?;
    /// database.set_json("a", &1).await?;
    /// let values = database.get_many(["a", "b"]).await;
    /// assert!(matches!(&values[..], [Ok(Some(_)), Ok(None)]));
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    #[doc(alias = "mget")]
    pub async fn get_many<K: IntoKey>(&self, keys: impl IntoIterator<Item = K> + Send) -> Vec<Result<Option<Value>>> {
        let keys = keys.into_iter().map(IntoKey::into_key).collect();
        let cx = self.context();
        let send = |keys: Vec<Key>| async move { self.backend.get_many(&keys, &VALUE_ONLY, &cx).await };
        answer_each(keys, send).await.into_iter().map(|answer| answer.map(Lookup::into_value)).collect()
    }

    /// Says whether there is a value, or in a database a list with items, under a key.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn exists(&self, key: impl IntoKey) -> Result<bool> {
        let answers = self.backend.exists(&[key.into_key()?], &self.context()).await;
        answers.into_iter().next().unwrap_or_else(|| Err(Error::internal("a question was not answered")))
    }

    /// Streams the keys that begin with a literal prefix, page by page; the empty prefix stands for all.
    ///
    /// A key that is there throughout is listed. The databases and the memory cache list in byte order, each key once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the prefix is not one; the stream's items fail as reads do.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::StorageManager;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let database = StorageManager::in_memory().database().await?;
    /// database.set_json("session:1", &1).await?;
    /// let mut keys = database.list("session:")?;
    /// while let Some(key) = keys.next().await {
    ///     assert_eq!(key?.as_str(), "session:1");
    /// }
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    #[doc(alias = "scan")]
    pub fn list(&self, prefix: impl AsRef<str>) -> Result<KeyStream> {
        Ok(KeyStream::new(self.clone(), KeyPrefix::parse(prefix)?, None))
    }

    /// Streams the keys that fit a glob: `*` any number of characters, `?` one, `\` takes the next one literally.
    ///
    /// The store lists by the glob's literal beginning; the rest is filtered here.
    ///
    /// # Errors
    ///
    /// As [`Handle::list`].
    pub fn keys(&self, glob: impl AsRef<str>) -> Result<KeyStream> {
        let pattern = KeyPattern::parse(glob)?;
        Ok(KeyStream::new(self.clone(), pattern.literal_prefix()?, Some(pattern)))
    }

    /// Lists one page of keys with a prefix, for those who keep the cursor themselves.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn list_page(&self, prefix: impl AsRef<str> + Send, options: ListOptions) -> Result<KeyPage> {
        self.backend.list(&KeyPrefix::parse(prefix)?, &options, &self.context()).await
    }

    /// Counts the keys with a prefix.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn count(&self, prefix: impl AsRef<str> + Send) -> Result<u64> {
        self.backend.count(&KeyPrefix::parse(prefix)?, &self.context()).await
    }
}

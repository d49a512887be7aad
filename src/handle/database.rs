//! The [`Database`] handle.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::contract::{
    Append, AppendAck, ConflictRecord, DatabaseBackend, Identity, Item, ItemId, ListRange, Step, StepAck,
};
use crate::error::{Error, Result};
use crate::key::IntoKey;
use crate::layer::answer_each;
use crate::stamp::Stamp;
use crate::value::Value;

use super::base::Handle;
use super::conflicts::ConflictStream;
use super::transaction::Transaction;

/// A handle to a database.
///
/// # Examples
///
/// ```
/// # use agent_storage::StorageManager;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let database = StorageManager::in_memory().database().await?;
/// database.append_json("messages:42", &"hello").await?;
/// let last: Vec<String> = database.range_json("messages:42", -10, -1).await?;
/// assert_eq!(last, ["hello"]);
/// # Ok::<(), agent_storage::Error>(()) }).unwrap();
/// ```
pub type Database = Handle<dyn DatabaseBackend>;

/// # Errors
///
/// As the methods common to all handles.
///
/// # Cancel safety
///
/// Reads may be dropped at any point; an append, trim or transaction that had begun runs to its end.
impl Database {
    /// Puts an item at the tail of a list and says where it stands. The list is made if there is none.
    ///
    /// Positions begin at 0, increase strictly and are never used again.
    ///
    /// # Errors
    ///
    /// As a write.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    #[doc(alias = "rpush")]
    pub async fn append(&self, key: impl IntoKey, value: Value) -> Result<AppendAck> {
        self.append_one(Append::new(key.into_key()?, value, self.stamp())).await
    }

    /// As [`Database::append`], with the item as JSON.
    ///
    /// # Errors
    ///
    /// As a write, and [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) if the item has no JSON form.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn append_json<T: Serialize + Sync + ?Sized>(&self, key: impl IntoKey, item: &T) -> Result<AppendAck> {
        self.append(key, Value::from_json(item)?).await
    }

    /// As [`Database::append`], with a name for the item: if the list has, or lately had, an item of that name, nothing is
    /// added and the first one's position is answered. So a caller may safely repeat itself.
    ///
    /// # Errors
    ///
    /// As a write.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn append_with_id(&self, key: impl IntoKey, value: Value, item_id: ItemId) -> Result<AppendAck> {
        self.append_one(Append::new(key.into_key()?, value, self.stamp()).with_item_id(item_id)).await
    }

    /// Puts several items at the tails of their lists, in order, in one round trip: one answer an item.
    ///
    /// # Errors
    ///
    /// Each answer as that of a single call.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn append_many<K: IntoKey>(
        &self,
        items: impl IntoIterator<Item = (K, Value)> + Send,
    ) -> Vec<Result<AppendAck>> {
        let append = |(key, value): (K, Value)| Ok(Append::new(key.into_key()?, value, self.stamp()));
        let items = items.into_iter().map(append).collect();
        let cx = self.context();
        answer_each(items, |items| self.backend.append_many(items, &cx)).await
    }

    /// Reads items of a list, both ends included, counted from the head from 0 or from the tail from -1: `0, -1` is the whole
    /// list, `-10, -1` the last ten. A missing list is empty.
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    #[doc(alias = "lrange")]
    pub async fn range(&self, key: impl IntoKey, start: i64, end: i64) -> Result<Vec<Item>> {
        self.backend.range(&key.into_key()?, ListRange::new(start, end), &self.context()).await
    }

    /// As [`Database::range`], with the items read as JSON into a type.
    ///
    /// # Errors
    ///
    /// As a read, and [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if an item is not of that type.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn range_json<T: DeserializeOwned + Send>(
        &self,
        key: impl IntoKey,
        start: i64,
        end: i64,
    ) -> Result<Vec<T>> {
        self.range(key, start, end).await?.iter().map(|item| item.value.decode()).collect()
    }

    /// Counts the items of a list; a missing list has none.
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    #[doc(alias = "llen")]
    pub async fn length(&self, key: impl IntoKey) -> Result<u64> {
        self.backend.length(&key.into_key()?, &self.context()).await
    }

    /// Cuts a list to its last items and says how many went.
    ///
    /// # Errors
    ///
    /// As a write.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    #[doc(alias = "ltrim")]
    pub async fn trim(&self, key: impl IntoKey, keep_last: u64) -> Result<u64> {
        self.backend.trim(&key.into_key()?, keep_last, &self.context()).await
    }

    /// Begins a transaction: operations that are applied in order, all or nothing.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// Applies steps in order, all or nothing; [`Database::transaction`] builds them.
    ///
    /// # Errors
    ///
    /// As [`Transaction::commit`].
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn apply(&self, steps: Vec<Step>) -> Result<Vec<StepAck>> {
        self.backend.apply(steps, &self.context()).await
    }

    /// Says which database this is.
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn identity(&self) -> Result<Identity> {
        self.backend.identity(&self.context()).await
    }

    /// Lists writes that were acknowledged while the database was away and then lost against somebody else's, or overwrote it: in the
    /// order of their stamps, with their values. Only keys of this handle's namespace are listed.
    ///
    /// They are kept until [`Database::forget_conflict`] is told that somebody has seen to them.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::StorageManager;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let database = StorageManager::in_memory().database().await?;
    /// let mut conflicts = database.conflicts();
    /// while let Some(lost) = conflicts.next().await {
    ///     let lost = lost?;
    ///     println!("{}: {} lost against {}", lost.key, lost.operation.as_str(), lost.winner);
    ///     database.forget_conflict(lost.key.as_str(), lost.stamp).await?;
    /// }
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    pub fn conflicts(&self) -> ConflictStream {
        ConflictStream::new(self.clone(), None)
    }

    /// Lists as [`Database::conflicts`] does, from the first record after a stamp and key, as where a page ended.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the key is none.
    pub fn conflicts_after(&self, stamp: Stamp, key: impl IntoKey) -> Result<ConflictStream> {
        Ok(ConflictStream::new(self.clone(), Some((stamp, key.into_key()?))))
    }

    /// Finds one of the writes that [`Database::conflicts`] lists, by its key and stamp.
    ///
    /// # Errors
    ///
    /// As a read, and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the database keeps no conflicts.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn conflict(&self, key: impl IntoKey, stamp: Stamp) -> Result<Option<ConflictRecord>> {
        let key = key.into_key()?;
        // The listing has no beginning at a record, only one after it.
        let before = u128::from_be_bytes(stamp.to_bytes()).checked_sub(1).map(u128::to_be_bytes);
        let after = before.map(|before| (Stamp::from_bytes(before), key.clone()));
        let mut records = ConflictStream::new(self.clone(), after);
        while let Some(record) = records.next().await.transpose()? {
            if record.stamp == stamp && record.key == key {
                return Ok(Some(record));
            }
            if (record.stamp, &record.key) > (stamp, &key) {
                break;
            }
        }
        Ok(None)
    }

    /// Forgets a write that [`Database::conflicts`] lists, named by its key and stamp; `false` if it is not there (any more). The
    /// entries stay as they are.
    ///
    /// # Errors
    ///
    /// As a write, and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the database keeps no conflicts.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn forget_conflict(&self, key: impl IntoKey, stamp: Stamp) -> Result<bool> {
        self.backend.forget_conflict(&key.into_key()?, stamp, &self.context()).await
    }

    async fn append_one(&self, item: Append) -> Result<AppendAck> {
        let answers = self.backend.append_many(vec![item], &self.context()).await;
        answers.into_iter().next().unwrap_or_else(|| Err(Error::internal("an append was not answered")))
    }
}

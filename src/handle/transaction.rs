//! Several operations, all or nothing: the [`Transaction`].

use serde::Serialize;

use crate::contract::{Append, ItemId, Step, StepAck, Write, WriteOp};
use crate::error::Result;
use crate::key::IntoKey;
use crate::revision::Revision;
use crate::value::Value;

use super::database::Database;
use super::options::SetOptions;

/// Operations that a database applies in order, all or nothing, conditions included.
///
/// It sends nothing before [`Transaction::commit`], and nothing at all if it is dropped.
///
/// # Examples
///
/// ```
/// # use agent_storage::StorageManager;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let database = StorageManager::in_memory().database().await?;
/// database
///     .transaction()
///     .append_json("messages:42", &"hello")?
///     .set_json("session:42", &1)?
///     .commit()
///     .await?;
/// assert_eq!(database.length("messages:42").await?, 1);
/// # Ok::<(), agent_storage::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    database: Database,
    steps: Vec<Step>,
}

/// # Errors
///
/// The building methods: [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the key is not one,
/// [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) if the value has no JSON form.
impl Transaction {
    pub(super) const fn new(database: Database) -> Self {
        Self { database, steps: Vec::new() }
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn set(self, key: impl IntoKey, value: Value) -> Result<Self> {
        self.set_with(key, value, SetOptions::new())
    }

    /// Stores a value as JSON.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn set_json<T: Serialize + ?Sized>(self, key: impl IntoKey, value: &T) -> Result<Self> {
        self.set(key, Value::from_json(value)?)
    }

    /// Stores a value under conditions, or for a time.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn set_with(self, key: impl IntoKey, value: Value, options: SetOptions) -> Result<Self> {
        let SetOptions { mode, ttl } = options;
        self.write(key, WriteOp::Put { value, mode, ttl })
    }

    /// Removes the value and the list under a key.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn delete(self, key: impl IntoKey) -> Result<Self> {
        self.write(key, WriteOp::Delete { only_if: None })
    }

    /// Removes the value and the list under a key, only if the value has this revision.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn delete_if(self, key: impl IntoKey, revision: Revision) -> Result<Self> {
        self.write(key, WriteOp::Delete { only_if: Some(revision) })
    }

    /// Puts an item at the tail of a list.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn append(mut self, key: impl IntoKey, value: Value) -> Result<Self> {
        let append = Append::new(key.into_key()?, value, self.database.stamp());
        self.steps.push(Step::Append(append));
        Ok(self)
    }

    /// Puts an item at the tail of a list, as JSON.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn append_json<T: Serialize + ?Sized>(self, key: impl IntoKey, value: &T) -> Result<Self> {
        self.append(key, Value::from_json(value)?)
    }

    /// Puts a named item at the tail of a list; if the list has, or lately had, an item of that name, nothing is added.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn append_with_id(mut self, key: impl IntoKey, value: Value, item_id: ItemId) -> Result<Self> {
        let append = Append::new(key.into_key()?, value, self.database.stamp()).with_item_id(item_id);
        self.steps.push(Step::Append(append));
        Ok(self)
    }

    /// Cuts a list to its last items.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn trim(mut self, key: impl IntoKey, keep_last: u64) -> Result<Self> {
        self.steps.push(Step::Trim { key: key.into_key()?, keep_last });
        Ok(self)
    }

    /// Applies all operations in order, or none: one answer an operation.
    ///
    /// # Errors
    ///
    /// The error of the first operation that failed, such as [`ErrorKind::Conflict`](crate::ErrorKind::Conflict); nothing was
    /// applied then. [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if the reply to the commit was lost.
    ///
    /// # Cancel safety
    ///
    /// A transaction that had begun runs to its end though its caller went away.
    pub async fn commit(self) -> Result<Vec<StepAck>> {
        let cx = self.database.context();
        self.database.backend.apply(self.steps, &cx).await
    }

    fn write(mut self, key: impl IntoKey, op: WriteOp) -> Result<Self> {
        let write = Write::new(key.into_key()?, op, self.database.stamp());
        self.steps.push(Step::Write(write));
        Ok(self)
    }
}

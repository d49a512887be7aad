//! Writing values through a handle.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::contract::{Attempt, Context, Write, WriteAck, WriteOp};
use crate::error::Result;
use crate::key::{IntoKey, Key, KeyPrefix};
use crate::layer::answer_each;
use crate::revision::Revision;
use crate::value::Value;

use super::base::{Handle, HandleBackend};
use super::options::SetOptions;

/// # Errors
///
/// Every method: [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if a key or prefix is not one,
/// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) over the store's limits,
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if nothing was written,
/// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if the reply was lost,
/// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after the store was closed.
///
/// # Cancel safety
///
/// A write that had begun runs to its end though its caller went away; whether it had begun is then unknown.
impl<B: HandleBackend + ?Sized> Handle<B> {
    /// Stores a value. An older TTL is gone.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::{StorageManager, Value};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let database = StorageManager::in_memory().database().await?;
    /// let ack = database.set("picture", Value::binary(vec![0xff, 0xd8])?).await?;
    /// assert_eq!(ack.existed, Some(false));
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    pub async fn set(&self, key: impl IntoKey, value: Value) -> Result<WriteAck> {
        let cx = self.context();
        self.send(key.into_key()?, SetOptions::new().put(value), &cx).await
    }

    /// Stores a value as JSON. An older TTL is gone.
    ///
    /// # Errors
    ///
    /// As above, and [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) if the value has no JSON form.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn set_json<T: Serialize + Sync + ?Sized>(&self, key: impl IntoKey, value: &T) -> Result<WriteAck> {
        let cx = self.context();
        self.send(key.into_key()?, SetOptions::new().put(Value::from_json(value)?), &cx).await
    }

    /// Stores bytes. An older TTL is gone.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn set_bytes(&self, key: impl IntoKey, bytes: impl Into<Bytes> + Send) -> Result<WriteAck> {
        let cx = self.context();
        self.send(key.into_key()?, SetOptions::new().put(Value::binary(bytes)?), &cx).await
    }

    /// Stores a value under conditions, or for a time.
    ///
    /// # Errors
    ///
    /// As above, and [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if the condition did not hold.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::{ErrorKind, SetOptions, StorageManager, Value};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let database = StorageManager::in_memory().database().await?;
    /// let first = database.set_with("lock", Value::json("1")?, SetOptions::new().if_absent()).await?;
    /// let error = database.set_with("lock", Value::json("2")?, SetOptions::new().if_absent()).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Conflict);
    /// let revision = first.revision.unwrap();
    /// database.set_with("lock", Value::json("3")?, SetOptions::new().if_revision(revision)).await?;
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    pub async fn set_with(&self, key: impl IntoKey, value: Value, options: SetOptions) -> Result<WriteAck> {
        let cx = self.context();
        self.send(key.into_key()?, options.put(value), &cx).await
    }

    /// Stores several values in one round trip: one answer an item, in order; of duplicates the last wins. An item that fails
    /// does not stop the others.
    ///
    /// # Errors
    ///
    /// Each answer as that of a single call.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    #[doc(alias = "mset")]
    pub async fn set_many<K: IntoKey>(
        &self,
        items: impl IntoIterator<Item = (K, Value)> + Send,
    ) -> Vec<Result<WriteAck>> {
        self.set_many_with(items, SetOptions::new()).await
    }

    /// As [`Handle::set_many`], with the same options for every item.
    ///
    /// # Errors
    ///
    /// Each answer as that of a single call.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn set_many_with<K: IntoKey>(
        &self,
        items: impl IntoIterator<Item = (K, Value)> + Send,
        options: SetOptions,
    ) -> Vec<Result<WriteAck>> {
        let SetOptions { mode, ttl } = options;
        let put = |(key, value): (K, Value)| Ok((key.into_key()?, WriteOp::Put { value, mode, ttl }));
        self.write_many(items.into_iter().map(put).collect()).await
    }

    /// Removes the value, and in a database the list under the same key too. [`WriteAck::existed`] says whether there was
    /// one; deleting what is not there is not an error.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    #[doc(alias = "del")]
    pub async fn delete(&self, key: impl IntoKey) -> Result<WriteAck> {
        let cx = self.context();
        self.send(key.into_key()?, WriteOp::Delete { only_if: None }, &cx).await
    }

    /// Removes the value, and in a database the list, only if the value has this revision.
    ///
    /// # Errors
    ///
    /// As above, and [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if it has not.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn delete_if(&self, key: impl IntoKey, revision: Revision) -> Result<WriteAck> {
        let cx = self.context();
        self.send(key.into_key()?, WriteOp::Delete { only_if: Some(revision) }, &cx).await
    }

    /// Removes several keys in one round trip: one answer a key, in order.
    ///
    /// # Errors
    ///
    /// Each answer as that of a single call.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn delete_many<K: IntoKey>(&self, keys: impl IntoIterator<Item = K> + Send) -> Vec<Result<WriteAck>> {
        let delete = |key: K| Ok((key.into_key()?, WriteOp::Delete { only_if: None }));
        self.write_many(keys.into_iter().map(delete).collect()).await
    }

    /// Removes everything with a prefix; says how many keys went, where the store knows. The empty prefix removes all that this
    /// handle can see.
    ///
    /// # Errors
    ///
    /// As above; a clear that fails in the middle has removed some.
    ///
    /// # Cancel safety
    ///
    /// A call that had begun runs to its end though its caller went away.
    pub async fn clear(&self, prefix: impl AsRef<str> + Send) -> Result<Option<u64>> {
        let prefix = KeyPrefix::parse(prefix)?;
        let cx = self.context();
        self.shared.loads.overrule_prefix(&self.namespace.join_prefix(&prefix)?, &cx).await?;
        self.backend.clear(&prefix, self.stamp(), Attempt::First, &cx).await
    }

    /// Sends a write. No `async fn`, which would keep the write beside what it becomes: a hundred thousand may wait at a time.
    pub(super) fn send<'a>(&'a self, key: Key, op: WriteOp, cx: &'a Context) -> BoxFuture<'a, Result<WriteAck>> {
        let loads = &self.shared.loads;
        if loads.are_none() {
            return self.backend.write(Write::new(key, op, self.stamp()), cx);
        }
        Box::pin(async move {
            loads.overrule(&self.namespace, &key, cx).await?;
            self.backend.write(Write::new(key, op, self.stamp()), cx).await
        })
    }

    async fn write_many(&self, items: Vec<Result<(Key, WriteOp)>>) -> Vec<Result<WriteAck>> {
        let cx = self.context();
        let mut writes = Vec::with_capacity(items.len());
        for item in items {
            writes.push(match item {
                Ok((key, op)) => {
                    let overruled = self.shared.loads.overrule(&self.namespace, &key, &cx).await;
                    overruled.map(|()| Write::new(key, op, self.stamp()))
                }
                Err(error) => Err(error),
            });
        }
        answer_each(writes, |writes| self.backend.write_many(writes, &cx)).await
    }
}

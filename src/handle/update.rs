//! Reading, changing and writing back, without losing anybody else's change.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::contract::{Context, GetOptions, Lookup, Write, WriteAck, WriteMode, WriteOp};
use crate::error::{Error, Result};
use crate::key::IntoKey;
use crate::value::Value;

use super::base::{Handle, HandleBackend};

/// The first and the longest wait after a lost round, before it is tried again.
const MIN_PAUSE: Duration = Duration::from_micros(500);
const MAX_PAUSE: Duration = Duration::from_millis(50);

impl<B: HandleBackend + ?Sized> Handle<B> {
    /// Changes a value: hands the present one to `change`, and stores what it returns if nobody wrote meanwhile; otherwise
    /// again, until the handle's timeout. What is left of a TTL is kept.
    ///
    /// `change` may run several times, so it should have no effect of its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if others were faster until the deadline; an error of `change` ends
    /// it; else as [`Handle::get`] and [`Handle::set_with`].
    ///
    /// # Cancel safety
    ///
    /// As a write.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::StorageManager;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let database = StorageManager::in_memory().database().await?;
    /// database.update_json("visits", |old: Option<u64>| Ok(old.unwrap_or(0) + 1)).await?;
    /// assert_eq!(database.get_json("visits").await?, Some(1));
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    #[doc(alias = "compare_and_set")]
    pub async fn update(
        &self,
        key: impl IntoKey,
        mut change: impl FnMut(Option<Value>) -> Result<Value> + Send,
    ) -> Result<WriteAck> {
        let key = key.into_key()?;
        // Each attempt is a call of its own: what ends meanwhile is gone in the next.
        let cx = Context::until(self.context().deadline);
        let mut pauses = pauses();
        loop {
            let (old, mode) = match self.backend.get(&key, &GetOptions::default(), &cx).await? {
                Lookup::Found(entry) => (Some(entry.value), WriteMode::Replace(entry.revision)),
                Lookup::Missing { .. } => (None, WriteMode::Create),
            };
            let value = change(old)?;
            self.shared.loads.overrule(&self.namespace, &key, &cx).await?;
            let write = Write::new(key.clone(), WriteOp::Put { value, mode, ttl: None }, self.stamp());
            match self.backend.write(write, &cx).await {
                Err(error) if error.is_conflict() => match pauses.next() {
                    Some(pause) if pause < cx.remaining() => tokio::time::sleep(pause).await,
                    _ => return Err(Error::conflict("others changed the value each time until the deadline")),
                },
                result => return result,
            }
        }
    }

    /// As [`Handle::update`], for a JSON value of a type.
    ///
    /// # Errors
    ///
    /// As [`Handle::update`], and [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if the value is not of that type.
    ///
    /// # Cancel safety
    ///
    /// As a write.
    pub async fn update_json<T: DeserializeOwned + Serialize + Send>(
        &self,
        key: impl IntoKey,
        mut change: impl FnMut(Option<T>) -> Result<T> + Send,
    ) -> Result<WriteAck> {
        self.update(key, |old| {
            let old = old.map(|value| value.decode()).transpose()?;
            Value::from_json(&change(old)?)
        })
        .await
    }
}

/// Waits that double, at random up to twice as long, so that callers who met once do not meet again.
fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(MIN_PAUSE)
        .with_max_delay(MAX_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

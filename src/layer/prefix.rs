//! The [`Prefix`] layer: a namespace within a store.

use std::future::ready;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::contract::{
    Append, AppendAck, Attempt, CacheBackend, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend,
    GetOptions, Identity, IncrementOptions, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions,
    ReplayOutcome, Step, StepAck, Store, Write, WriteAck,
};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::batch::answer_each;

/// A store whose keys all begin with a prefix that its callers do not see.
///
/// Nothing outside the prefix can be read, listed or cleared through it. The prefix counts towards the length of a key.
#[derive(Debug)]
pub struct Prefix<B: ?Sized> {
    prefix: KeyPrefix,
    inner: Arc<B>,
}

impl<B: Store + ?Sized> Prefix<B> {
    /// Wraps a store.
    #[must_use]
    pub const fn new(prefix: KeyPrefix, inner: Arc<B>) -> Self {
        Self { prefix, inner }
    }

    fn outer_keys(&self, keys: &[Key]) -> Vec<Result<Key>> {
        keys.iter().map(|key| self.prefix.join(key)).collect()
    }

    fn outer_write(&self, mut write: Write) -> Result<Write> {
        write.key = self.prefix.join(&write.key)?;
        Ok(write)
    }

    fn outer_append(&self, mut append: Append) -> Result<Append> {
        append.key = self.prefix.join(&append.key)?;
        Ok(append)
    }

    /// Whether there is a key that is the prefix and nothing more. It has no name in here, so it is somebody else's.
    async fn nameless_exists(&self, cx: &Context) -> Result<bool> {
        let Ok(key) = Key::parse(self.prefix.as_str()) else { return Ok(false) };
        self.inner.exists(&[key], cx).await.into_iter().next().unwrap_or(Ok(false))
    }

    /// Removes the keys that have a name in here one by one, where the store's own clear would take the nameless one too.
    async fn clear_named(&self, stamp: Stamp, cx: &Context) -> Result<u64> {
        let (mut removed, mut options) = (0, ListOptions::default());
        loop {
            let page = self.list(&KeyPrefix::empty(), &options, cx).await;
            let page = page.map_err(|failure| broken_off(failure, removed))?;
            let deletes = page.keys.into_iter().map(|key| Write::delete(key, stamp)).collect();
            let mut failure: Option<Error> = None;
            for answer in self.write_many(deletes, cx).await {
                match answer {
                    Ok(ack) => removed += u64::from(ack.existed != Some(false)),
                    // Of several the one counts that leaves most open.
                    Err(error) if failure.is_none() || error.kind() == ErrorKind::OutcomeUnknown => {
                        failure = Some(error)
                    }
                    Err(_) => {}
                }
            }
            if let Some(failure) = failure {
                return Err(broken_off(failure, removed));
            }
            match page.next {
                Some(next) => options = options.with_cursor(next),
                None => return Ok(removed),
            }
        }
    }

    fn outer_step(&self, step: Step) -> Result<Step> {
        Ok(match step {
            Step::Write(write) => Step::Write(self.outer_write(write)?),
            Step::Append(append) => Step::Append(self.outer_append(append)?),
            Step::Trim { key, keep_last } => Step::Trim { key: self.prefix.join(&key)?, keep_last },
            Step::Expired { key, value, expires_at, stamp } => {
                Step::Expired { key: self.prefix.join(&key)?, value, expires_at, stamp }
            }
            Step::Clear { prefix, stamp } => Step::Clear { prefix: self.prefix.join_prefix(&prefix)?, stamp },
        })
    }
}

/// A failure after some keys went is not one of a write that was not applied.
fn broken_off(failure: Error, removed: u64) -> Error {
    if removed == 0 || failure.kind() != ErrorKind::Unavailable {
        return failure;
    }
    Error::outcome_unknown("clearing broke off in the middle; some keys are gone").with_source(failure)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Store + ?Sized> Store for Prefix<B> {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        self.inner.get(&self.prefix.join(key)?, options, cx).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        answer_each(self.outer_keys(keys), |keys| async move { self.inner.get_many(&keys, options, cx).await }).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        answer_each(self.outer_keys(keys), |keys| async move { self.inner.exists(&keys, cx).await }).await
    }

    /// Written out, because the `async fn` would keep the write while it waits.
    fn write<'life0, 'life1, 'async_trait>(
        &'life0 self,
        write: Write,
        cx: &'life1 Context,
    ) -> BoxFuture<'async_trait, Result<WriteAck>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
    {
        match self.outer_write(write) {
            Ok(write) => self.inner.write(write, cx),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let writes = writes.into_iter().map(|write| self.outer_write(write)).collect();
        answer_each(writes, |writes| self.inner.write_many(writes, cx)).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        let page = self.inner.list(&self.prefix.join_prefix(prefix)?, options, cx).await?;
        let keys = page.keys.iter().filter_map(|key| self.prefix.strip(key)).collect();
        Ok(KeyPage::new(keys, page.next))
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        let count = self.inner.count(&self.prefix.join_prefix(prefix)?, cx).await?;
        let nameless = prefix.is_empty() && self.nameless_exists(cx).await?;
        Ok(count.saturating_sub(u64::from(nameless)))
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        if prefix.is_empty() && self.nameless_exists(cx).await? {
            return self.clear_named(stamp, cx).await.map(Some);
        }
        self.inner.clear(&self.prefix.join_prefix(prefix)?, stamp, attempt, cx).await
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.inner.ping(cx).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.inner.close(cx).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: CacheBackend + ?Sized> CacheBackend for Prefix<B> {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        self.inner.increment(&self.prefix.join(key)?, by, options, cx).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: DatabaseBackend + ?Sized> DatabaseBackend for Prefix<B> {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        let items = items.into_iter().map(|item| self.outer_append(item)).collect();
        answer_each(items, |items| self.inner.append_many(items, cx)).await
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        self.inner.range(&self.prefix.join(key)?, range, cx).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        self.inner.length(&self.prefix.join(key)?, cx).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        self.inner.trim(&self.prefix.join(key)?, keep_last, cx).await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        let steps = steps.into_iter().map(|step| self.outer_step(step)).collect::<Result<_>>()?;
        self.inner.apply(steps, cx).await
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        let clears_all = |step: &Step| matches!(step, Step::Clear { prefix, .. } if prefix.is_empty());
        let nameless = match steps.iter().any(clears_all) {
            true => self.nameless_exists(cx).await,
            false => Ok(false),
        };
        let outer = |step| match &nameless {
            Ok(true) if clears_all(&step) => Err(Error::unsupported(
                "the key that is the prefix itself is somebody else's, and a replayed clear would take it; delete it, or \
                 replay deletes",
            )),
            Ok(_) => self.outer_step(step),
            Err(error) => Err(error.clone()),
        };
        let steps = steps.into_iter().map(outer).collect();
        answer_each(steps, |steps| self.inner.replay(steps, options, cx)).await
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.inner.identity(cx).await
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        let keys = keys.iter().map(|key| self.prefix.join(key)).collect::<Result<Vec<_>>>()?;
        self.inner.stamps(&keys, cx).await
    }

    /// Pages are read until one of ours is full: those of others may lie between them.
    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        let mut ours = Vec::new();
        let mut options = options.clone().with_limit(options.limit);
        if let Some((_, key)) = &mut options.after {
            *key = self.prefix.join(key)?;
        }
        loop {
            let page = self.inner.conflicts(&options, cx).await?;
            let next = page.last().filter(|_| page.len() >= options.limit).map(|last| (last.stamp, last.key.clone()));
            let room = options.limit.saturating_sub(ours.len());
            let stripped = page.into_iter().filter_map(|mut record| {
                record.key = self.prefix.strip(&record.key)?;
                Some(record)
            });
            ours.extend(stripped.take(room));
            if next.is_none() || ours.len() >= options.limit {
                return Ok(ours);
            }
            options.after = next;
        }
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        self.inner.forget_conflict(&self.prefix.join(key)?, stamp, cx).await
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        self.inner.expect(identity)
    }
}

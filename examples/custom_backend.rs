//! A backend of your own: a cache over a `BTreeMap`, held to the contract by the conformance suite, then used like any other.
//!
//! ```text
//! cargo run --example custom_backend --features testkit
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_storage::contract::{
    Attempt, CacheBackend, Capabilities, Context, Cursor, Entry, GetOptions, IncrementOptions, KeyPage, ListOptions,
    Lookup, Ping, Store, Write, WriteAck, WriteMode, WriteOp,
};
use agent_storage::testkit::{Elapse, Subject, check_cache};
use agent_storage::{Clock, Error, Key, KeyPrefix, Result, Revision, Stamp, StorageManager, Timestamp, Value};
use async_trait::async_trait;

/// A cache of this process, in the order of the keys.
#[derive(Debug)]
struct TreeCache {
    clock: Clock,
    /// `None` once it was closed.
    entries: Mutex<Option<BTreeMap<Key, Stored>>>,
}

#[derive(Clone, Debug)]
struct Stored {
    value: Value,
    revision: Revision,
    expires: Option<Timestamp>,
}

/// The entries, locked for one step.
struct Entries<'a> {
    now: Timestamp,
    guard: MutexGuard<'a, Option<BTreeMap<Key, Stored>>>,
}

impl TreeCache {
    fn new(clock: Clock) -> Self {
        Self { clock, entries: Mutex::new(Some(BTreeMap::new())) }
    }

    /// Every call begins here: a call whose deadline has passed changes nothing, and a closed store stays closed.
    fn enter(&self, cx: &Context) -> Result<Entries<'_>> {
        let guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            return Err(Error::closed());
        }
        if cx.is_expired() {
            return Err(Error::unavailable("the deadline had passed before the call began"));
        }
        Ok(Entries { now: self.clock.now(), guard })
    }
}

impl Entries<'_> {
    fn map(&mut self) -> &mut BTreeMap<Key, Stored> {
        self.guard.get_or_insert_default()
    }

    /// What is there and has not expired.
    fn live(&mut self, key: &Key) -> Option<Stored> {
        let now = self.now;
        self.map().get(key).filter(|stored| stored.expires.is_none_or(|at| at > now)).cloned()
    }

    fn lookup(&mut self, key: &Key, options: &GetOptions) -> Lookup {
        match self.live(key) {
            None => Lookup::missing(),
            Some(Stored { value, revision, expires }) => {
                let entry = Entry::new(value, revision);
                Lookup::Found(if options.expiry { entry.with_expiry(expires) } else { entry })
            }
        }
    }

    fn write(&mut self, write: Write) -> Result<WriteAck> {
        let Write { key, op, stamp, .. } = write;
        let old = self.live(&key);
        let existed = Some(old.is_some());
        let now = self.now;
        let is_at = |revision: Revision| old.as_ref().is_some_and(|old| old.revision == revision);
        match op {
            WriteOp::Put { value, mode, ttl } => {
                match mode {
                    WriteMode::Create if old.is_some() => return Err(Error::conflict("there is a value already")),
                    WriteMode::Update(wanted) | WriteMode::Replace(wanted) if !is_at(wanted) => {
                        return Err(Error::conflict("the value is gone or has another revision"));
                    }
                    WriteMode::Upsert | WriteMode::Create | WriteMode::Update(_) | WriteMode::Replace(_) => {}
                }
                let revision = Revision::from_stamp(stamp);
                // A value that is replaced ends when the one before it would have ended.
                let expires = match (mode, &old) {
                    (WriteMode::Replace(_), Some(old)) => old.expires,
                    _ => ttl.map(|ttl| now.after(ttl)),
                };
                self.map().insert(key, Stored { value, revision, expires });
                Ok(WriteAck::primary(Some(revision), existed))
            }
            WriteOp::Delete { only_if: Some(wanted) } if !is_at(wanted) => {
                Err(Error::conflict("the value is gone or has another revision"))
            }
            WriteOp::Delete { .. } => {
                self.map().remove(&key);
                Ok(WriteAck::primary(None, existed))
            }
            WriteOp::Touch { ttl } => {
                let Some(old) = old else { return Ok(WriteAck::primary(None, existed)) };
                let revision = Revision::from_stamp(stamp);
                self.map().insert(key, Stored { revision, expires: ttl.map(|ttl| now.after(ttl)), ..old });
                Ok(WriteAck::primary(Some(revision), existed))
            }
            _ => Err(Error::unsupported("this operation is newer than this backend")),
        }
    }

    /// The live keys with a prefix, after another key.
    fn keys<'k>(&'k mut self, prefix: &'k KeyPrefix, after: &'k str) -> impl Iterator<Item = &'k Key> {
        let now = self.now;
        let live = move |stored: &Stored| stored.expires.is_none_or(|at| at > now);
        let keys = self.map().iter().filter(move |(_, stored)| live(stored)).map(|(key, _)| key);
        keys.filter(move |key| prefix.matches(key) && key.as_str() > after)
    }
}

#[async_trait]
impl Store for TreeCache {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        Ok(self.enter(cx)?.lookup(key, options))
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        keys.iter().map(|key| Ok(self.enter(cx)?.lookup(key, options))).collect()
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        keys.iter().map(|key| Ok(self.enter(cx)?.live(key).is_some())).collect()
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        self.enter(cx)?.write(write)
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        writes.into_iter().map(|write| self.enter(cx)?.write(write)).collect()
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        // A cursor of this store is the last key of a page; any other text was made by somebody else.
        let not_ours = |_| Error::invalid_value("the cursor is not one that this store gave");
        let after = options.cursor.as_ref().map(|cursor| Key::parse(cursor.as_str()).map_err(not_ours)).transpose()?;
        let after = after.as_ref().map_or("", Key::as_str);
        let limit = options.limit.clamp(1, ListOptions::MAX_LIMIT);
        let mut entries = self.enter(cx)?;
        let keys: Vec<Key> = entries.keys(prefix, after).take(limit).cloned().collect();
        let next = keys.last().filter(|_| keys.len() == limit).map(|last| Cursor::new(last.as_str()));
        Ok(KeyPage::new(keys, next))
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        Ok(self.enter(cx)?.keys(prefix, "").count() as u64)
    }

    async fn clear(&self, prefix: &KeyPrefix, _stamp: Stamp, _attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        let mut entries = self.enter(cx)?;
        let cleared = entries.keys(prefix, "").count() as u64;
        entries.map().retain(|key, _| !prefix.matches(key));
        Ok(Some(cleared))
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.enter(cx)?;
        Ok(Ping::new(Duration::ZERO, None))
    }

    /// What is not set here is not there, and the suite checks that too.
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("tree");
        capabilities.conditional_delete = true;
        capabilities.increment = true;
        capabilities
    }

    async fn close(&self, _cx: &Context) -> Result<()> {
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

#[async_trait]
impl CacheBackend for TreeCache {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        let mut entries = self.enter(cx)?;
        let old = entries.live(key);
        let number = match &old {
            Some(old) => old.value.to_integer().ok_or_else(|| Error::wrong_type("the value is not an integer"))?,
            None => 0,
        };
        let sum = number.checked_add(by).ok_or_else(|| Error::invalid_value("the counter would overflow"))?;
        let expires = match old {
            Some(old) => old.expires,
            None => options.ttl.map(|ttl| entries.now.after(ttl)),
        };
        let revision = Revision::from_stamp(agent_storage::HybridClock::process().issue());
        entries.map().insert(key.clone(), Stored { value: Value::from_integer(sum), revision, expires });
        Ok(sum)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // Time in the suite's hand: what expires in an hour expires at once.
    let subject = || async {
        let clock = Clock::manual();
        Subject::cache(Arc::new(TreeCache::new(clock.clone())), Elapse::Manual(clock))
    };
    match check_cache(subject).await {
        Ok(held) => println!("all {held} cases of the conformance suite hold"),
        Err(failures) => {
            eprintln!("{failures}");
            return ExitCode::FAILURE;
        }
    }
    match use_it().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn use_it() -> Result<()> {
    let manager = StorageManager::builder().cache(TreeCache::new(Clock::system())).build();
    let cache = manager.cache().await?;
    cache.set_json("greeting", "hello").await?;
    println!("{:?} says {:?}", cache.capabilities().backend, cache.get_json::<String>("greeting").await?);
    manager.disconnect().await
}

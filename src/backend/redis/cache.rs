//! The [`RedisCache`].

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use redis::{Pipeline, Value as Reply};

use super::error::{self, Effect};
use super::lane::Lanes;
use super::{read, scan, write};
use crate::config::RedisConfig;
use crate::contract::{
    Attempt, CacheBackend, Capabilities, Context, Durability, GetOptions, IncrementOptions, KeyPage, ListOptions,
    Listing, Lookup, Ping, RevisionKind, Store, Write, WriteAck, as_probe,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

/// The key that a ping writes. Its control character keeps it apart from every [`Key`]; its beginning can be granted.
const PING_KEY: &str = "agent-storage:\u{1}ping";

/// How long that key stays.
const PING_MILLIS: u64 = 60_000;

/// A cache on a Redis or Valkey server.
///
/// It connects on first use, shares one attempt among all who wait for it, and connects again by itself when the server is
/// back. Expiry is judged and told by the server's clock. What is not a string is
/// never replaced or touched, [`ErrorKind::WrongType`](crate::ErrorKind::WrongType); an unconditional delete removes it.
///
/// Writes carry no guard against late arrivals: one whose outcome is unknown is not safe to repeat.
pub struct RedisCache {
    lanes: Arc<Lanes>,
}

impl RedisCache {
    /// Makes a cache. It connects nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if no host is given, or only one of a client's certificate and key.
    pub fn new(config: &RedisConfig) -> Result<Self> {
        Ok(Self { lanes: Arc::new(Lanes::new(config)?) })
    }

    /// Has the server write something, and answers how long that took.
    async fn ask(&self, cx: &Context) -> Result<Ping> {
        let link = self.lanes.write_link(cx).await?;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SET").arg(PING_KEY).arg(1).arg("PX").arg(PING_MILLIS);
        if link.version().get().is_none() {
            pipeline.cmd("INFO").arg("server");
        }
        // Whether it was written does not matter once nothing answered: the store cannot be used.
        let started = Instant::now();
        let mut replies = link.send(&pipeline, Effect::Read, cx).await?.into_iter();
        let latency = started.elapsed();
        match replies.next() {
            Some(Reply::Okay) => {}
            Some(Reply::ServerError(refusal)) => return Err(error::refused(refusal)),
            _ => return Err(error::unexpected_reply()),
        }
        let told = replies.next().and_then(|reply| redis::from_redis_value::<String>(reply).ok());
        if let Some(version) = told.as_deref().and_then(version) {
            link.version().get_or_init(|| version);
        }
        Ok(Ping::new(latency, link.version().get().cloned()))
    }
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisCache {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        let _call = self.lanes.enter()?;
        read::get(&self.lanes, key, options, cx).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        match self.lanes.enter() {
            Ok(_call) => read::get_many(&self.lanes, keys, options, cx).await,
            Err(closed) => vec![Err(closed); keys.len()],
        }
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        match self.lanes.enter() {
            Ok(_call) => read::exists(&self.lanes, keys, cx).await,
            Err(closed) => vec![Err(closed); keys.len()],
        }
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let _call = self.lanes.enter()?;
        write::write(&self.lanes, write, cx).await
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        match self.lanes.enter() {
            Ok(call) => write::write_many(Arc::clone(&self.lanes), call, writes, *cx).await,
            Err(closed) => vec![Err(closed); writes.len()],
        }
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        let _call = self.lanes.enter()?;
        scan::list(&self.lanes, prefix, options, cx).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        let _call = self.lanes.enter()?;
        scan::count(&self.lanes, prefix, cx).await
    }

    async fn clear(&self, prefix: &KeyPrefix, _stamp: Stamp, _attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        let call = self.lanes.enter()?;
        let (lanes, prefix, cx) = (Arc::clone(&self.lanes), prefix.clone(), *cx);
        // In a task of its own, so that it runs to its end whether the caller waits or not.
        let clearing = tokio::spawn(async move {
            let _call = call;
            scan::clear(&lanes, &prefix, &cx).await
        });
        let cut_off = |_| Error::outcome_unknown("clearing was cut off in the middle; some keys may be gone");
        clearing.await.map_err(cut_off)?.map(Some)
    }

    async fn ping(&self, cx: &Context) -> Result<Ping> {
        let _call = self.lanes.enter()?;
        as_probe(self.ask(cx), cx).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("redis");
        capabilities.durability = Durability::Primary;
        capabilities.shared = true;
        capabilities.revision = RevisionKind::Digest;
        capabilities.listing = Listing::AtLeastOnce;
        capabilities.conditional_delete = true;
        capabilities.increment = true;
        // Whether it does is up to the server's `maxmemory-policy`.
        capabilities.evicts = true;
        capabilities
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.lanes.close(cx).await
    }
}

#[async_trait]
impl CacheBackend for RedisCache {
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        let _call = self.lanes.enter()?;
        write::increment(&self.lanes, key, by, options, cx).await
    }
}

/// The version within the answer to `INFO server`. Valkey calls itself a Redis of another number too; its own counts.
fn version(info: &str) -> Option<String> {
    let field = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    field("valkey_version")
        .map(|version| format!("valkey {version}"))
        .or_else(|| field("redis_version").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ping_key_is_no_key() {
        assert!(Key::parse(PING_KEY).is_err());
    }

    #[test]
    fn valkey_is_told_apart() {
        assert_eq!(version("# Server\r\nredis_version:7.0.15\r\nos:x\r\n").unwrap(), "7.0.15");
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n";
        assert_eq!(version(valkey).unwrap(), "valkey 8.0.1");
        assert_eq!(version(""), None);
    }
}

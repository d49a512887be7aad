//! Calls on stores that cases make most, with the subject's namespace put before each key.

use std::time::Duration;

use crate::contract::{
    Attempt, Context, Cursor, Entry, GetOptions, ListOptions, Lookup, Store, Write, WriteAck, WriteMode, WriteOp,
};
use crate::testkit::{Elapse, Failure, Subject};
use crate::{Clock, HybridClock, Key, KeyPrefix, Result, Revision, Ttl, Value};

/// How long a call of the suite may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long the suite waits for an entry to expire by a server's clock.
const PATIENCE: Duration = Duration::from_secs(15);

/// The most pages a listing of the suite may have; more is a cursor that runs in circles.
const MAX_PAGES: usize = 100_000;

impl<B: Store + ?Sized> Subject<B> {
    /// A context with time enough.
    #[expect(clippy::unused_self, reason = "cases read `subject.cx()` as a property of the subject")]
    pub(super) fn cx(&self) -> Context {
        Context::with_timeout(TIMEOUT)
    }

    /// The clock of another process, an hour behind.
    pub(super) fn slow_clock(&self) -> HybridClock {
        let wall = Clock::manual();
        wall.rewind(Duration::from_secs(3600));
        HybridClock::new(wall)
    }

    pub(super) fn key(&self, name: &str) -> Key {
        Key::parse(format!("{}{name}", self.namespace())).expect("a valid key")
    }

    pub(super) fn keys<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<Key> {
        names.into_iter().map(|name| self.key(name)).collect()
    }

    pub(super) fn prefix(&self, text: &str) -> KeyPrefix {
        KeyPrefix::parse(format!("{}{text}", self.namespace())).expect("a valid prefix")
    }

    pub(super) fn put_op(&self, key: &str, value: Value) -> Write {
        Write::put(self.key(key), value, self.stamp())
    }

    pub(super) fn write_op(&self, key: &str, value: Value, mode: WriteMode, ttl: Option<Ttl>) -> Write {
        Write::new(self.key(key), WriteOp::Put { value, mode, ttl }, self.stamp())
    }

    pub(super) fn delete_op(&self, key: &str) -> Write {
        Write::delete(self.key(key), self.stamp())
    }

    pub(super) async fn write(&self, write: Write) -> Result<WriteAck> {
        self.backend().write(write, &self.cx()).await
    }

    pub(super) async fn write_many(&self, writes: Vec<Write>) -> Vec<Result<WriteAck>> {
        self.backend().write_many(writes, &self.cx()).await
    }

    /// Writes a batch in which nothing may fail.
    pub(super) async fn write_all(&self, writes: Vec<Write>) -> Result<Vec<WriteAck>> {
        let sent = writes.len();
        let acks: Vec<_> = self.write_many(writes).await.into_iter().collect::<Result<_>>()?;
        assert_eq!(acks.len(), sent, "one answer a write");
        Ok(acks)
    }

    pub(super) async fn put(&self, key: &str, value: Value) -> Result<WriteAck> {
        self.write(self.put_op(key, value)).await
    }

    pub(super) async fn put_for(&self, key: &str, value: Value, ttl: Ttl) -> Result<WriteAck> {
        self.write(self.write_op(key, value, WriteMode::Upsert, Some(ttl))).await
    }

    pub(super) async fn create(&self, key: &str, value: Value) -> Result<WriteAck> {
        self.write(self.write_op(key, value, WriteMode::Create, None)).await
    }

    pub(super) async fn update(&self, key: &str, value: Value, revision: Revision) -> Result<WriteAck> {
        self.write(self.write_op(key, value, WriteMode::Update(revision), None)).await
    }

    pub(super) async fn touch(&self, key: &str, ttl: Option<Ttl>) -> Result<WriteAck> {
        self.write(Write::new(self.key(key), WriteOp::Touch { ttl }, self.stamp())).await
    }

    pub(super) async fn delete(&self, key: &str) -> Result<WriteAck> {
        self.write(self.delete_op(key)).await
    }

    pub(super) async fn delete_if(&self, key: &str, revision: Revision) -> Result<WriteAck> {
        let op = WriteOp::Delete { only_if: Some(revision) };
        self.write(Write::new(self.key(key), op, self.stamp())).await
    }

    pub(super) async fn lookup(&self, key: &str) -> Result<Lookup> {
        self.backend().get(&self.key(key), &GetOptions::default(), &self.cx()).await
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Value>> {
        Ok(self.lookup(key).await?.into_value())
    }

    /// Reads an entry that must be there, with its expiry.
    pub(super) async fn entry(&self, key: &str) -> Result<Entry, Failure> {
        let options = GetOptions::default().with_expiry();
        let lookup = self.backend().get(&self.key(key), &options, &self.cx()).await?;
        lookup.into_entry().ok_or_else(|| Failure::new(format!("{key:?} is missing")))
    }

    pub(super) async fn revision(&self, key: &str) -> Result<Revision, Failure> {
        Ok(self.entry(key).await?.revision)
    }

    /// Reads several values in one call.
    pub(super) async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Value>>> {
        let asked = self.keys(keys.iter().copied());
        let answers = self.backend().get_many(&asked, &GetOptions::default(), &self.cx()).await;
        assert_eq!(answers.len(), keys.len(), "one answer a key");
        answers.into_iter().map(|answer| Ok(answer?.into_value())).collect()
    }

    pub(super) async fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.exist(&[key]).await? == [true])
    }

    pub(super) async fn exist(&self, keys: &[&str]) -> Result<Vec<bool>> {
        let asked = self.keys(keys.iter().copied());
        self.backend().exists(&asked, &self.cx()).await.into_iter().collect()
    }

    /// Lists all names with a prefix, in the order of the listing, each checked to lie under the prefix.
    pub(super) async fn listed(&self, prefix: &str, limit: usize) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let (page, next) = self.page(prefix, limit, cursor).await?;
            names.extend(page);
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(names),
            }
        }
        panic!("the listing did not end within {MAX_PAGES} pages");
    }

    /// Lists all names with a prefix, sorted, each once.
    pub(super) async fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = self.listed(prefix, ListOptions::DEFAULT_LIMIT).await?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Lists one page.
    pub(super) async fn page(
        &self,
        prefix: &str,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<String>, Option<Cursor>)> {
        let mut options = ListOptions::default().with_limit(limit);
        options.cursor = cursor;
        let asked = self.prefix(prefix);
        let page = self.backend().list(&asked, &options, &self.cx()).await?;
        let mut names = Vec::with_capacity(page.keys.len());
        for key in page.keys {
            assert!(asked.matches(&key), "{key:?} was listed under {asked:?}");
            names.push(key.as_str().strip_prefix(self.namespace()).unwrap_or_default().to_owned());
        }
        Ok((names, page.next))
    }

    pub(super) async fn count(&self, prefix: &str) -> Result<u64> {
        self.backend().count(&self.prefix(prefix), &self.cx()).await
    }

    pub(super) async fn clear(&self, prefix: &str) -> Result<Option<u64>> {
        self.backend().clear(&self.prefix(prefix), self.stamp(), Attempt::First, &self.cx()).await
    }

    /// A TTL for an entry that [`Subject::lapse`] outwaits.
    pub(super) fn short_ttl(&self) -> Ttl {
        self.elapse().short_ttl()
    }

    /// Lets the entries that were written with [`Subject::short_ttl`] expire.
    pub(super) async fn lapse(&self, keys: &[&str]) -> Result<(), Failure> {
        self.elapse().pass(self.short_ttl().as_duration()).await;
        if let Elapse::Manual(_) = self.elapse() {
            return Ok(());
        }
        let patience = Context::with_timeout(PATIENCE);
        while self.get_many(keys).await?.iter().any(Option::is_some) {
            if patience.is_expired() {
                return Err(Failure::new(format!("an entry is there {} s after its TTL", PATIENCE.as_secs())));
            }
            self.elapse().pass(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

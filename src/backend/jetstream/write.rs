//! Writing: one acknowledged message a write. What depends on the entry that is there is a compare-and-set on its sequence.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::PurgeResponse;
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use serde::Serialize;
use tokio::sync::Mutex;

use crate::contract::{Context, IncrementOptions, Write, WriteAck, WriteMode, WriteOp};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};
use crate::revision::Revision;
use crate::stamp::{HybridClock, Stamp};
use crate::time::{Timestamp, Ttl};
use crate::value::{Format, Value};

use super::batch;
use super::codec::Filter;
use super::connect::Connector;
use super::error::{Failure, api_failure};
use super::publish::{Published, ping, publish};
use super::read;
use super::record::{MARKER_TTL, Record, entry_headers, expect_sequence, expect_sequence_of, expiry, marker_headers};
use super::scan::{Scan, Seen};
use super::session::{Outgoing, Session};

/// The most messages of a batch that wait for their acknowledgements at once.
const PIPELINED: usize = 1024;

/// Counters of one process do not race each other: those of one lock take turns.
const COUNTER_LOCKS: usize = 64;

/// The longest pause between two attempts of a compare-and-set that lost.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Applies writes.
#[derive(Debug)]
pub(super) struct Writer {
    connector: Arc<Connector>,
    default_ttl: Option<Ttl>,
    stamps: Arc<HybridClock>,
    counters: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Writer {
    /// Makes a writer whose entries live for `default_ttl` unless told otherwise.
    pub(super) fn new(connector: Arc<Connector>, default_ttl: Option<Ttl>) -> Self {
        let counters = std::iter::repeat_with(Mutex::default).take(COUNTER_LOCKS).collect();
        Self { connector, default_ttl, stamps: HybridClock::process(), counters, hasher: RandomState::new() }
    }

    /// Applies one write.
    pub(super) async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let Write { key, op, stamp, attempt: _ } = write;
        let target = Target { key: &key, stamp, cx };
        match op {
            WriteOp::Put { value, mode, ttl } => self.put(target, value, mode, ttl).await,
            WriteOp::Delete { only_if: None } => self.delete(target).await,
            WriteOp::Delete { only_if: Some(revision) } => self.delete_if(target, revision).await,
            WriteOp::Touch { ttl } => self.touch(target, ttl).await,
        }
    }

    /// Applies several writes: those of one key in order, all others at the same time.
    pub(super) async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        if batch::are_puts_of_distinct_keys(&writes) {
            return self.put_all(writes, cx).await;
        }
        let mut keys: HashMap<Key, Vec<(usize, Write)>> = HashMap::with_capacity(writes.len());
        let mut order = Vec::with_capacity(writes.len());
        for (at, write) in writes.into_iter().enumerate() {
            let of_key = keys.entry(write.key.clone()).or_default();
            if of_key.is_empty() {
                order.push(write.key.clone());
            }
            of_key.push((at, write));
        }
        let groups = order.into_iter().filter_map(|key| keys.remove(&key)).map(|group| async move {
            let mut answers = Vec::with_capacity(group.len());
            for (at, write) in group {
                answers.push((at, self.write(write, cx).await));
            }
            answers
        });
        let answers: Vec<_> = stream::iter(groups).buffer_unordered(PIPELINED).collect().await;
        let mut answers: Vec<_> = answers.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Adds to a counter.
    pub(super) async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64> {
        let lock = usize::try_from(self.hasher.hash_one(key)).unwrap_or_default() % COUNTER_LOCKS;
        let busy = || Error::unavailable("too many increments wait for their turn");
        let turn = match self.counters.get(lock) {
            Some(counter) => Some(cx.limit(counter.lock()).await.ok_or_else(busy)?),
            None => None,
        };
        let mut pause = Pause::default();
        loop {
            let session = self.session(cx).await?;
            let now = self.connector.clock().now();
            let found = read::last_for_write(&session, key, cx).await?;
            let live = found.as_ref().filter(|record| record.is_live(now));
            let (count, expires) = match live {
                Some(record) => (read_count(record)?, record.expires()?),
                None => (0, expiry(now, options.ttl.or(self.default_ttl))),
            };
            let sum = count.checked_add(by);
            let sum =
                sum.ok_or_else(|| Error::invalid_value("the counter would leave the range of 64-bit integers"))?;
            let value = Value::from_stored(Bytes::from(sum.to_string()), Format::Json);
            let target = Target { key, stamp: self.stamps.issue(), cx };
            let expected = found.map_or(0, |record| record.sequence);
            if let Published::Stored(_) = self.store(&session, target, &value, expires, Some(expected)).await? {
                drop(turn);
                return Ok(sum);
            }
            pause.wait(cx).await?;
        }
    }

    /// Removes everything with a prefix; says how many entries went, where that is known.
    pub(super) async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, cx: &Context) -> Result<Option<u64>> {
        let filter = Filter::new(prefix);
        if filter.exact {
            let session = self.connector.session(cx).await?;
            let before = session.fence.renew(&session, self.stamps.issue(), cx).await?;
            // The server counts messages: markers and what expired too.
            purge(&session, &filter, before, cx).await?;
            session.fence.has_room();
            return Ok(None);
        }
        let session = self.session(cx).await?;
        session.unanswered.decide(&session, &self.stamps, cx).await?;
        self.clear_listed(&session, prefix, &filter, stamp, cx).await.map(Some)
    }

    /// Stores a marker under a subject that stands for no key.
    pub(super) async fn ping(&self, cx: &Context) -> Result<Arc<Session>> {
        let session = self.connector.session(cx).await?;
        let published = ping(&session, self.stamps.issue(), cx).await;
        published.map_err(Failure::of_read)?.map_err(api_failure)?;
        Ok(session)
    }

    /// The session for writing: nothing that an earlier one still has on the way is stored from now on.
    pub(super) async fn session(&self, cx: &Context) -> Result<Arc<Session>> {
        let session = self.connector.session(cx).await?;
        match self.raise_fence(&session, cx).await {
            // Nothing of the write was sent yet, so that another connection can serve it.
            Err(_) if !session.is_usable() => {
                let session = self.connector.session(cx).await?;
                self.raise_fence(&session, cx).await.map(|()| session)
            }
            outcome => outcome.map(|()| session),
        }
    }

    async fn raise_fence(&self, session: &Session, cx: &Context) -> Result<()> {
        if session.bucket.is_fenced {
            session.fence.raise(session, self.stamps.issue(), cx).await?;
        }
        Ok(())
    }

    async fn put(&self, target: Target<'_>, value: Value, mode: WriteMode, ttl: Option<Ttl>) -> Result<WriteAck> {
        let (cx, clock) = (target.cx, self.connector.clock());
        let ttl = ttl.or(self.default_ttl);
        let mut expected = match mode {
            WriteMode::Upsert => None,
            WriteMode::Create => Some(0),
            WriteMode::Update(revision) => Some(self.live_with(target, revision).await?.sequence),
            WriteMode::Replace(revision) => return self.replace(target, &value, revision).await,
        };
        let mut pause = Pause::default();
        loop {
            let session = self.session(cx).await?;
            let expires = expiry(clock.now(), ttl);
            if let Published::Stored(sequence) = self.store(&session, target, &value, expires, expected).await? {
                let existed = match mode {
                    WriteMode::Upsert => None,
                    WriteMode::Create => Some(false),
                    WriteMode::Update(_) | WriteMode::Replace(_) => Some(true),
                };
                return Ok(WriteAck::primary(Some(Revision::from_sequence(sequence)), existed));
            }
            match mode {
                // The fence was gone, which the next attempt raises anew.
                WriteMode::Upsert => {
                    pause.wait(cx).await?;
                    continue;
                }
                WriteMode::Update(_) | WriteMode::Replace(_) => return Err(changed()),
                WriteMode::Create => {}
            }
            expected = match read::last_for_write(&session, target.key, cx).await? {
                Some(record) if record.is_live(clock.now()) => return Err(Error::conflict("the entry exists")),
                // A marker, or an entry that expired and is not removed yet.
                Some(record) => Some(record.sequence),
                None => Some(0),
            };
            pause.wait(cx).await?;
        }
    }

    async fn delete(&self, target: Target<'_>) -> Result<WriteAck> {
        let mut pause = Pause::default();
        loop {
            let session = self.session(target.cx).await?;
            // What is answered without another message must not be undone by one that is still on its way.
            session.unanswered.decide(&session, &self.stamps, target.cx).await?;
            let Some(record) = self.live(&session, target).await? else {
                return Ok(WriteAck::primary(None, Some(false)));
            };
            if let Published::Stored(_) = self.mark_deleted(&session, target, record.sequence).await? {
                return Ok(WriteAck::primary(None, Some(true)));
            }
            pause.wait(target.cx).await?;
        }
    }

    async fn delete_if(&self, target: Target<'_>, revision: Revision) -> Result<WriteAck> {
        let sequence = self.live_with(target, revision).await?.sequence;
        let session = self.session(target.cx).await?;
        match self.mark_deleted(&session, target, sequence).await? {
            Published::Stored(_) => Ok(WriteAck::primary(None, Some(true))),
            Published::Conflict => Err(changed()),
        }
    }

    /// Stores a value over the one of a revision; the entry ends when it would have ended.
    async fn replace(&self, target: Target<'_>, value: &Value, revision: Revision) -> Result<WriteAck> {
        let record = self.live_with(target, revision).await?;
        let session = self.session(target.cx).await?;
        match self.store(&session, target, value, record.expires()?, Some(record.sequence)).await? {
            Published::Stored(sequence) => Ok(WriteAck::primary(Some(Revision::from_sequence(sequence)), Some(true))),
            Published::Conflict => Err(changed()),
        }
    }

    async fn touch(&self, target: Target<'_>, ttl: Option<Ttl>) -> Result<WriteAck> {
        let ttl = ttl.or(self.default_ttl);
        let mut pause = Pause::default();
        loop {
            let session = self.session(target.cx).await?;
            let Some(record) = self.live(&session, target).await? else {
                return Ok(WriteAck::primary(None, Some(false)));
            };
            let expires = expiry(self.connector.clock().now(), ttl);
            let stored = self.store(&session, target, &record.value()?, expires, Some(record.sequence)).await?;
            if let Published::Stored(sequence) = stored {
                return Ok(WriteAck::primary(Some(Revision::from_sequence(sequence)), Some(true)));
            }
            pause.wait(target.cx).await?;
        }
    }

    /// The entry, if there is one.
    async fn live(&self, session: &Session, target: Target<'_>) -> Result<Option<Record>> {
        let found = read::last_for_write(session, target.key, target.cx).await?;
        Ok(found.filter(|record| record.is_live(self.connector.clock().now())))
    }

    /// The entry, which must have this revision.
    async fn live_with(&self, target: Target<'_>, revision: Revision) -> Result<Record> {
        // Another kind of revision is that of no entry here.
        let Some(sequence) = revision.to_sequence() else { return Err(changed()) };
        let session = self.session(target.cx).await?;
        let found = self.live(&session, target).await?;
        found.filter(|record| record.sequence == sequence).ok_or_else(changed)
    }

    /// Stores an entry, if the last message is the expected one, or, if none is, the session's fence stands.
    async fn store(
        &self,
        session: &Session,
        target: Target<'_>,
        value: &Value,
        expires: Option<Timestamp>,
        expected: Option<u64>,
    ) -> Result<Published> {
        let fence = session.fence.sequence().filter(|_| expected.is_none() && session.bucket.is_fenced);
        let message = self.message(session, target, value, expires, expected, fence)?;
        let published = self.send(session, target, message).await?;
        if let (Published::Conflict, Some(sequence)) = (&published, fence) {
            session.fence.is_gone(sequence);
        }
        Ok(published)
    }

    /// The message that stores an entry, if the last one is the expected one, or, if none is, the fence stands.
    pub(super) fn message(
        &self,
        session: &Session,
        target: Target<'_>,
        value: &Value,
        expires: Option<Timestamp>,
        expected: Option<u64>,
        fence: Option<u64>,
    ) -> Result<Outgoing> {
        let limit = session.bucket.max_value_bytes;
        if value.len() > limit {
            let length = value.len();
            return Err(Error::too_large(format!(
                "a value may have at most {limit} bytes here, this one has {length}"
            )));
        }
        let now = self.connector.clock().now();
        let mut headers = entry_headers(value.format(), target.stamp, now, expires);
        if let Some(sequence) = expected {
            expect_sequence(&mut headers, sequence);
        } else if let Some(sequence) = fence {
            expect_sequence_of(&mut headers, session.fence.subject(), sequence);
        }
        let (subject, payload) = (session.bucket.subject(target.key), value.clone().into_bytes());
        Ok(Outgoing { subject, headers, payload })
    }

    /// When an entry ends that is written now.
    pub(super) fn expiry(&self, ttl: Option<Ttl>) -> Option<Timestamp> {
        ttl.or(self.default_ttl).and_then(|ttl| expiry(self.connector.clock().now(), Some(ttl)))
    }

    async fn mark_deleted(&self, session: &Session, target: Target<'_>, sequence: u64) -> Result<Published> {
        let mut headers = marker_headers(target.stamp, MARKER_TTL);
        expect_sequence(&mut headers, sequence);
        let subject = session.bucket.subject(target.key);
        self.send(session, target, Outgoing { subject, headers, payload: Bytes::new() }).await
    }

    async fn send(&self, session: &Session, target: Target<'_>, message: Outgoing) -> Result<Published> {
        let Outgoing { subject, headers, payload } = message;
        self.settle(target, publish(session, subject, headers, payload, target.cx).await).await
    }

    /// What became of a write; where its answer was lost, that is looked up.
    pub(super) async fn settle(
        &self,
        target: Target<'_>,
        outcome: Result<Result<Published, jetstream::Error>, Failure>,
    ) -> Result<Published> {
        match outcome {
            Ok(published) => published.map_err(api_failure),
            Err(failure @ Failure::NotSent(_)) => Err(failure.of_write()),
            Err(failure @ Failure::Unanswered(..)) => match self.find(target).await {
                Some(sequence) => Ok(Published::Stored(sequence)),
                None => Err(failure.of_write()),
            },
        }
    }

    /// Looks whether a write whose answer was lost was applied: then its stamp stands there. If not, nobody knows: it may have
    /// been overwritten since, or still be on its way.
    async fn find(&self, target: Target<'_>) -> Option<u64> {
        let session = self.connector.session(target.cx).await.ok()?;
        let record = read::last_for_write(&session, target.key, target.cx).await.ok().flatten()?;
        record.is_written_by(target.stamp).then_some(record.sequence)
    }

    /// Deletes what is there one by one, each only as it was seen: what is written meanwhile stays.
    async fn clear_listed(
        &self,
        session: &Arc<Session>,
        prefix: &KeyPrefix,
        filter: &Filter,
        stamp: Stamp,
        cx: &Context,
    ) -> Result<u64> {
        let mut cleared = 0;
        let outcome = self.delete_listed(session, prefix, filter, stamp, cx, &mut cleared).await;
        outcome.map(|()| cleared).map_err(|failure| broken_off(failure, cleared))
    }

    /// Counts in `cleared` what went, which is known though it fails.
    async fn delete_listed(
        &self,
        session: &Arc<Session>,
        prefix: &KeyPrefix,
        filter: &Filter,
        stamp: Stamp,
        cx: &Context,
        cleared: &mut u64,
    ) -> Result<()> {
        let mut scan = Scan::after(session, filter, 0, cx).await?;
        let mut to_see = scan.pending();
        while to_see > 0 {
            let mut found = Vec::new();
            while to_see > 0 && found.len() < PIPELINED {
                let Some(Seen { sequence, key, record, .. }) = scan.next(PIPELINED as u64, cx).await? else {
                    to_see = 0;
                    break;
                };
                to_see -= 1;
                let live = record.is_live(self.connector.clock().now());
                found.extend(key.filter(|key| live && prefix.matches(key)).map(|key| (key, sequence)));
            }
            let deletes =
                found.iter().map(|(key, sequence)| self.mark_deleted(session, Target { key, stamp, cx }, *sequence));
            let outcomes = future::join_all(deletes).await;
            *cleared += outcomes.iter().filter(|outcome| matches!(outcome, Ok(Published::Stored(_)))).count() as u64;
            // Of several failures, one that leaves open whether the key is gone says the most.
            let failures = outcomes.into_iter().filter_map(Result::err);
            if let Some(failure) = failures.max_by_key(|failure| failure.kind() == ErrorKind::OutcomeUnknown) {
                return Err(failure);
            }
        }
        Ok(())
    }
}

/// A failure after some entries went is not one of a write that was not applied.
fn broken_off(failure: Error, cleared: u64) -> Error {
    if cleared == 0 || failure.kind() != ErrorKind::Unavailable {
        return failure;
    }
    Error::outcome_unknown("clearing broke off in the middle; some keys are gone").with_source(failure)
}

/// What a write is about.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) key: &'a Key,
    pub(super) stamp: Stamp,
    pub(super) cx: &'a Context,
}

/// Has the server remove the messages beneath a filter, of all sequences or of those before one.
async fn purge(session: &Session, filter: &Filter, before: Option<u64>, cx: &Context) -> Result<()> {
    #[derive(Serialize)]
    struct Purge {
        filter: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
    }
    let operation = format!("STREAM.PURGE.{}", session.bucket.stream());
    let request = Purge { filter: session.bucket.filter(filter), seq: before };
    let answer = session.api::<_, PurgeResponse>(&operation, Some(&request), cx).await.map_err(Failure::of_write)?;
    answer.map(drop).map_err(api_failure)
}

/// A counter is decimal text as we write it: `1e3`, `05` and `-0` are other numbers' text.
fn read_count(record: &Record) -> Result<i64> {
    let value = record.value()?;
    let text = (value.format() == Format::Json).then(|| std::str::from_utf8(value.as_bytes()).ok()).flatten();
    let count = text.and_then(|text| text.parse::<i64>().ok().filter(|count| count.to_string() == text));
    count.ok_or_else(|| Error::wrong_type("the value is not an integer that can be counted with"))
}

fn changed() -> Error {
    Error::conflict("the entry is gone or has another revision")
}

/// Pauses between attempts that lose against others, longer each time, so that one of them gets through.
#[derive(Default)]
struct Pause {
    lost: u32,
}

impl Pause {
    async fn wait(&mut self, cx: &Context) -> Result<()> {
        let longest = Duration::from_millis(1).saturating_mul(1 << self.lost.min(6)).min(LONGEST_PAUSE);
        self.lost += 1;
        // Without a source of randomness the pauses are merely less even.
        let random = getrandom::u32().unwrap_or(self.lost);
        let pause = longest.mul_f64(f64::from(random) / f64::from(u32::MAX));
        let late = || Error::unavailable("others kept getting in between until the deadline");
        cx.limit(tokio::time::sleep(pause)).await.ok_or_else(late)
    }
}

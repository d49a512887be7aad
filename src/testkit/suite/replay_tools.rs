//! What the cases of `replay` share: an outage, in which this process kept a journal while others wrote to the store.

use super::tools::json;
use crate::contract::{
    Append, ConflictOptions, ConflictPolicy, ConflictRecord, DatabaseBackend, ItemId, LostOperation, ReplayOptions,
    ReplayOutcome, Step, Write, WriteMode, WriteOp,
};
use crate::testkit::Subject;
use crate::{HybridClock, Result, Stamp, Timestamp, Ttl, Value};

pub(super) type Database = Subject<dyn DatabaseBackend>;

/// An outage: this process keeps what it writes, and another one goes on writing to the store.
pub(super) struct Outage {
    pub(super) subject: Database,
    pub(super) options: ReplayOptions,
    /// The clock of the other process, which reads the same wall clock.
    pub(super) other: HybridClock,
}

/// A record of a conflict without what a case cannot know: key, stamp, operation, winner.
pub(super) type Loss = (String, Stamp, LostOperation, Stamp);

impl Outage {
    /// Begins now: what was written before is none of its matter.
    pub(super) fn begin(subject: &Database) -> Self {
        Self::begin_at(subject, subject.stamp())
    }

    /// Another outage, after all that was written in this one.
    pub(super) fn next(&self) -> Self {
        Self::begin_at(&self.subject, self.ours())
    }

    fn begin_at(subject: &Database, since: Stamp) -> Self {
        let other = HybridClock::new(subject.elapse().clock());
        other.observe(since);
        let options = ReplayOptions::new(since);
        Self { subject: subject.clone(), options, other }
    }

    /// Chooses who wins.
    pub(super) fn with_policy(mut self, policy: ConflictPolicy) -> Self {
        self.options = self.options.with_policy(policy);
        self
    }

    /// The next stamp of this process, newer than all of the other's.
    pub(super) fn ours(&self) -> Stamp {
        self.subject.stamps().issue_after(self.other.issue())
    }

    /// The next stamp of the other process, newer than all of ours.
    pub(super) fn theirs(&self) -> Stamp {
        self.other.issue_after(self.subject.stamp())
    }

    /// Has the other process write a value now; gives its stamp.
    pub(super) async fn they_put(&self, key: &str, value: &str) -> Result<Stamp> {
        let stamp = self.theirs();
        self.subject.write(Write::put(self.subject.key(key), json(value), stamp)).await?;
        Ok(stamp)
    }

    /// Has the other process delete a key now; gives its stamp.
    pub(super) async fn they_delete(&self, key: &str) -> Result<Stamp> {
        let stamp = self.theirs();
        self.subject.write(Write::delete(self.subject.key(key), stamp)).await?;
        Ok(stamp)
    }

    /// Replays what the other process left.
    pub(super) async fn they_replay(&self, key: &str, value: &str, stamp: Stamp) -> Result<ReplayOutcome> {
        self.replay_one(self.put(key, value, stamp)).await
    }

    /// Has the other process append an item now; gives its stamp.
    pub(super) async fn they_append(&self, key: &str, value: &str) -> Result<Stamp> {
        let stamp = self.theirs();
        self.subject.append_many(vec![Append::new(self.subject.key(key), json(value), stamp)]).await?;
        Ok(stamp)
    }

    /// Replays steps; none may fail.
    pub(super) async fn replay(&self, steps: Vec<Step>) -> Result<Vec<ReplayOutcome>> {
        self.answers(steps).await.into_iter().collect()
    }

    /// Replays one step, which may not fail.
    pub(super) async fn replay_one(&self, step: Step) -> Result<ReplayOutcome> {
        Ok(self.replay(vec![step]).await?[0])
    }

    /// Replays steps, each with its answer.
    pub(super) async fn answers(&self, steps: Vec<Step>) -> Vec<Result<ReplayOutcome>> {
        let sent = steps.len();
        let answers = self.subject.backend().replay(steps, &self.options, &self.subject.cx()).await;
        assert_eq!(answers.len(), sent, "one answer a step");
        answers
    }

    pub(super) fn put(&self, key: &str, value: &str, stamp: Stamp) -> Step {
        self.put_value(key, json(value), None, stamp)
    }

    pub(super) fn put_value(&self, key: &str, value: Value, ttl: Option<Ttl>, stamp: Stamp) -> Step {
        let op = WriteOp::Put { value, mode: WriteMode::Upsert, ttl };
        Step::Write(Write::new(self.subject.key(key), op, stamp))
    }

    /// A put that has ended.
    pub(super) fn ended(&self, key: &str, value: &str, expires_at: Timestamp, stamp: Stamp) -> Step {
        Step::Expired { key: self.subject.key(key), value: json(value), expires_at, stamp }
    }

    /// The moment by the store's clock, or nearly so.
    pub(super) fn now(&self) -> Timestamp {
        self.subject.elapse().clock().now()
    }

    pub(super) fn delete(&self, key: &str, stamp: Stamp) -> Step {
        Step::Write(Write::delete(self.subject.key(key), stamp))
    }

    pub(super) fn append(&self, key: &str, value: &str, stamp: Stamp) -> Step {
        Step::Append(Append::new(self.subject.key(key), json(value), stamp))
    }

    pub(super) fn append_named(&self, key: &str, value: &str, id: &str, stamp: Stamp) -> Step {
        let id = ItemId::parse(id).expect("a valid id");
        Step::Append(Append::new(self.subject.key(key), json(value), stamp).with_item_id(id))
    }

    pub(super) fn clear(&self, prefix: &str, stamp: Stamp) -> Step {
        Step::Clear { prefix: self.subject.prefix(prefix), stamp }
    }

    /// What was lost, in the order in which it is listed.
    pub(super) async fn losses(&self) -> Result<Vec<Loss>> {
        self.subject.losses().await
    }
}

impl Database {
    /// Whether the store replays; one that does not is checked by the first case.
    pub(super) fn replays(&self) -> bool {
        self.backend().capabilities().replay
    }

    /// The conflicts of this namespace, in the order in which they are listed.
    pub(super) async fn conflicts(&self) -> Result<Vec<ConflictRecord>> {
        self.conflicts_by(ConflictOptions::MAX_LIMIT).await
    }

    /// The same in pages of a size.
    pub(super) async fn conflicts_by(&self, limit: usize) -> Result<Vec<ConflictRecord>> {
        let mut ours = Vec::new();
        let mut options = ConflictOptions::default().with_limit(limit);
        loop {
            let page = self.backend().conflicts(&options, &self.cx()).await?;
            assert!(page.len() <= limit, "{} records in a page of {limit}", page.len());
            let last = page.last().cloned();
            let more = page.len() == limit;
            ours.extend(page.into_iter().filter(|record| record.key.as_str().starts_with(self.namespace())));
            match last {
                Some(last) if more => options = options.with_after(&last),
                _ => return Ok(ours),
            }
        }
    }

    /// The conflicts without the moment at which they were found.
    pub(super) async fn losses(&self) -> Result<Vec<Loss>> {
        let name = |record: &ConflictRecord| record.key.as_str()[self.namespace().len()..].to_owned();
        let records = self.conflicts().await?;
        Ok(records.into_iter().map(|record| (name(&record), record.stamp, record.operation, record.winner)).collect())
    }
}

pub(super) fn lost_put(value: &str) -> LostOperation {
    LostOperation::Put { value: json(value), expires_at: None }
}

pub(super) fn lost_append(value: &str, stamp: Stamp) -> LostOperation {
    LostOperation::Append { value: json(value), item_id: ItemId::from(stamp) }
}

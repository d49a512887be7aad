//! Calls on databases that cases make most.

use std::ops::Range;

use super::tools::{json, show};
use crate::contract::{Append, AppendAck, DatabaseBackend, Item, ListRange, Step, StepAck, WriteMode};
use crate::testkit::{Failure, Subject};
use crate::{Result, Value};

impl Subject<dyn DatabaseBackend> {
    pub(super) fn append_op(&self, key: &str, value: Value) -> Append {
        Append::new(self.key(key), value, self.stamp())
    }

    pub(super) async fn append_many(&self, items: Vec<Append>) -> Result<Vec<AppendAck>> {
        let sent = items.len();
        let answers = self.backend().append_many(items, &self.cx()).await;
        assert_eq!(answers.len(), sent, "one answer an item");
        answers.into_iter().collect()
    }

    pub(super) async fn append(&self, key: &str, value: Value) -> Result<AppendAck, Failure> {
        self.append_item(self.append_op(key, value)).await
    }

    pub(super) async fn append_item(&self, item: Append) -> Result<AppendAck, Failure> {
        let acks = self.append_many(vec![item]).await?;
        acks.first().copied().ok_or_else(|| Failure::new("no answer"))
    }

    /// Appends the numbers of a range.
    pub(super) async fn append_numbers(&self, key: &str, numbers: Range<u64>) -> Result<Vec<AppendAck>> {
        self.append_many(numbers.map(|number| self.append_op(key, json(number.to_string()))).collect()).await
    }

    pub(super) async fn items(&self, key: &str, range: ListRange) -> Result<Vec<Item>> {
        self.backend().range(&self.key(key), range, &self.cx()).await
    }

    /// What a list's items in a range show.
    pub(super) async fn range(&self, key: &str, start: i64, end: i64) -> Result<Vec<String>> {
        let items = self.items(key, ListRange::new(start, end)).await?;
        Ok(items.iter().map(|item| show(&item.value)).collect())
    }

    pub(super) async fn length(&self, key: &str) -> Result<u64> {
        self.backend().length(&self.key(key), &self.cx()).await
    }

    pub(super) async fn trim(&self, key: &str, keep_last: u64) -> Result<u64> {
        self.backend().trim(&self.key(key), keep_last, &self.cx()).await
    }

    pub(super) async fn apply(&self, steps: Vec<Step>) -> Result<Vec<StepAck>> {
        self.backend().apply(steps, &self.cx()).await
    }

    pub(super) fn put_step(&self, key: &str, value: &str) -> Step {
        Step::Write(self.put_op(key, json(value)))
    }

    pub(super) fn create_step(&self, key: &str, value: &str) -> Step {
        Step::Write(self.write_op(key, json(value), WriteMode::Create, None))
    }

    pub(super) fn delete_step(&self, key: &str) -> Step {
        Step::Write(self.delete_op(key))
    }

    pub(super) fn append_step(&self, key: &str, value: &str) -> Step {
        Step::Append(self.append_op(key, json(value)))
    }

    pub(super) fn trim_step(&self, key: &str, keep_last: u64) -> Step {
        Step::Trim { key: self.key(key), keep_last }
    }
}

//! What the cases share: values, what to show of them, and checks.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinSet;

use crate::contract::{Append, AppendAck, DatabaseBackend, Item, ListRange, Step, StepAck};
use crate::testkit::{Failure, Outcome, Subject};
use crate::{ErrorKind, Format, Result, Revision, Stamp, Value};

/// The most bytes of a value that a failure shows.
const SHOWN: usize = 200;

pub(super) fn json(text: impl Into<String>) -> Value {
    Value::json(text.into()).expect("valid JSON")
}

pub(super) fn binary(bytes: impl Into<Vec<u8>>) -> Value {
    Value::binary(bytes.into()).expect("within the limit")
}

/// What a failure shows of a value: at most 200 bytes of it.
pub(super) fn peek(value: Option<Value>) -> String {
    value.as_ref().map_or_else(|| "(missing)".to_owned(), show)
}

/// The same as [`peek`], of a value that is there.
pub(super) fn show(value: &Value) -> String {
    let bytes = value.as_bytes();
    let cut = bytes.get(..SHOWN).unwrap_or(bytes);
    let text = match value.format() {
        Format::Json => String::from_utf8_lossy(cut).into_owned(),
        Format::Binary => format!("binary {}", cut.escape_ascii()),
    };
    if bytes.len() > SHOWN { format!("{text}.. ({} bytes)", bytes.len()) } else { text }
}

/// Checks that a value came back byte for byte and with its format.
#[track_caller]
pub(super) fn assert_value(actual: Option<Value>, expected: &Value) {
    let same = actual.as_ref() == Some(expected);
    assert!(same, "expected {}, got {}", show(expected), peek(actual));
}

/// Checks that a call failed with a kind.
#[track_caller]
pub(super) fn assert_kind<T: Debug>(result: Result<T>, expected: ErrorKind) {
    match result {
        Ok(answer) => panic!("expected an error of kind {expected}, got {answer:?}"),
        Err(error) => assert_eq!(error.kind(), expected, "{error}"),
    }
}

/// Checks that a write, which it may answer by a result of whatever type, was lost.
#[track_caller]
pub(super) fn assert_conflict<T: Debug>(result: Result<T>) {
    assert_kind(result, ErrorKind::Conflict);
}

/// The revision of an acknowledgement that must have one.
#[track_caller]
pub(super) fn revised(revision: Option<Revision>) -> Result<Revision, Failure> {
    revision.ok_or_else(|| Failure::new("the acknowledgement has no revision"))
}

/// A task of [`together`], where tasks differ.
pub(super) type Task = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Runs tasks at the same time; the first that fails or panics fails the case.
pub(super) async fn together<F>(tasks: impl IntoIterator<Item = F>) -> Outcome
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut running: JoinSet<Outcome> = tasks.into_iter().collect();
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| Failure::new(format!("a task failed: {error}")))??;
    }
    Ok(())
}

/// Polls a future a few times and drops it then, as a caller does that gives up.
pub(super) async fn abandon<F: Future>(future: F, polls: usize) {
    let give_up = async {
        for _ in 1..polls {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = future => {}
        () = give_up => {}
    }
}

/// Calls on lists that cases make most.
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
    pub(super) async fn append_numbers(&self, key: &str, numbers: std::ops::Range<u64>) -> Result<Vec<AppendAck>> {
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
}

/// A stamp later than all the suite gives, by the clock of another process.
pub(super) fn future_stamp<B: crate::contract::Store + ?Sized>(subject: &Subject<B>) -> Stamp {
    let clock = subject.slow_clock();
    let wall = crate::Clock::manual();
    wall.advance(std::time::Duration::from_secs(3600));
    clock.observe(crate::HybridClock::new(wall).issue());
    clock.issue()
}

/// The key of a longest name that begins as given.
pub(super) fn longest<B: crate::contract::Store + ?Sized>(subject: &Subject<B>, begin: &str) -> String {
    let room = subject.longest_name() - begin.len();
    format!("{begin}{}", "k".repeat(room))
}

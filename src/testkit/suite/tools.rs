//! What the cases share: values, what to show of them, and checks.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinSet;

use crate::contract::Store;
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

/// A stamp later than all the suite gives, by the clock of another process.
pub(super) fn future_stamp<B: Store + ?Sized>(subject: &Subject<B>) -> Stamp {
    let clock = subject.slow_clock();
    let wall = crate::Clock::manual();
    wall.advance(std::time::Duration::from_secs(3600));
    clock.observe(crate::HybridClock::new(wall).issue());
    clock.issue()
}

/// The key of a longest name that begins as given.
pub(super) fn longest<B: Store + ?Sized>(subject: &Subject<B>, begin: &str) -> String {
    let room = subject.longest_name() - begin.len();
    format!("{begin}{}", "k".repeat(room))
}

//! Sending one batch, and finding the item that spoils it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::contract::Context;
use crate::error::{Error, ErrorKind, Result};

use super::queue::Waiting;
use super::work::Work;

/// Calls to be sent together.
pub(super) struct Batch<W: Work> {
    pub(super) items: Vec<W::Item>,
    /// The batch has as long as the most patient of its callers.
    pub(super) deadline: Instant,
}

impl<W: Work> Batch<W> {
    /// Takes calls along, without those whose callers are gone; none if all are. Says who waits for the batch.
    pub(super) fn of(mut taken: Vec<Waiting<W>>) -> (Option<Self>, Vec<Waiting<W>>) {
        let mut items = Vec::with_capacity(taken.len());
        taken.retain(|call| match call.slot.send() {
            Some(item) => {
                items.push(item);
                true
            }
            None => false,
        });
        let deadline = taken.iter().map(|call| call.deadline).max();
        (deadline.map(|deadline| Self { items, deadline }), taken)
    }
}

/// Sends a batch; one that fails as a whole, by the fault of an item, is halved until the item fails alone.
pub(super) async fn send<W: Work>(work: &Arc<W>, items: Vec<W::Item>, cx: Context) -> Vec<Result<W::Answer>> {
    let count = items.len();
    if count < 2 {
        return send_whole(work, items, cx).await;
    }
    let answers = send_whole(work, items.clone(), cx).await;
    if answers.iter().all(is_item_fault) { halve(work, items, cx).await } else { answers }
}

fn halve<W: Work>(work: &Arc<W>, mut items: Vec<W::Item>, cx: Context) -> BoxFuture<'_, Vec<Result<W::Answer>>> {
    async move {
        let second_half = items.split_off(items.len() / 2);
        let mut answers = send(work, items, cx).await;
        answers.extend(send(work, second_half, cx).await);
        answers
    }
    .boxed()
}

/// Sends a batch and gives one answer an item, whatever the store does.
async fn send_whole<W: Work>(work: &Arc<W>, items: Vec<W::Item>, cx: Context) -> Vec<Result<W::Answer>> {
    let count = items.len();
    let sent = AssertUnwindSafe(async { Arc::clone(work).send_many(items, cx).await }).catch_unwind().await;
    let mut answers = sent.unwrap_or_else(|_| (0..count).map(|_| Err(panicked())).collect());
    answers.truncate(count);
    while answers.len() < count {
        answers.push(Err(Error::outcome_unknown("the store gave fewer answers than the batch had items")));
    }
    answers
}

/// A panic leaves open what was applied.
pub(super) fn panicked() -> Error {
    Error::internal("the store panicked in the middle of a call; what it was doing may have been applied")
}

/// Whether an answer says that nothing was applied, for a reason that may lie in another item of the batch.
fn is_item_fault<A>(answer: &Result<A>) -> bool {
    let fault = |kind| {
        matches!(
            kind,
            ErrorKind::InvalidKey
                | ErrorKind::InvalidValue
                | ErrorKind::TooLarge
                | ErrorKind::WrongType
                | ErrorKind::Corrupt
                | ErrorKind::Unsupported
        )
    };
    answer.as_ref().is_err_and(|error| fault(error.kind()))
}

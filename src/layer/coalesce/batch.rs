//! Sending one batch, and finding the item that spoils it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::contract::Context;
use crate::error::{Error, ErrorKind, Result};

use super::work::Work;

/// Sends a batch; one that fails as a whole, by the fault of an item, is halved until the item fails alone.
pub(super) fn send<W: Work>(
    work: Arc<W>,
    items: Vec<W::Item>,
    cx: Context,
) -> BoxFuture<'static, Vec<Result<W::Answer>>> {
    async move {
        let count = items.len();
        let answers = send_whole(Arc::clone(&work), items.clone(), cx).await;
        if count < 2 || !answers.iter().all(is_item_fault) {
            return answers;
        }
        let mut first_half = items;
        let second_half = first_half.split_off(count / 2);
        let mut answers = send(Arc::clone(&work), first_half, cx).await;
        answers.extend(send(work, second_half, cx).await);
        answers
    }
    .boxed()
}

/// Sends a batch and gives one answer an item, whatever the store does.
async fn send_whole<W: Work>(work: Arc<W>, items: Vec<W::Item>, cx: Context) -> Vec<Result<W::Answer>> {
    let count = items.len();
    let sent = AssertUnwindSafe(async { work.send_many(items, cx).await }).catch_unwind().await;
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

//! Answering a batch of which some items fail before they are sent.

use std::future::Future;

use crate::error::{Error, Result};

/// Sends the good items on as one batch, and answers each item in its place.
pub(crate) async fn answer_each<T, A, F>(items: Vec<Result<T>>, send: impl FnOnce(Vec<T>) -> F) -> Vec<Result<A>>
where
    F: Future<Output = Vec<Result<A>>>,
{
    let mut good = Vec::with_capacity(items.len());
    let refused: Vec<Option<Error>> = items
        .into_iter()
        .map(|item| match item {
            Ok(item) => {
                good.push(item);
                None
            }
            Err(error) => Some(error),
        })
        .collect();
    let mut answers = send(good).await.into_iter();
    let mut next =
        || answers.next().unwrap_or_else(|| Err(Error::internal("a batch gave fewer answers than it had items")));
    refused.into_iter().map(|refused| refused.map_or_else(&mut next, Err)).collect()
}

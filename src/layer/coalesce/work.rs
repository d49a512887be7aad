//! What lanes carry: reads, writes and appends.

use std::future::Future;
use std::sync::Arc;

use crate::contract::{
    Append, AppendAck, Context, DatabaseBackend, Expiry, GetOptions, Lookup, Store, Write, WriteAck,
};
use crate::error::{Error, Result};
use crate::key::Key;

/// A kind of call that can be batched.
pub(super) trait Work: Send + Sync + 'static {
    /// One call.
    type Item: Clone + Send + Unpin + 'static;
    /// The answer to one call.
    type Answer: Send + 'static;
    /// What calls of one batch have in common.
    type Kind: Copy + Eq + Send + 'static;

    /// Whether calls of one key keep their order, so that they share a lane.
    const ORDERED: bool;
    /// Whether a batch holds at most one call of a key.
    const ONE_OF_A_KEY: bool;

    /// The bytes of values that the call carries.
    fn bytes(item: &Self::Item) -> usize;

    /// The bytes of values that an answer carries.
    fn answer_bytes(_answer: &Self::Answer) -> usize {
        0
    }

    /// The call's key.
    fn key(item: &Self::Item) -> &Key;

    /// What the call must have in common with the others of its batch.
    fn kind(item: &Self::Item) -> Self::Kind;

    /// Sends one call alone.
    fn send_one(
        self: Arc<Self>,
        item: Self::Item,
        cx: Context,
    ) -> impl Future<Output = Result<Self::Answer>> + Send + 'static;

    /// Sends a batch.
    fn send_many(
        self: Arc<Self>,
        items: Vec<Self::Item>,
        cx: Context,
    ) -> impl Future<Output = Vec<Result<Self::Answer>>> + Send + 'static;

    /// The error of a call that was sent and not answered.
    fn unanswered() -> Error;
}

/// Reads: any may go with any.
#[derive(Debug)]
pub(super) struct Reads<B: ?Sized>(pub(super) Arc<B>);

impl<B: Store + ?Sized> Work for Reads<B> {
    type Item = (Key, GetOptions);
    type Answer = Lookup;
    type Kind = ();

    const ORDERED: bool = false;
    const ONE_OF_A_KEY: bool = false;

    fn bytes((key, _): &Self::Item) -> usize {
        key.as_bytes().len()
    }

    fn answer_bytes(answer: &Lookup) -> usize {
        match answer {
            Lookup::Found(entry) => entry.value.len(),
            Lookup::Missing { .. } => 0,
        }
    }

    fn key((key, _): &Self::Item) -> &Key {
        key
    }

    fn kind(_item: &Self::Item) {}

    async fn send_one(self: Arc<Self>, (key, options): Self::Item, cx: Context) -> Result<Lookup> {
        self.0.get(&key, &options, &cx).await
    }

    async fn send_many(self: Arc<Self>, items: Vec<Self::Item>, cx: Context) -> Vec<Result<Lookup>> {
        let mut options = GetOptions::default();
        options.expiry = items.iter().any(|(_, options)| options.expiry);
        options.without_revision = items.iter().all(|(_, options)| options.without_revision);
        let (keys, asked): (Vec<Key>, Vec<GetOptions>) = items.into_iter().unzip();
        let mut answers = self.0.get_many(&keys, &options, &cx).await;
        for (answer, asked) in answers.iter_mut().zip(asked) {
            // Others of the batch asked for it.
            if let Ok(Lookup::Found(entry)) = answer
                && !asked.expiry
            {
                entry.expiry = Expiry::NotAsked;
            }
        }
        answers
    }

    fn unanswered() -> Error {
        Error::unavailable("the read was not answered before the deadline")
    }
}

/// Writes: one of a key in a batch, and conditional ones apart.
#[derive(Debug)]
pub(super) struct Writes<B: ?Sized>(pub(super) Arc<B>);

impl<B: Store + ?Sized> Work for Writes<B> {
    type Item = Write;
    type Answer = WriteAck;
    /// Whether it is conditional.
    type Kind = bool;

    const ORDERED: bool = true;
    const ONE_OF_A_KEY: bool = true;

    fn bytes(item: &Write) -> usize {
        item.key.as_bytes().len().saturating_add(item.value_bytes())
    }

    fn key(item: &Write) -> &Key {
        &item.key
    }

    fn kind(item: &Write) -> bool {
        item.is_conditional()
    }

    async fn send_one(self: Arc<Self>, item: Write, cx: Context) -> Result<WriteAck> {
        self.0.write(item, &cx).await
    }

    async fn send_many(self: Arc<Self>, items: Vec<Write>, cx: Context) -> Vec<Result<WriteAck>> {
        self.0.write_many(items, &cx).await
    }

    fn unanswered() -> Error {
        Error::outcome_unknown("the write was not answered before the deadline")
    }
}

/// Appends: any number of a list in a batch, in their order.
#[derive(Debug)]
pub(super) struct Appends(pub(super) Arc<dyn DatabaseBackend>);

impl Work for Appends {
    type Item = Append;
    type Answer = AppendAck;
    type Kind = ();

    const ORDERED: bool = true;
    const ONE_OF_A_KEY: bool = false;

    fn bytes(item: &Append) -> usize {
        item.key.as_bytes().len().saturating_add(item.value.len())
    }

    fn key(item: &Append) -> &Key {
        &item.key
    }

    fn kind(_item: &Append) {}

    async fn send_one(self: Arc<Self>, item: Append, cx: Context) -> Result<AppendAck> {
        let answers = self.0.append_many(vec![item], &cx).await;
        answers.into_iter().next().unwrap_or_else(|| Err(Error::internal("an append was not answered")))
    }

    async fn send_many(self: Arc<Self>, items: Vec<Append>, cx: Context) -> Vec<Result<AppendAck>> {
        self.0.append_many(items, &cx).await
    }

    fn unanswered() -> Error {
        Error::outcome_unknown("the append was not answered before the deadline")
    }
}

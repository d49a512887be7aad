//! The [`Journal`]: operations that were acknowledged here and are owed to the primary.

use std::fmt::Debug;
use std::time::Instant;

use async_trait::async_trait;

use crate::contract::{Durability, Identity, ItemId};
use crate::error::Result;
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::Value;

/// An operation as it is journaled: unconditional, with the stamp it was given before its first attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// The operation's identity and its place in the order of writes.
    pub(crate) stamp: Stamp,
    /// What it does.
    pub(crate) action: Action,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Writes a value; the entry ends at `expires_at`.
    Put { key: Key, value: Value, expires_at: Option<Timestamp> },
    /// Deletes value and list.
    Delete { key: Key },
    /// Appends an item.
    Append { key: Key, value: Value, item_id: ItemId },
    /// Deletes everything with a prefix that is older.
    Clear { prefix: KeyPrefix },
}

/// An operation without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its number: they rise in the order in which operations were journaled, and are never used again.
    pub(crate) seq: u64,
    /// The operation's stamp.
    pub(crate) stamp: Stamp,
    /// What it does, and to what.
    pub(crate) effect: Effect,
    /// Whether it was put aside, because it could not be replayed.
    pub(crate) parked: bool,
}

/// What an operation does, and to what, without the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Writes the value of a key, until a moment.
    Put(Key, Option<Timestamp>),
    /// Deletes value and list of a key.
    Delete(Key),
    /// Appends to the list of a key.
    Append(Key),
    /// Deletes everything with a prefix that is older.
    Clear(KeyPrefix),
}

/// What a journal knows beside its operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Which primary the configuration names, as a digest without secrets.
    pub(crate) fingerprint: Option<String>,
    /// Which database the primary was when it was last seen.
    pub(crate) identity: Option<Identity>,
    /// No stamp later than this one was given before it was raised; a clock that starts here gives newer ones.
    pub(crate) clock_reserve: Option<Timestamp>,
}

/// Where operations are kept until the primary has them.
#[async_trait]
pub(crate) trait Journal: Send + Sync + Debug {
    /// Keeps operations, in order, all or none; answers their numbers once they are as durable as the journal makes them.
    ///
    /// A call that was begun runs to its end though it is dropped.
    ///
    /// # Errors
    ///
    /// `Unavailable` if nothing was kept; `OutcomeUnknown` if that is open.
    async fn append(&self, operations: Vec<Operation>, deadline: Instant) -> Result<Vec<u64>>;

    /// Reads one operation; `None` if it is not there any more.
    async fn read(&self, seq: u64) -> Result<Option<Operation>>;

    /// Reads operations by their numbers, in that order, up to so many bytes of values but at least one; those that are not there
    /// any more are left out.
    async fn read_many(&self, seqs: Vec<u64>, max_bytes: usize) -> Result<Vec<(u64, Operation)>>;

    /// Removes what was replayed and puts aside, with a reason, what cannot be, in one transaction.
    async fn settle(&self, done: Vec<u64>, parked: Vec<(u64, String)>) -> Result<()>;

    /// Lists what is there in the order of the numbers, from the first after `after`.
    async fn headers(&self, after: u64, limit: usize) -> Result<Vec<Header>>;

    /// What is known beside the operations.
    async fn meta(&self) -> Result<Meta>;

    /// Keeps what is known beside the operations.
    async fn set_meta(&self, meta: Meta) -> Result<()>;

    /// What an operation that is kept here survives.
    fn durability(&self) -> Durability;

    /// The bytes it holds, as its bound counts them.
    fn bytes(&self) -> u64;

    /// Whether it takes no more operations: it is full, or the disk is, or failed.
    fn is_full(&self) -> bool;

    /// Ends what is under way and closes it.
    async fn close(&self, deadline: Instant) -> Result<()>;
}

//! What a journal can do: the trait [`Journal`].

use std::fmt::Debug;
use std::time::Instant;

use async_trait::async_trait;

use crate::contract::{Durability, Identity, Succession};
use crate::error::Result;
use crate::stamp::Stamp;

use super::operation::{Episode, Exported, Header, Meta, Operation};

/// How many headers are read at once.
const HEADERS: usize = 10_000;

/// Shows the headers of all that a journal holds after an operation, some thousands at a time.
pub(crate) async fn each_header(
    journal: &dyn Journal,
    mut after: u64,
    mut show: impl FnMut(Vec<Header>) + Send,
) -> Result<()> {
    loop {
        let headers = journal.headers(after, HEADERS).await?;
        let Some(last) = headers.last() else { return Ok(()) };
        after = last.seq;
        show(headers);
    }
}

/// Where operations are kept until the primary has them.
#[async_trait]
pub(crate) trait Journal: Send + Sync + Debug {
    /// Keeps operations, in order, all or none; answers their numbers once they are as durable as the journal makes them. With
    /// them it remembers that the outage began no later than `since`.
    ///
    /// What has not begun by the deadline never does; what has begun is waited for, so that whoever asked knows whether it was kept.
    /// A call that was begun runs to its end though it is dropped.
    ///
    /// # Errors
    ///
    /// `Unavailable` if nothing was kept; `OutcomeUnknown` if that is open, because the disk failed.
    async fn append(&self, operations: Vec<Operation>, since: Stamp, deadline: Instant) -> Result<Vec<u64>>;

    /// Reads one operation; `None` if it is not there any more.
    async fn read(&self, seq: u64) -> Result<Option<Operation>>;

    /// Reads operations by their numbers, in that order, up to so many bytes of values but at least one; those that are not there
    /// any more are left out.
    async fn read_many(&self, seqs: Vec<u64>, max_bytes: usize) -> Result<Vec<(u64, Operation)>>;

    /// Removes what was replayed and puts aside, with a reason, what cannot be, in one transaction. When nothing waits any more, it
    /// is forgotten when the outage began.
    async fn settle(&self, done: Vec<u64>, parked: Vec<(u64, String)>) -> Result<()>;

    /// Has operations wait again that were put aside.
    async fn unpark(&self, seqs: Vec<u64>) -> Result<()>;

    /// Removes an operation if it was put aside; `false` if it was not, or is not there.
    async fn drop_parked(&self, seq: u64) -> Result<bool>;

    /// What is remembered of the outage.
    async fn episode(&self) -> Result<Episode>;

    /// Adds to what the writers of the operations knew of each other.
    async fn add_succession(&self, added: Succession) -> Result<()>;

    /// Lists what is there in the order of the numbers, from the first after `after`.
    async fn headers(&self, after: u64, limit: usize) -> Result<Vec<Header>>;

    /// Lists operations whole, those put aside too, in the order of the numbers, from the first after `after`: at most so many,
    /// and up to so many bytes of values but at least one. Nothing left is an empty answer.
    async fn export(&self, after: u64, limit: usize, max_bytes: usize) -> Result<Vec<Exported>>;

    /// What is known beside the operations.
    async fn meta(&self) -> Result<Meta>;

    /// Keeps what is known beside the operations.
    async fn set_meta(&self, meta: Meta) -> Result<()>;

    /// Which database is to be taken for the known one, if somebody has decided so.
    async fn accepted(&self) -> Option<Identity>;

    /// Forgets that decision: it was carried out.
    async fn forget_accepted(&self);

    /// What an operation that is kept here survives.
    fn durability(&self) -> Durability;

    /// The bytes it holds, as its bound counts them.
    fn bytes(&self) -> u64;

    /// Whether it takes no more operations: it is full, or the disk is, or failed.
    fn is_full(&self) -> bool;

    /// Ends what is under way and closes it.
    async fn close(&self, deadline: Instant) -> Result<()>;
}

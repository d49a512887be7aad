//! The traits that backends and layers implement.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::Ttl;

use super::capabilities::Capabilities;
use super::context::Context;
use super::entry::{GetOptions, Lookup};
use super::list::{Append, AppendAck, Item, ListRange};
use super::ping::{Identity, Ping};
use super::replay::{ConflictOptions, ConflictRecord, ReplayOptions, ReplayOutcome};
use super::scan::{KeyPage, ListOptions};
use super::step::{Step, StepAck};
use super::write::{Attempt, Write, WriteAck};

/// What every store does, cache or database.
///
/// There are no default bodies, so that a layer cannot forget to forward one.
///
/// # Errors
///
/// Every method: [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) where the store cannot be used before the deadline,
/// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`Store::close`],
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where a record cannot be read back. Writes also:
/// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) where the reply was lost,
/// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) where a condition did not hold,
/// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) over the store's limits.
///
/// # Cancel safety
///
/// Every method may be dropped at any point. A write that had begun runs to its end; nothing is left locked, half-written or
/// stranded.
#[async_trait]
pub trait Store: Send + Sync + Debug + 'static {
    /// Reads one value.
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup>;

    /// Reads several values in one round trip: one answer a key, in the order of the keys, duplicates allowed.
    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>>;

    /// Says of each key whether there is a value, or in a database a list with items, under it.
    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>>;

    /// Applies one write.
    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck>;

    /// Applies several writes in one round trip: one answer a write, in order. Each stands for itself; writes of one key are
    /// applied in order, so that the last wins. A batch over the store's limits is cut up.
    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>>;

    /// Lists one page of the keys with a prefix. A key that is there throughout the listing is listed.
    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage>;

    /// Counts the keys with a prefix.
    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64>;

    /// Removes everything with a prefix that was written before the call; says how many keys went, where the store knows.
    ///
    /// What is written during the call may stay or go. A clear that fails in the middle has removed some. One that may not be
    /// stamped anew, because `attempt` says so, removes what is older than its stamp, and fails if anything else is there.
    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>>;

    /// Proves that the store can be used, by writing: a read-only replica must not pass.
    async fn ping(&self, cx: &Context) -> Result<Ping>;

    /// Says what the store can do. It needs no connection.
    fn capabilities(&self) -> Capabilities;

    /// Closes the store: waits for what is in flight until the deadline; every later call is
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed). Closing twice is not an error.
    async fn close(&self, cx: &Context) -> Result<()>;
}

/// How a counter is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncrementOptions {
    /// The TTL of a counter that this call creates; one that is there keeps its own.
    pub ttl: Option<Ttl>,
}

impl IncrementOptions {
    /// Sets the TTL of a counter that this call creates.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// A store for what can be had again: sessions, results, counters.
#[async_trait]
pub trait CacheBackend: Store {
    /// Adds to a counter in one atomic step and answers its new value. A missing counter begins at 0.
    ///
    /// A counter is stored as decimal text, a JSON value like any other, so `get` reads it and `set` writes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if the value is not an integer in the range of `i64`;
    /// [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) if the sum would leave that range. Nothing is changed then.
    async fn increment(&self, key: &Key, by: i64, options: &IncrementOptions, cx: &Context) -> Result<i64>;
}

/// A store for what must be kept: state, history, with lists and transactions.
#[async_trait]
pub trait DatabaseBackend: Store {
    /// Puts items at the tails of their lists, in order, in one round trip: one answer an item.
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>>;

    /// Reads items of a list in order; a missing list is empty.
    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>>;

    /// Counts the items of a list; a missing list has none.
    async fn length(&self, key: &Key, cx: &Context) -> Result<u64>;

    /// Cuts a list to its last items and says how many went. It is never repeated by a layer.
    ///
    /// It has no stamp, and orders nothing: one that lands after its caller gave it up still leaves the last items of the list,
    /// those that were appended since among them.
    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64>;

    /// Applies steps in order, all or nothing, conditions included.
    ///
    /// # Errors
    ///
    /// The error of the first step that failed, a fixed one that is behind too; nothing was applied then.
    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>>;

    /// Applies steps that were acknowledged elsewhere and may have been applied before, in order, each once in effect under the
    /// stamp it has: one answer a step. What loses is kept as a [`ConflictRecord`].
    ///
    /// - A put is judged by the value or tombstone under its key, as [`ReplayOptions::decide`] says. A TTL counts from the replay
    ///   on, so whoever kept the put gives what is left of it. A list under the key stays.
    /// - A [`Step::Expired`] is a put of which nothing is left: it is judged and written like one, ends at the earlier of its own end
    ///   and the replay, so that no reader ever finds it, and keeps anything older from coming back.
    /// - An append is there already if the list has, or lately had, an item of its id; otherwise it is judged by the list's floor,
    ///   the stamp of its last delete. It overwrites nothing. After an append that was not applied (it failed, or was too old), later
    ///   ones of its list in the same call are not applied either, but [`ReplayOutcome::Withheld`]; [`AppendOrder`](super::AppendOrder)
    ///   tells which.
    /// - A delete is judged by the value or tombstone under its key and, apart from that, by the list: by its floor, then by each
    ///   item. It is superseded if anything of somebody else's stays. Tombstone and floor are left where nothing was, too.
    ///   Items that stay behind others that go keep their order, and may get new, higher positions.
    /// - A clear deletes like that every key that is there. What was written after it stays, which is no conflict.
    /// - Trims, touches and writes with a condition are [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// All steps of one call are one transaction, but a [`Step::Clear`], which may be applied in parts, parts the steps before it
    /// from those after it, and is repeatable. An answer that is [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) or
    /// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) is given to all steps alike; any other error is that of its
    /// own step, and the other steps were applied.
    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>>;

    /// The newest stamps that are known of values: of each what wrote or deleted it, also where it has ended. `None` where nothing is
    /// known. In the order of the keys.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the store knows none; its capability `replay` is `false` then.
    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>>;

    /// Says which database this is.
    async fn identity(&self, cx: &Context) -> Result<Identity>;

    /// Says which database must answer from now on; `None` takes any, as at first.
    ///
    /// Every call proves it in the statement that does its work: where another database answers, or one whose canary is below the
    /// expected one, or one that cannot be written, as a replica, nothing is read or written, and the call fails as
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) with [`Outage::Foreign`](crate::Outage::Foreign). No tables are
    /// made in an empty database while another one is expected. Only [`DatabaseBackend::identity`] answers in any case, so that what
    /// is there can be seen.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the store cannot prove what it is; its capability `replay` is
    /// `false` then.
    fn expect(&self, identity: Option<Identity>) -> Result<()>;

    /// Lists writes that were acknowledged and lost, in the order of their stamps, then of their keys.
    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>>;

    /// Forgets one of them; `false` if it is not there (any more).
    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool>;
}

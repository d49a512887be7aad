//! What a store can do: [`Capabilities`].

use crate::value::Value;

use super::write::Durability;

/// What a store can do, so that a program, and the conformance suite, need not try.
///
/// A backend begins with [`Capabilities::new`] and sets the fields that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The backend's name: `memory`, `sqlite`, `postgres`, `redis`, `jetstream`, or a user's own.
    pub backend: &'static str,
    /// What the store makes of an acknowledged write: [`Durability::Primary`] if it outlives the process.
    pub durability: Durability,
    /// Whether several processes see the same entries.
    pub shared: bool,
    /// What a revision is.
    pub revision: RevisionKind,
    /// How keys are listed.
    pub listing: Listing,
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// Whether a write is guarded by its stamp, so that it may be repeated after an unknown outcome, and is harmless when it
    /// arrives late.
    pub stamp_guard: bool,
    /// Whether `Delete { only_if }` is there.
    pub conditional_delete: bool,
    /// Whether `increment` is there (caches).
    pub increment: bool,
    /// Whether lists are there: `append_many`, `range`, `length`, `trim` (databases).
    pub lists: bool,
    /// Whether `apply` is there: several operations, all or nothing (databases).
    pub transactions: bool,
    /// Whether `replay` and `expect` are there, and with them `conflicts` and `forget_conflict` (databases). A chain, which replays by
    /// itself, has only the latter two.
    pub replay: bool,
    /// Whether entries may be evicted before they are deleted or expire.
    pub evicts: bool,
}

impl Capabilities {
    /// Makes capabilities of a store that shares nothing, survives nothing and has none of the optional operations.
    #[must_use]
    pub const fn new(backend: &'static str) -> Self {
        Self {
            backend,
            durability: Durability::Volatile,
            shared: false,
            revision: RevisionKind::Stamp,
            listing: Listing::ByteOrder,
            max_value_bytes: Value::MAX_BYTES,
            stamp_guard: false,
            conditional_delete: false,
            increment: false,
            lists: false,
            transactions: false,
            replay: false,
            evicts: false,
        }
    }
}

/// What a [`Revision`](crate::Revision) is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevisionKind {
    /// The stamp of the write: every write has another.
    Stamp,
    /// The sequence of the write in a stream: every write has another.
    Sequence,
    /// A digest of the stored bytes: an identical value has an identical revision.
    Digest,
}

/// How keys are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Listing {
    /// Each key once, in byte order.
    ByteOrder,
    /// Each key once, in no order to rely on.
    Once,
    /// Each key at least once, in no order; a key may come twice while the store is written to.
    AtLeastOnce,
}

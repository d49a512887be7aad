//! What a read answers: the [`Lookup`] and its [`Entry`].

use crate::revision::Revision;
use crate::time::Timestamp;
use crate::value::Value;

/// What a read should tell beside the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetOptions {
    /// Whether [`Entry::expiry`] should be filled in. It costs Redis a second command in the same round trip.
    pub expiry: bool,
    /// Whether [`Entry::revision`] may be left out, as [`Revision::NOT_ASKED`]. That of Redis is a digest of the value, which takes half a
    /// millisecond a mebibyte; a store that has it at hand tells it all the same.
    pub without_revision: bool,
}

impl GetOptions {
    /// Asks for the expiry too.
    #[must_use]
    pub const fn with_expiry(mut self) -> Self {
        self.expiry = true;
        self
    }

    /// Does without the revision.
    #[must_use]
    pub const fn without_revision(mut self) -> Self {
        self.without_revision = true;
        self
    }
}

/// The answer to a read that tells absence from ignorance.
///
/// [`Lookup::Missing`] is said only where the store knows that there is no entry; where it cannot know, the read fails with
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// There is an entry.
    Found(Entry),
    /// There is none, as far as the source of the answer goes.
    Missing {
        /// Where the answer comes from.
        freshness: Freshness,
    },
}

impl Lookup {
    /// The primary's word that there is no entry.
    #[must_use]
    pub const fn missing() -> Self {
        Self::Missing { freshness: Freshness::Primary }
    }

    /// Whether there is an entry.
    #[must_use]
    pub const fn is_found(&self) -> bool {
        matches!(self, Self::Found(_))
    }

    /// The entry, if there is one.
    #[must_use]
    pub fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Found(entry) => Some(entry),
            Self::Missing { .. } => None,
        }
    }

    /// The value, if there is one.
    #[must_use]
    pub fn into_value(self) -> Option<Value> {
        self.into_entry().map(|entry| entry.value)
    }

    /// Where the answer comes from.
    #[must_use]
    pub const fn freshness(&self) -> Freshness {
        match self {
            Self::Found(entry) => entry.freshness,
            Self::Missing { freshness } => *freshness,
        }
    }
}

/// A value as it is stored, with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The value, byte for byte as it was written.
    pub value: Value,
    /// Which version of the entry this is; see [`GetOptions::without_revision`].
    pub revision: Revision,
    /// When the entry ends, if that was asked.
    pub expiry: Expiry,
    /// Where the answer comes from.
    pub freshness: Freshness,
}

impl Entry {
    /// Makes the primary's entry, with the expiry not asked.
    #[must_use]
    pub const fn new(value: Value, revision: Revision) -> Self {
        Self { value, revision, expiry: Expiry::NotAsked, freshness: Freshness::Primary }
    }

    /// Fills in the expiry: `None` stands for an entry that stays.
    #[must_use]
    pub const fn with_expiry(mut self, at: Option<Timestamp>) -> Self {
        self.expiry = match at {
            Some(at) => Expiry::At(at),
            None => Expiry::Never,
        };
        self
    }
}

/// When an entry ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The read did not ask; see [`GetOptions::with_expiry`].
    NotAsked,
    /// The entry stays until it is deleted.
    Never,
    /// The entry is absent from this moment on.
    At(Timestamp),
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// The primary store.
    Primary,
    /// A write of this process that is still owed to the primary.
    LocalPending,
    /// The store that stands in while the primary is away.
    Fallback,
    /// A memory of what was last seen; it may be old.
    Stale,
}

//! Operations of a database as data, for transactions and for replay.

use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::list::{Append, AppendAck};
use super::write::{Write, WriteAck};

/// One operation of a transaction or of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A write, with its condition if it has one.
    Write(Write),
    /// An append.
    Append(Append),
    /// Cuts a list to its last items.
    Trim {
        /// The list's key.
        key: Key,
        /// How many items stay.
        keep_last: u64,
    },
    /// Removes everything under a prefix. Only in a replay; in a transaction it is unsupported.
    Clear {
        /// The prefix.
        prefix: KeyPrefix,
        /// The operation's identity and its place in the order of writes.
        stamp: Stamp,
    },
}

impl Step {
    /// The key it touches; `None` for a whole prefix.
    #[must_use]
    pub const fn key(&self) -> Option<&Key> {
        match self {
            Self::Write(write) => Some(&write.key),
            Self::Append(append) => Some(&append.key),
            Self::Trim { key, .. } => Some(key),
            Self::Clear { .. } => None,
        }
    }
}

/// The answer to one step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepAck {
    /// The write's acknowledgement.
    Write(WriteAck),
    /// The append's acknowledgement.
    Append(AppendAck),
    /// How many items were trimmed.
    Trim(u64),
}

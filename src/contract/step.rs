//! Operations of a database as data, for transactions and for replay.

use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::Value;

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
    /// A put that ended while it waited to be replayed. It outvotes what is older and loses like any put, but nobody ever reads
    /// it. Only in a replay; in a transaction it is unsupported.
    Expired {
        /// The key.
        key: Key,
        /// What was written: kept where it loses.
        value: Value,
        /// When it ended. A store whose clock is behind takes its own time instead.
        expires_at: Timestamp,
        /// The operation's identity and its place in the order of writes.
        stamp: Stamp,
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
            Self::Trim { key, .. } | Self::Expired { key, .. } => Some(key),
            Self::Clear { .. } => None,
        }
    }

    /// Whether the step may be replayed: it has a stamp of its own, and means the same whenever it is applied.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a trim, a touch and a write with a condition.
    pub fn check_replayable(&self) -> Result<()> {
        let why = match self {
            Self::Write(write) if write.is_conditional() => "a write that depends on what is stored cannot be replayed",
            Self::Trim { .. } => "a trim cannot be replayed",
            Self::Write(_) | Self::Append(_) | Self::Expired { .. } | Self::Clear { .. } => return Ok(()),
        };
        Err(Error::unsupported(why))
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

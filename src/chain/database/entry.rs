//! What is in the journal, for people and programs to see.

use crate::chain::journal::{Action, Exported};
use crate::contract::ItemId;
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::Value;

/// An operation that was acknowledged here and is owed to the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournaledOperation {
    /// Its number in the journal.
    pub seq: u64,
    /// Its stamp.
    pub stamp: Stamp,
    /// What it does.
    pub effect: JournaledEffect,
    /// Why it was put aside, if it was.
    pub parked: Option<String>,
    /// The number of the operation that was put aside and has this item of the same list wait behind it, if one does. Only the chain that
    /// owes it knows: it is `None` where a journal is read as a file.
    pub waits_behind: Option<u64>,
}

/// What an operation of the journal does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournaledEffect {
    /// Writes a value, until a moment.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Value,
        /// When the entry ends.
        expires_at: Option<Timestamp>,
    },
    /// Deletes value and list.
    Delete {
        /// The key.
        key: Key,
    },
    /// Appends an item.
    Append {
        /// The list's key.
        key: Key,
        /// The item.
        value: Value,
        /// The item's name.
        item_id: ItemId,
    },
    /// Deletes everything with a prefix that is older.
    Clear {
        /// The prefix.
        prefix: KeyPrefix,
    },
}

impl From<Exported> for JournaledOperation {
    fn from(exported: Exported) -> Self {
        let effect = match exported.operation.action {
            Action::Put { key, value, expires_at } => JournaledEffect::Put { key, value, expires_at },
            Action::Delete { key } => JournaledEffect::Delete { key },
            Action::Append { key, value, item_id } => JournaledEffect::Append { key, value, item_id },
            Action::Clear { prefix } => JournaledEffect::Clear { prefix },
        };
        Self { seq: exported.seq, stamp: exported.operation.stamp, effect, parked: exported.parked, waits_behind: None }
    }
}

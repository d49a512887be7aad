//! What a journal holds: the [`Operation`], its [`Header`], and what is known beside them, the [`Meta`].

use crate::contract::{Identity, ItemId, Succession};
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
    /// Whether it was put aside, and somebody replaced it since who did not know of it.
    pub(crate) replaced: bool,
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

/// What is remembered of an outage, and of those who had the journal before, also over a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Episode {
    /// When the outage began: no later than the oldest stamp that waited since.
    pub(crate) since: Option<Stamp>,
    /// Which of the writers whose operations are here knew of which.
    pub(crate) succession: Succession,
}

/// An operation as it is exported: with its number, and why it was put aside if it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exported {
    /// Its number.
    pub(crate) seq: u64,
    /// The operation.
    pub(crate) operation: Operation,
    /// Why it could not be replayed.
    pub(crate) parked: Option<String>,
}

/// What the reason begins with for which an operation stays put aside that somebody replaced who did not know of it.
pub(crate) const REPLACED: &str = "somebody who did not know of it has written something newer since";

impl Header {
    /// Makes a header of an operation, with the reason for which it was put aside if it was.
    pub(crate) fn new(seq: u64, stamp: Stamp, effect: Effect, parked: Option<&str>) -> Self {
        let replaced = parked.is_some_and(|reason| reason.starts_with(REPLACED));
        Self { seq, stamp, effect, parked: parked.is_some(), replaced }
    }
}

/// What an operation takes beside its key and its value, about.
const OVERHEAD_BYTES: usize = 64;

impl Operation {
    /// The bytes it takes in a journal, about.
    pub(super) fn size(&self) -> usize {
        let payload = match &self.action {
            Action::Put { key, value, .. } => key.as_bytes().len() + value.len(),
            Action::Delete { key } => key.as_bytes().len(),
            Action::Append { key, value, item_id } => key.as_bytes().len() + value.len() + item_id.as_str().len(),
            Action::Clear { prefix } => prefix.as_str().len(),
        };
        payload + OVERHEAD_BYTES
    }

    /// The bytes of its value.
    pub(super) fn value_bytes(&self) -> usize {
        match &self.action {
            Action::Put { value, .. } | Action::Append { value, .. } => value.len(),
            Action::Delete { .. } | Action::Clear { .. } => 0,
        }
    }
}

impl Effect {
    /// The key it is about; `None` for a prefix.
    pub(crate) const fn key(&self) -> Option<&Key> {
        match self {
            Self::Put(key, _) | Self::Delete(key) | Self::Append(key) => Some(key),
            Self::Clear(_) => None,
        }
    }

    /// The key of the list that it appends to.
    pub(crate) const fn list(&self) -> Option<&Key> {
        if let Self::Append(key) = self { Some(key) } else { None }
    }
}

impl Action {
    /// What it does, without the value.
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Put { key, expires_at, .. } => Effect::Put(key.clone(), *expires_at),
            Self::Delete { key } => Effect::Delete(key.clone()),
            Self::Append { key, .. } => Effect::Append(key.clone()),
            Self::Clear { prefix } => Effect::Clear(prefix.clone()),
        }
    }
}

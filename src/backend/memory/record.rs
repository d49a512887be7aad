//! What stands under one key: a value, a list, or both.

use crate::contract::{Entry, GetOptions};
use crate::key::Key;
use crate::revision::Revision;
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::Value;

use super::list::List;

/// The bytes that an entry takes beyond its key and value, roughly: its place in a hash table that is two thirds full (180), in the
/// ordered index (30) and in the eviction queue (40), and reference counts (50).
const ENTRY_OVERHEAD_BYTES: u64 = 300;

/// A value with its stamp and expiry.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) value: Value,
    pub(super) stamp: Stamp,
    pub(super) expires_at: Option<Timestamp>,
    /// Whether it was read or overwritten since it last stood at the head of the eviction queue.
    pub(super) used: bool,
    /// Its number in the eviction queue.
    pub(super) ticket: u64,
}

impl Cell {
    pub(super) const fn new(value: Value, stamp: Stamp, expires_at: Option<Timestamp>) -> Self {
        Self { value, stamp, expires_at, used: false, ticket: 0 }
    }

    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }

    pub(super) fn revision(&self) -> Revision {
        Revision::from_stamp(self.stamp)
    }

    pub(super) fn entry(&self, options: &GetOptions) -> Entry {
        let entry = Entry::new(self.value.clone(), self.revision());
        if options.expiry { entry.with_expiry(self.expires_at) } else { entry }
    }

    pub(super) fn weight(&self, key: &Key) -> u64 {
        let bytes = key.as_bytes().len().saturating_add(self.value.len());
        u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(ENTRY_OVERHEAD_BYTES)
    }
}

/// All that stands under one key.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) cell: Option<Cell>,
    pub(super) list: Option<Box<List>>,
}

impl Record {
    /// The value, if it has not expired.
    pub(super) fn live(&self, now: Timestamp) -> Option<&Cell> {
        self.cell.as_ref().filter(|cell| cell.is_live(now))
    }

    /// The value marked as used, if it has not expired.
    pub(super) fn use_cell(&mut self, now: Timestamp) -> Option<&Cell> {
        let cell = self.cell.as_mut().filter(|cell| cell.is_live(now))?;
        cell.used = true;
        Some(cell)
    }

    /// Whether there is a live value or a list with items.
    pub(super) fn exists(&self, now: Timestamp) -> bool {
        self.live(now).is_some() || self.list.as_ref().is_some_and(|list| !list.is_empty())
    }
}

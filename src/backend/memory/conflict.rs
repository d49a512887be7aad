//! Writes that were acknowledged and lost.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::contract::{ConflictOptions, ConflictRecord};
use crate::key::Key;
use crate::stamp::Stamp;

/// The writes that lost, in the order in which they are listed.
#[derive(Debug, Default)]
pub(super) struct Conflicts(Mutex<BTreeMap<(Stamp, Key), ConflictRecord>>);

impl Conflicts {
    /// Keeps a write that lost. One that is kept already stays as it is.
    pub(super) fn keep(&self, record: ConflictRecord) {
        self.lock().entry((record.stamp, record.key.clone())).or_insert(record);
    }

    pub(super) fn page(&self, options: &ConflictOptions) -> Vec<ConflictRecord> {
        let limit = options.limit.clamp(1, ConflictOptions::MAX_LIMIT);
        let start = options.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.lock().range((start, Bound::Unbounded)).take(limit).map(|(_, record)| record.clone()).collect()
    }

    pub(super) fn forget(&self, key: &Key, stamp: Stamp) -> bool {
        self.lock().remove(&(stamp, key.clone())).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Stamp, Key), ConflictRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

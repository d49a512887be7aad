//! The bound of a journal: [`Room`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// The part of its bound that must be free for a journal to count as having room again.
const FREE_PART: u64 = 16;

/// How much a journal holds, how much it may hold, and whether it refused an operation for want of room.
#[derive(Debug)]
pub(super) struct Room {
    max_bytes: u64,
    used: AtomicU64,
    /// What was added since it was last said how much is in use.
    added: AtomicU64,
    full: AtomicBool,
}

impl Room {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, used: AtomicU64::new(0), added: AtomicU64::new(0), full: AtomicBool::new(false) }
    }

    /// The bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Whether it was full, and has not been emptied since.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Whether so many bytes more are within the bound.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.max_bytes
    }

    /// Notes that about so many bytes more are in use.
    #[cfg(feature = "sqlite")]
    pub(super) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        self.added.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Whether so much was added that it should be looked how much is in use.
    #[cfg(feature = "sqlite")]
    pub(super) fn is_vague(&self) -> bool {
        self.added.load(Ordering::Acquire) > self.margin()
    }

    /// Says how many bytes are in use.
    pub(super) fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Release);
        self.added.store(0, Ordering::Release);
        if bytes <= self.max_bytes - self.margin() {
            self.full.store(false, Ordering::Release);
        }
    }

    /// The error of operations that do not fit. The journal counts as full unless they are large.
    pub(super) fn refuse(&self, bytes: u64) -> Error {
        if bytes <= self.margin() {
            self.full.store(true, Ordering::Release);
        }
        Error::unavailable(format!(
            "the journal is full: it holds {} of {} bytes, and {bytes} more do not fit; nothing was written. It empties when the \
             primary is back; `journal.maxBytes` bounds it",
            self.used(),
            self.max_bytes
        ))
    }

    /// Makes sure that so many bytes more are within the bound.
    pub(super) fn check(&self, bytes: u64) -> Result<()> {
        if self.fits(bytes) { Ok(()) } else { Err(self.refuse(bytes)) }
    }

    fn margin(&self) -> u64 {
        self.max_bytes / FREE_PART
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "sqlite")]
    use super::*;

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_large_operation_that_does_not_fit_does_not_make_it_full() {
        let room = Room::new(1600);
        room.set_used(1000);
        assert!(room.check(601).is_err() && !room.is_full());
        room.add(600);
        assert!(room.check(1).is_err() && room.is_full());
        room.set_used(1501);
        assert!(room.is_full(), "a little room is soon full again");
        room.set_used(1500);
        assert!(!room.is_full());
    }
}

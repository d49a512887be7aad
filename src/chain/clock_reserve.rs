//! [`ClockReserve`]: up to which moment stamps may be given.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::time::Timestamp;

/// The moment that is written down, after which the next process with this journal begins. What carries a stamp of a later one
/// waits until a later one is written down: also where the clock was shown a stamp that is ahead, or the task that extends it was held up.
#[derive(Debug, Default)]
pub(super) struct ClockReserve {
    /// In milliseconds since the Unix epoch.
    until: AtomicU64,
    /// Whether anything was stamped since it was last asked.
    used: AtomicBool,
    extending: Mutex<()>,
}

impl ClockReserve {
    /// Notes that something is stamped.
    pub(super) fn note_use(&self) {
        // Nearly always it is known, and threads that only look do not wait for each other.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether stamps of this moment may be used.
    pub(super) fn covers(&self, moment: Timestamp) -> bool {
        moment.as_millis() < self.until.load(Ordering::Acquire)
    }

    /// Stamps before this moment may be used from now on.
    pub(super) fn extend(&self, until: Timestamp) {
        self.until.fetch_max(until.as_millis(), Ordering::AcqRel);
    }

    /// The moment up to which stamps may be used.
    pub(super) fn until(&self) -> Timestamp {
        Timestamp::from_millis(self.until.load(Ordering::Acquire))
    }

    /// Whether anything was stamped since the last time.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Waits until nobody else writes a later moment down.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.extending.lock().await
    }
}

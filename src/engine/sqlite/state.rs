//! What the threads of an engine and its callers tell each other.

use std::sync::atomic::{AtomicBool, Ordering};

/// The state of an engine's threads.
#[derive(Debug, Default)]
pub(super) struct EngineState {
    /// Whether the writer asks for the write lock now, and so may be waiting for another process.
    pub(super) locking: AtomicBool,
    /// Whether a commit left open what is on the disk, or a thread panicked. The file must be opened anew.
    pub(super) failed: AtomicBool,
}

impl EngineState {
    /// Notes that this thread ends by a panic, if it does.
    pub(super) fn note_panic(&self) {
        if std::thread::panicking() {
            self.failed.store(true, Ordering::Release);
        }
    }
}

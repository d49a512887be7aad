//! [`Rounds`]: who writes while the journal is replayed, so that the replay ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::contract::Context;

/// From how few pending operations on the replay lets nobody in until it is done.
const LAST_ROUND: usize = 64;

/// The longest time that a writer is held back.
const HOLD: Duration = Duration::from_millis(250);

/// Lets fewer operations into the journal than the replay takes out of it.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    running: AtomicBool,
    room: AtomicUsize,
    ended: Notify,
}

impl Rounds {
    /// A round of the replay begins: `pending` operations wait.
    pub(super) fn begin(&self, replayed_last: usize, pending: usize) {
        let room = if pending <= LAST_ROUND { 0 } else { replayed_last / 2 };
        self.room.store(room, Ordering::Release);
        self.running.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// The replay rests: whoever was held back goes on.
    pub(super) fn rest(&self) {
        self.running.store(false, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// Waits for room for so many operations, or until the replay rests; not for long after the call began, nor for longer than it has.
    pub(super) async fn admit(&self, operations: usize, began: Instant, cx: &Context) {
        let turn = async {
            loop {
                let mut ended = std::pin::pin!(self.ended.notified());
                ended.as_mut().enable();
                if !self.running.load(Ordering::Acquire) || self.take(operations) {
                    return;
                }
                ended.await;
            }
        };
        // A replay that does not come on must not hold writers up.
        let _ = timeout_at(cx.deadline.min(began + HOLD).into(), turn).await;
    }

    fn take(&self, operations: usize) -> bool {
        let less = |room: usize| (room > 0).then(|| room.saturating_sub(operations));
        self.room.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
}

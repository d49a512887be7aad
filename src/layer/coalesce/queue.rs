//! What waits for a lane: the [`Queue`] of [`Waiting`] calls.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::config::BatchingConfig;
use crate::error::{Error, Result};
use crate::key::Key;

use super::work::Work;

/// The most calls that may wait before one store.
const MAX_WAITING_CALLS: usize = 1 << 18;
/// The most bytes of keys and values that may wait before one store: 256 MiB.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// How far a batch looks into the queue, as a multiple of its size: past calls that must wait for their key's next turn.
const LOOK_AHEAD: usize = 4;

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const GONE: u8 = 2;

/// The place of a waiting call between its caller and the lane.
#[derive(Debug, Default)]
pub(super) struct Place(AtomicU8);

impl Place {
    /// The lane takes the call along; `false` if its caller is gone.
    fn send(&self) -> bool {
        self.0.compare_exchange(QUEUED, SENT, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The caller goes away; `true` if the call was not sent and never will be.
    pub(super) fn leave(&self) -> bool {
        self.0.compare_exchange(QUEUED, GONE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn is_gone(&self) -> bool {
        self.0.load(Ordering::SeqCst) == GONE
    }
}

/// How much one batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    calls: usize,
    bytes: usize,
}

impl From<&BatchingConfig> for Limits {
    fn from(config: &BatchingConfig) -> Self {
        Self {
            calls: usize::try_from(config.max_batch).unwrap_or(usize::MAX).max(1),
            bytes: usize::try_from(config.max_batch_bytes).unwrap_or(usize::MAX),
        }
    }
}

/// What waits before all lanes of a store.
#[derive(Debug, Default)]
pub(super) struct Load {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    fn add(&self, bytes: usize) -> Result<()> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if calls < MAX_WAITING_CALLS && waiting.saturating_add(bytes) <= MAX_WAITING_BYTES {
            return Ok(());
        }
        self.remove(bytes);
        Err(Error::unavailable("too many calls are waiting for the store; try again when it has caught up"))
    }

    fn remove(&self, bytes: usize) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A call that waits, from the lane's side.
pub(super) struct Waiting<W: Work> {
    item: W::Item,
    bytes: usize,
    deadline: Instant,
    place: Arc<Place>,
    reply: oneshot::Sender<Result<W::Answer>>,
}

/// A call that waits, from its caller's side.
pub(super) struct Ticket<A> {
    pub(super) place: Arc<Place>,
    pub(super) answer: oneshot::Receiver<Result<A>>,
}

/// A caller that goes away while its call waits takes it out of the queue.
impl<A> Drop for Ticket<A> {
    fn drop(&mut self) {
        self.place.leave();
    }
}

/// Calls that were taken from the queue to be sent together.
pub(super) struct Taken<W: Work> {
    pub(super) items: Vec<W::Item>,
    pub(super) replies: Vec<oneshot::Sender<Result<W::Answer>>>,
    pub(super) deadline: Instant,
}

/// The calls that wait for one lane, in the order they came.
pub(super) struct Queue<W: Work> {
    waiting: VecDeque<Waiting<W>>,
    load: Arc<Load>,
}

impl<W: Work> Queue<W> {
    pub(super) const fn new(load: Arc<Load>) -> Self {
        Self { waiting: VecDeque::new(), load }
    }

    pub(super) fn push(&mut self, item: W::Item, deadline: Instant) -> Result<Ticket<W::Answer>> {
        let bytes = W::bytes(&item);
        self.load.add(bytes)?;
        let (reply, answer) = oneshot::channel();
        let place = Arc::new(Place::default());
        self.waiting.push_back(Waiting { item, bytes, deadline, place: Arc::clone(&place), reply });
        Ok(Ticket { place, answer })
    }

    /// Takes what may be sent together, from the front; `None` if nothing waits. Calls that may not go along keep their order.
    pub(super) fn take(&mut self, limits: Limits) -> Option<Taken<W>> {
        let mut taken: Option<Taken<W>> = None;
        let mut keys: HashSet<Key> = HashSet::new();
        let (mut bytes, mut kept) = (0_usize, VecDeque::new());
        let mut looked_at = 0;
        while looked_at < limits.calls.saturating_mul(LOOK_AHEAD) {
            let Some(call) = self.waiting.pop_front() else { break };
            if call.place.is_gone() {
                self.load.remove(call.bytes);
                continue;
            }
            looked_at += 1;
            let full = taken.as_ref().is_some_and(|taken| {
                taken.items.len() >= limits.calls || bytes.saturating_add(call.bytes) > limits.bytes
            });
            if full {
                self.waiting.push_front(call);
                break;
            }
            let key = W::ONE_OF_A_KEY.then(|| W::key(&call.item).clone());
            let first = taken.as_ref().and_then(|taken| taken.items.first());
            let goes = first.is_none_or(|first| W::goes_with(&call.item, first));
            if !goes || key.as_ref().is_some_and(|key| keys.contains(key)) {
                // A key that was passed over is passed over again, so that its calls keep their order.
                keys.extend(key);
                kept.push_back(call);
                continue;
            }
            self.load.remove(call.bytes);
            if call.place.send() {
                keys.extend(key);
                bytes = bytes.saturating_add(call.bytes);
                add(taken.get_or_insert_with(|| Taken::new(call.deadline)), call.item, call.reply, call.deadline);
            }
        }
        while let Some(call) = kept.pop_back() {
            self.waiting.push_front(call);
        }
        taken
    }
}

impl<W: Work> Taken<W> {
    const fn new(deadline: Instant) -> Self {
        Self { items: Vec::new(), replies: Vec::new(), deadline }
    }
}

/// The batch has as long as the most patient of its callers.
fn add<W: Work>(taken: &mut Taken<W>, item: W::Item, reply: oneshot::Sender<Result<W::Answer>>, deadline: Instant) {
    taken.items.push(item);
    taken.replies.push(reply);
    taken.deadline = taken.deadline.max(deadline);
}

/// What still waits when the lane is dropped gives its room back; its callers see their answers closed.
impl<W: Work> Drop for Queue<W> {
    fn drop(&mut self) {
        self.waiting.iter().for_each(|call| self.load.remove(call.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_calls_and_bytes_and_gives_its_room_back() {
        let load = Load::default();
        load.add(MAX_WAITING_BYTES).unwrap();
        assert!(load.add(1).unwrap_err().is_transient());
        load.remove(MAX_WAITING_BYTES);
        for _ in 0..MAX_WAITING_CALLS {
            load.add(0).unwrap();
        }
        assert!(load.add(0).unwrap_err().is_transient());
        load.remove(0);
        load.add(0).unwrap();
    }

    #[test]
    fn a_call_is_sent_or_left_but_never_both() {
        let (sent, left) = (Place::default(), Place::default());
        assert!(sent.send() && !sent.leave());
        assert!(left.leave() && !left.send() && left.is_gone());
    }
}

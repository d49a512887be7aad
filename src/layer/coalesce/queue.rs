//! What waits for a lane: the [`Queue`] of [`Waiting`] calls.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use crate::config::BatchingConfig;
use crate::error::{Error, Result};

use super::slot::Slot;
use super::work::Work;

/// The most calls that may wait before one store.
const MAX_WAITING_CALLS: usize = 1 << 18;
/// The most bytes of keys and values that may wait before one store: 256 MiB.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// How far a batch looks into the queue, as a multiple of its size: past calls that must wait for their key's next turn.
const LOOK_AHEAD: usize = 4;
/// The room for waiting calls that an idle queue keeps.
const IDLE_ROOM: usize = 1024;

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

impl Limits {
    /// The same for calls whose answers are about so large. Nobody knows before how large they will be; but as large as the last ones is
    /// likely.
    pub(super) fn for_answers_of(self, bytes: usize) -> Self {
        let calls = self.bytes.checked_div(bytes).unwrap_or(usize::MAX).max(1);
        Self { calls: self.calls.min(calls), ..self }
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
        self.remove(1, bytes);
        Err(Error::unavailable("too many calls are waiting for the store; try again when it has caught up"))
    }

    fn remove(&self, calls: usize, bytes: usize) {
        self.calls.fetch_sub(calls, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A call that waits, from the lane's side, with what the choice of a batch looks at.
pub(super) struct Waiting<W: Work> {
    pub(super) slot: Arc<Slot<W>>,
    pub(super) deadline: Instant,
    pub(super) key_hash: u64,
    /// Fewer than [`MAX_WAITING_BYTES`], in little room because many wait.
    bytes: u32,
    kind: W::Kind,
}

impl<W: Work> Waiting<W> {
    /// A call that nobody else knows yet.
    pub(super) fn new(slot: &mut Arc<Slot<W>>, key_hash: u64, deadline: Instant, task: &Waker) -> Result<Self> {
        let known = || Error::internal("a call began to wait twice");
        let call = Arc::get_mut(slot).ok_or_else(known)?;
        let (bytes, kind) = call.item().map(|item| (W::bytes(item), W::kind(item))).ok_or_else(known)?;
        call.wait(task);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Ok(Self { slot: Arc::clone(slot), deadline, key_hash, bytes, kind })
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

/// The keys of a batch, by hashes that a keyed hasher made. Two keys of one hash only wait for each other.
pub(super) type KeyHashes = HashSet<u64, BuildHasherDefault<Hashed>>;

/// The calls that wait for one lane, in the order they came.
pub(super) struct Queue<W: Work> {
    waiting: VecDeque<Waiting<W>>,
    load: Arc<Load>,
}

impl<W: Work> Queue<W> {
    pub(super) const fn new(load: Arc<Load>) -> Self {
        Self { waiting: VecDeque::new(), load }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a call wait that nobody else knows yet.
    pub(super) fn push(
        &mut self,
        mut slot: Arc<Slot<W>>,
        key_hash: u64,
        deadline: Instant,
        task: &Waker,
    ) -> Result<Arc<Slot<W>>> {
        let call = Waiting::new(&mut slot, key_hash, deadline, task)?;
        self.load.add(call.bytes())?;
        self.waiting.push_back(call);
        Ok(slot)
    }

    /// Takes what may be sent together, from the front; nothing if nothing may. Calls that may not go along, because of their kind or
    /// because their key is among `keys`, keep their order.
    pub(super) fn take(&mut self, limits: Limits, keys: &mut KeyHashes) -> Vec<Waiting<W>> {
        let mut taken: Vec<Waiting<W>> = Vec::with_capacity(self.waiting.len().min(limits.calls));
        let (mut bytes, mut kept) = (0_usize, Vec::new());
        for _ in 0..limits.calls.saturating_mul(LOOK_AHEAD) {
            let Some(call) = self.waiting.pop_front() else { break };
            if taken.len() >= limits.calls || !taken.is_empty() && bytes.saturating_add(call.bytes()) > limits.bytes {
                self.waiting.push_front(call);
                break;
            }
            // A key that was passed over is passed over again, so that its calls keep their order.
            let is_free = if W::ONE_OF_A_KEY { keys.insert(call.key_hash) } else { !keys.contains(&call.key_hash) };
            if is_free && taken.first().is_none_or(|first| first.kind == call.kind) {
                bytes = bytes.saturating_add(call.bytes());
                taken.push(call);
            } else {
                kept.push(call);
            }
        }
        self.load.remove(taken.len(), bytes);
        kept.into_iter().rev().for_each(|call| self.waiting.push_front(call));
        if taken.is_empty() && self.waiting.capacity() > IDLE_ROOM {
            self.waiting.shrink_to(IDLE_ROOM);
        }
        taken
    }

    /// Takes out the calls whose time is up and notes whom to wake; says when the next one's is.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let load = &self.load;
        self.waiting.retain(|call| {
            if call.deadline <= now {
                load.remove(1, call.bytes());
                wakers.extend(call.slot.expire());
                return false;
            }
            next = Some(next.map_or(call.deadline, |next| next.min(call.deadline)));
            true
        });
        next
    }

    /// Those who wait.
    pub(super) fn wakers(&self) -> impl Iterator<Item = Waker> {
        self.waiting.iter().filter_map(|call| call.slot.waker())
    }
}

/// The hasher of what is a hash already.
#[derive(Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
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
        load.remove(1, MAX_WAITING_BYTES);
        for _ in 0..MAX_WAITING_CALLS {
            load.add(0).unwrap();
        }
        assert!(load.add(0).unwrap_err().is_transient());
        load.remove(1, 0);
        load.add(0).unwrap();
    }
}

//! What is on its way in a lane: the [`Flight`].

use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::error::Result;

use super::batch::Batch;
use super::lone::Lone;
use super::queue::{KeyHashes, Waiting};
use super::work::Work;

/// How soon a deadline is looked at again whose batch was just being made up.
const SOON: Duration = Duration::from_millis(1);

/// How long after its begin a lone call is left to its caller if others wait behind it, or may. One that is only slow loses nothing by
/// being taken over.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// The room for one call or batch on its way, and what is in it.
pub(super) enum Flight<W: Work> {
    /// Nothing.
    Free,
    /// A call that runs in its caller, in this runtime.
    Alone { call: Waiting<W>, lone: Arc<Lone<W::Answer>>, since: Instant, runtime: Handle },
    /// A batch that is being made up: the hashes of its keys, and the first of its deadlines.
    Boarding(Vec<u64>, Option<Instant>),
    /// A batch on its way, until it is answered; or a call that was taken over.
    Batch(Vec<Waiting<W>>),
    /// A batch that was given to a task in another runtime, which has not begun it. The number is of this turn alone.
    Handed { waiting: Vec<Waiting<W>>, batch: Batch<W>, since: Instant, turn: u64 },
    /// A batch that was answered, whose task lets those run who were answered before it goes on. The number is of this turn alone.
    Answered { since: Instant, turn: u64 },
}

/// A call that was taken from its caller, and the runtime that it began in.
pub(super) type Taken<W> = (BoxFuture<'static, Result<<W as Work>::Answer>>, Handle);

/// What was taken back from a task.
pub(super) enum Back<W: Work> {
    /// The lane, after a batch was answered.
    Lane,
    /// A batch that was not begun.
    Batch(Batch<W>),
}

impl<W: Work> Flight<W> {
    pub(super) const fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    /// A flight whose passengers are not known yet.
    pub(super) fn boarding(taken: &[Waiting<W>]) -> Self {
        let keys = if W::ORDERED { taken.iter().map(|call| call.key_hash).collect() } else { Vec::new() };
        Self::Boarding(keys, taken.iter().map(|call| call.deadline).min())
    }

    /// Adds the keys that are on their way.
    pub(super) fn note_keys(&self, keys: &mut KeyHashes) {
        match self {
            Self::Free | Self::Answered { .. } => {}
            Self::Alone { call, .. } => keys.extend([call.key_hash]),
            Self::Boarding(boarding, _) => keys.extend(boarding),
            Self::Batch(waiting) | Self::Handed { waiting, .. } => {
                keys.extend(waiting.iter().map(|call| call.key_hash))
            }
        }
    }

    /// Whether a key is on its way.
    pub(super) fn carries(&self, key: u64) -> bool {
        match self {
            Self::Free | Self::Answered { .. } => false,
            Self::Alone { call, .. } => call.key_hash == key,
            Self::Boarding(boarding, _) => boarding.contains(&key),
            Self::Batch(waiting) | Self::Handed { waiting, .. } => waiting.iter().any(|call| call.key_hash == key),
        }
    }

    /// Ends the waiting of those whose time is up and notes whom to wake; says when the next one's is.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> Option<Instant> {
        let calls = match self {
            Self::Free | Self::Answered { .. } => return None,
            Self::Boarding(_, first) => return first.map(|first| first.max(now + SOON)),
            Self::Alone { call, .. } => std::slice::from_ref(call),
            Self::Batch(waiting) | Self::Handed { waiting, .. } => waiting,
        };
        let (late, early): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.deadline <= now);
        wakers.extend(late.into_iter().filter_map(|call| call.slot.expire()));
        early.into_iter().map(|call| call.deadline).min()
    }

    /// From when on a lone call is taken over: if others wait for the lane, and in any case at its deadline; always soon if it changes
    /// something, for others may wait for its key where no lane sees them, as a counter or a transaction does. So is a lane whose runtime
    /// rests before it begins a batch, or after one was answered there, if others wait for it.
    pub(super) fn stalls_at(&self, is_waited_for: bool) -> Option<Instant> {
        match self {
            Self::Alone { since, .. } if is_waited_for || W::ORDERED => Some(*since + PATIENCE),
            Self::Alone { call, .. } => Some(call.deadline),
            Self::Answered { since, .. } if is_waited_for => Some(*since + PATIENCE),
            Self::Handed { since, .. } => Some(*since + PATIENCE),
            _ => None,
        }
    }

    /// Takes a lone call from its caller, for a task. None if the caller gets on with it at this moment.
    pub(super) fn take_over(&mut self) -> Option<Taken<W>> {
        let Self::Alone { lone, .. } = self else { return None };
        let taken = lone.take()?;
        let Self::Alone { call, runtime, .. } = mem::replace(self, Self::Free) else { return None };
        *self = Self::Batch(vec![call]);
        Some((taken, runtime))
    }

    /// Takes the lane from a task that does not go on: for the batch that it did not begin, or for what waits. None if it is not such a
    /// task's.
    pub(super) fn take_back(&mut self) -> Option<Back<W>> {
        match mem::replace(self, Self::Free) {
            Self::Answered { .. } => {
                *self = Self::Boarding(Vec::new(), None);
                Some(Back::Lane)
            }
            Self::Handed { waiting, batch, .. } => {
                *self = Self::Batch(waiting);
                Some(Back::Batch(batch))
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Whether the task of this turn has it.
    pub(super) fn is_of(&self, number: u64) -> bool {
        matches!(self, Self::Answered { turn, .. } | Self::Handed { turn, .. } if *turn == number)
    }

    /// Whether this call runs in its caller here.
    pub(super) fn is(&self, other: &Arc<Lone<W::Answer>>) -> bool {
        matches!(self, Self::Alone { lone, .. } if Arc::ptr_eq(lone, other))
    }
}

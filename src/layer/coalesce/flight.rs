//! What is on its way in a lane: the [`Flight`].

use std::mem;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::queue::{KeyHashes, Waiting};
use super::work::Work;

/// How soon a deadline is looked at again whose batch was just being made up.
const SOON: Duration = Duration::from_millis(1);

/// The room for one call or batch on its way, and what is in it.
pub(super) enum Flight<W: Work> {
    /// Nothing.
    Free,
    /// A call that runs in its caller. The caller is taken out when the deadline has passed, or it is gone.
    Alone { key_hash: u64, deadline: Instant, caller: Option<Waker> },
    /// A batch that is being made up: the hashes of its keys, and the first of its deadlines.
    Boarding(Vec<u64>, Option<Instant>),
    /// A batch on its way, until it is answered.
    Batch(Vec<Waiting<W>>),
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
            Self::Free => {}
            Self::Alone { key_hash, .. } => keys.extend([*key_hash]),
            Self::Boarding(boarding, _) => keys.extend(boarding),
            Self::Batch(waiting) => keys.extend(waiting.iter().map(|call| call.key_hash)),
        }
    }

    /// Whether a key is on its way.
    pub(super) fn carries(&self, key: u64) -> bool {
        match self {
            Self::Free => false,
            Self::Alone { key_hash, .. } => *key_hash == key,
            Self::Boarding(boarding, _) => boarding.contains(&key),
            Self::Batch(waiting) => waiting.iter().any(|call| call.key_hash == key),
        }
    }

    /// Ends the waiting of those whose time is up and notes whom to wake; says when the next one's is.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> Option<Instant> {
        match self {
            Self::Free => None,
            Self::Alone { deadline, caller, .. } if *deadline <= now => {
                wakers.extend(caller.take());
                None
            }
            Self::Alone { deadline, .. } => Some(*deadline),
            Self::Boarding(_, first) => first.map(|first| first.max(now + SOON)),
            Self::Batch(waiting) => {
                let (late, early): (Vec<_>, Vec<_>) = waiting.iter().partition(|call| call.deadline <= now);
                wakers.extend(late.into_iter().filter_map(|call| call.slot.expire()));
                early.into_iter().map(|call| call.deadline).min()
            }
        }
    }

    /// Takes out the caller of a lone call.
    pub(super) fn forget_caller(&mut self) -> Option<Waker> {
        match self {
            Self::Alone { caller, .. } => caller.take(),
            _ => None,
        }
    }

    /// Has `task` woken at the deadline of a lone call, in the place of the one that is returned; none if it has passed.
    pub(super) fn replace_caller(&mut self, task: &Waker) -> Option<Waker> {
        match self {
            Self::Alone { caller: Some(caller), .. } => Some(mem::replace(caller, task.clone())),
            _ => None,
        }
    }
}

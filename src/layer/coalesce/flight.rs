//! What is on its way in a lane: the [`Flight`].

use std::mem;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::queue::Waiting;
use super::work::Work;

/// How soon a deadline is looked at again whose batch was just being made up.
const SOON: Duration = Duration::from_millis(1);

/// The room for one call or batch on its way, and what is in it.
pub(super) enum Flight<W: Work> {
    /// Nothing.
    Free,
    /// A call that runs in its caller. The caller is taken out when the deadline has passed.
    Alone { deadline: Instant, caller: Option<Waker> },
    /// A batch that is being made up, with the first of its deadlines.
    Boarding(Option<Instant>),
    /// A batch on its way. Nobody waits for a call that ends though its caller is gone.
    Batch(Vec<Waiting<W>>),
}

impl<W: Work> Flight<W> {
    pub(super) const fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    /// A flight whose passengers are not known yet.
    pub(super) fn boarding(taken: &[Waiting<W>]) -> Self {
        Self::Boarding(taken.iter().map(|call| call.deadline).min())
    }

    /// Ends the waiting of those whose time is up and notes whom to wake; says when the next one's is.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> Option<Instant> {
        match self {
            Self::Free => None,
            Self::Alone { deadline, caller } if *deadline <= now => {
                wakers.extend(caller.take());
                None
            }
            Self::Alone { deadline, .. } => Some(*deadline),
            Self::Boarding(first) => first.map(|first| first.max(now + SOON)),
            Self::Batch(waiting) => {
                let (late, early): (Vec<_>, Vec<_>) = waiting.iter().partition(|call| call.deadline <= now);
                wakers.extend(late.into_iter().filter_map(|call| call.slot.expire()));
                early.into_iter().map(|call| call.deadline).min()
            }
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

//! What is on its way in a lane: the [`Flight`].

use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::runtime::Id;

use super::driven::{Answers, FIRST};
use super::queue::{KeyHashes, Waiting};
use super::work::Work;

/// How soon a deadline is looked at again whose batch was just being made up.
const SOON: Duration = Duration::from_millis(1);

/// How long calls wait behind one that nobody may be driving before it is taken over; twice as long each further time. A call
/// that is only slow loses nothing by it.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// How often at most that time is doubled.
const MOST_DOUBLINGS: u32 = 10;

/// The room for one call or batch on its way, and what is in it.
pub(super) enum Flight<W: Work> {
    /// Nothing.
    Free,
    /// A call that runs in its caller.
    Alone { call: Waiting<W>, driven: Arc<Answers<W>>, since: Instant },
    /// A batch that is being made up: the hashes of its keys, and the first of its deadlines.
    Boarding(Vec<u64>, Option<Instant>),
    /// A batch on its way in a task of ours; its calls until they are answered.
    Batch { calls: Vec<Waiting<W>>, driven: Arc<Answers<W>>, turn: u32, runtime: Option<Id>, since: Instant },
}

/// Whoever took a flight over: what to drive, and whose turn it is.
pub(super) type TakenOver<W> = (Arc<Answers<W>>, u32);

impl<W: Work> Flight<W> {
    pub(super) const fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    /// A flight whose passengers are not known yet.
    pub(super) fn boarding(taken: &[Waiting<W>]) -> Self {
        let keys = if W::ORDERED { taken.iter().map(|call| call.key_hash).collect() } else { Vec::new() };
        Self::Boarding(keys, taken.iter().map(|call| call.deadline).min())
    }

    /// A batch that sets out now.
    pub(super) fn batch(calls: Vec<Waiting<W>>, driven: Arc<Answers<W>>, runtime: Option<Id>) -> Self {
        Self::Batch { calls, driven, turn: FIRST, runtime, since: Instant::now() }
    }

    /// Adds the keys that are on their way.
    pub(super) fn note_keys(&self, keys: &mut KeyHashes) {
        match self {
            Self::Free => {}
            Self::Alone { call, .. } => keys.extend([call.key_hash]),
            Self::Boarding(boarding, _) => keys.extend(boarding),
            Self::Batch { calls, .. } => keys.extend(calls.iter().map(|call| call.key_hash)),
        }
    }

    /// Whether a key is on its way.
    pub(super) fn carries(&self, key: u64) -> bool {
        match self {
            Self::Free => false,
            Self::Alone { call, .. } => call.key_hash == key,
            Self::Boarding(boarding, _) => boarding.contains(&key),
            Self::Batch { calls, .. } => calls.iter().any(|call| call.key_hash == key),
        }
    }

    /// Ends the waiting of those whose time is up and notes whom to wake; says when the next one's is.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> Option<Instant> {
        let calls = match self {
            Self::Free => return None,
            Self::Boarding(_, first) => return first.map(|first| first.max(now + SOON)),
            Self::Alone { call, .. } => std::slice::from_ref(call),
            Self::Batch { calls, .. } => calls,
        };
        let (late, early): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.deadline <= now);
        wakers.extend(late.into_iter().filter_map(|call| call.slot.expire()));
        early.into_iter().map(|call| call.deadline).min()
    }

    /// From when on somebody in this runtime takes over what others wait for; never what a task of the same runtime drives. A lone
    /// call is taken over at its deadline, though nobody waits for it.
    pub(super) fn stalls_at(&self, runtime: Id, is_waited_for: bool) -> Option<Instant> {
        match self {
            Self::Alone { since, .. } if is_waited_for => Some(*since + PATIENCE),
            Self::Alone { call, .. } => Some(call.deadline),
            Self::Batch { turn, runtime: driver, since, .. } if *driver != Some(runtime) => {
                Some(*since + PATIENCE * (1 << (*turn).min(MOST_DOUBLINGS)))
            }
            _ => None,
        }
    }

    /// Takes the flight over, for a task of this runtime. None if it is being driven at this moment.
    pub(super) fn take_over(&mut self, by: Option<Id>, now: Instant) -> Option<TakenOver<W>> {
        if let Self::Batch { driven, turn, runtime, since, .. } = self {
            *turn = driven.take_over_or_done()?;
            (*runtime, *since) = (by, now);
            return Some((Arc::clone(driven), *turn));
        }
        let Self::Alone { driven, .. } = self else { return None };
        let turn = driven.take_over()?;
        let Self::Alone { call, driven, .. } = mem::replace(self, Self::Free) else { return None };
        *self = Self::Batch { calls: vec![call], driven: Arc::clone(&driven), turn, runtime: by, since: now };
        Some((driven, turn))
    }

    /// Whether this is what is on its way.
    pub(super) fn is(&self, other: &Arc<Answers<W>>) -> bool {
        match self {
            Self::Alone { driven, .. } | Self::Batch { driven, .. } => Arc::ptr_eq(driven, other),
            Self::Free | Self::Boarding(..) => false,
        }
    }

    /// Hands out the calls of a batch, to be answered.
    pub(super) fn land(&mut self) -> Vec<Waiting<W>> {
        match self {
            Self::Batch { calls, .. } => mem::take(calls),
            _ => Vec::new(),
        }
    }
}

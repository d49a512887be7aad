//! What a waiting call and its lane share: the [`Slot`].

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::error::{Error, Result};

use super::work::Work;

/// A waiting call: what it wants to send, who is to be woken, and then its answer.
pub(super) struct Slot<W: Work>(Mutex<Stage<W>>);

enum Stage<W: Work> {
    /// It waits for its turn.
    Queued { item: W::Item, waker: Waker },
    /// It is on its way.
    Sent { waker: Waker },
    /// Its caller has yet to fetch the answer.
    Answered(Result<W::Answer>),
    /// Its caller has the answer, or is gone.
    Over,
}

impl<W: Work> Slot<W> {
    /// Makes the slot of a call that nobody waits for yet.
    pub(super) fn new(item: W::Item) -> Self {
        Self(Mutex::new(Stage::Queued { item, waker: Waker::noop().clone() }))
    }

    /// What the call wants to send, while nobody else knows it.
    pub(super) fn item(&mut self) -> Option<&W::Item> {
        match self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            Stage::Queued { item, .. } => Some(item),
            _ => None,
        }
    }

    /// Says who waits, before anybody else knows the call.
    pub(super) fn wait(&mut self, task: &Waker) {
        if let Stage::Queued { waker, .. } = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            *waker = task.clone();
        }
    }

    /// The answer, if it is there; else `task` is woken when it is.
    pub(super) fn poll(&self, task: &Waker) -> Poll<Result<W::Answer>> {
        let mut stage = self.lock();
        if let Stage::Queued { waker, .. } | Stage::Sent { waker } = &mut *stage {
            let old = (!waker.will_wake(task)).then(|| mem::replace(waker, task.clone()));
            drop(stage);
            drop(old);
            return Poll::Pending;
        }
        Poll::Ready(match mem::replace(&mut *stage, Stage::Over) {
            Stage::Answered(answer) => answer,
            _ => Err(Error::internal("a call was polled after its end")),
        })
    }

    /// Takes the call along to be sent; none if its caller is gone, or its time is up.
    pub(super) fn send(&self) -> Option<W::Item> {
        let mut stage = self.lock();
        match mem::replace(&mut *stage, Stage::Over) {
            Stage::Queued { item, waker } => {
                *stage = Stage::Sent { waker };
                Some(item)
            }
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Answers a call that was sent, and says whom to wake. A caller that is gone does not want its answer.
    pub(super) fn answer(&self, answer: Result<W::Answer>) -> Option<Waker> {
        let mut stage = self.lock();
        if !matches!(&*stage, Stage::Sent { .. }) {
            drop(stage);
            return None;
        }
        match mem::replace(&mut *stage, Stage::Answered(answer)) {
            Stage::Sent { waker } => Some(waker),
            _ => None,
        }
    }

    /// Ends a call whose time is up, and says whom to wake.
    pub(super) fn expire(&self) -> Option<Waker> {
        let mut stage = self.lock();
        let error = match &*stage {
            Stage::Queued { .. } => {
                Error::unavailable("the call was still waiting for its turn at the deadline; it was not sent")
            }
            Stage::Sent { .. } => W::unanswered(),
            Stage::Answered(_) | Stage::Over => return None,
        };
        let waited = mem::replace(&mut *stage, Stage::Answered(Err(error)));
        drop(stage);
        match waited {
            Stage::Queued { waker, .. } | Stage::Sent { waker } => Some(waker),
            _ => None,
        }
    }

    /// Who waits, if anybody does.
    pub(super) fn waker(&self) -> Option<Waker> {
        match &*self.lock() {
            Stage::Queued { waker, .. } | Stage::Sent { waker } => Some(waker.clone()),
            Stage::Answered(_) | Stage::Over => None,
        }
    }

    /// The caller goes away: what was not sent never will be.
    pub(super) fn leave(&self) {
        let stage = mem::replace(&mut *self.lock(), Stage::Over);
        drop(stage);
    }

    fn lock(&self) -> MutexGuard<'_, Stage<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{CacheBackend, GetOptions, Lookup};
    use crate::error::ErrorKind;
    use crate::key::Key;
    use crate::layer::coalesce::work::Reads;

    fn slot() -> Slot<Reads<dyn CacheBackend>> {
        Slot::new((Key::parse("a").unwrap(), GetOptions::default()))
    }

    #[test]
    fn a_call_is_sent_or_left_but_never_both() {
        let (sent, left, late) = (slot(), slot(), slot());
        assert!(sent.send().is_some());
        left.leave();
        assert!(left.send().is_none() && left.waker().is_none());
        assert!(late.expire().is_some());
        assert!(late.send().is_none());
    }

    #[test]
    fn a_call_has_one_answer_and_the_first_one_stays() {
        let slot = slot();
        assert!(slot.send().is_some());
        assert!(slot.answer(Ok(Lookup::missing())).is_some());
        assert!(slot.expire().is_none() && slot.answer(Err(Error::closed())).is_none());
        assert!(matches!(slot.poll(Waker::noop()), Poll::Ready(Ok(Lookup::Missing { .. }))));
        let Poll::Ready(Err(error)) = slot.poll(Waker::noop()) else { panic!("it is over") };
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

//! A call or batch on its way, which one task drives and another may take over: [`Driven`].

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::error::Result;

use super::work::Work;

/// The turn of whoever began it.
pub(super) const FIRST: u32 = 0;

/// The answers of calls on their way.
pub(super) type Answers<W> = Driven<Vec<Result<<W as Work>::Answer>>>;

/// A call or batch on its way. It gets on while it is polled, and whoever polled it last may do so never again, though it is still
/// there: a caller that holds on to its call and waits for something else, or a runtime that rests. Then somebody else takes it over.
pub(super) struct Driven<T> {
    /// How often it was taken over. Who did so last drives it; the others leave it alone.
    turn: AtomicU32,
    progress: Mutex<Progress<T>>,
}

enum Progress<T> {
    /// It has yet to begin.
    New,
    UnderWay(BoxFuture<'static, T>),
    /// It is done; the outcome is there until it is fetched.
    Done(Option<T>),
}

impl<T: Send + 'static> Driven<T> {
    /// Room for what has yet to begin.
    pub(super) const fn new() -> Self {
        Self { turn: AtomicU32::new(FIRST), progress: Mutex::new(Progress::New) }
    }

    pub(super) fn begin(&self, work: impl Future<Output = T> + Send + 'static) {
        *self.lock() = Progress::UnderWay(work.boxed());
    }

    /// Drives it on; ready when it is done, or another one's turn.
    pub(super) fn poll(&self, turn: u32, task: &mut TaskContext<'_>) -> Poll<()> {
        let mut progress = self.lock();
        if !self.is_turn(turn) {
            return Poll::Ready(());
        }
        let Progress::UnderWay(work) = &mut *progress else { return Poll::Ready(()) };
        work.poll_unpin(task).map(|outcome| *progress = Progress::Done(Some(outcome)))
    }

    /// Fetches the outcome, once, if it is there and nobody took it over.
    pub(super) fn fetch(&self, turn: u32) -> Option<T> {
        let mut progress = self.lock();
        match &mut *progress {
            Progress::Done(outcome) if self.is_turn(turn) => outcome.take(),
            _ => None,
        }
    }

    /// Takes it over; says whose turn it is now. None if it is being driven at this moment, or is not under way.
    pub(super) fn take_over(&self) -> Option<u32> {
        self.take_over_if(|progress| matches!(progress, Progress::UnderWay(_)))
    }

    /// The same, also if it is done and only its driver has yet to go on.
    pub(super) fn take_over_or_done(&self) -> Option<u32> {
        self.take_over_if(|progress| !matches!(progress, Progress::New))
    }

    fn take_over_if(&self, may: impl FnOnce(&Progress<T>) -> bool) -> Option<u32> {
        let progress = self.progress.try_lock().ok()?;
        may(&progress).then(|| self.turn.fetch_add(1, Ordering::AcqRel).wrapping_add(1))
    }

    pub(super) fn is_turn(&self, turn: u32) -> bool {
        self.turn.load(Ordering::Acquire) == turn
    }

    /// Drops what was under way: nobody drives it any more.
    pub(super) fn give_up(&self) {
        let given_up = std::mem::replace(&mut *self.lock(), Progress::Done(None));
        drop(given_up);
    }

    fn lock(&self) -> MutexGuard<'_, Progress<T>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::sync::oneshot;

    fn poll(driven: &Driven<i32>, turn: u32) -> bool {
        driven.poll(turn, &mut TaskContext::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_took_it_over_drives_it_and_has_the_outcome() {
        let (send, receive) = oneshot::channel();
        let driven = Driven::new();
        assert_eq!(driven.take_over(), None, "it has yet to begin");
        driven.begin(async { receive.await.unwrap() });
        assert!(!poll(&driven, FIRST));
        let second = driven.take_over().unwrap();
        assert!(poll(&driven, FIRST) && driven.fetch(FIRST).is_none(), "it is another one's turn");
        assert!(!poll(&driven, second));
        send.send(7).unwrap();
        assert!(poll(&driven, second));
        assert_eq!(driven.take_over(), None, "it is done");
        let third = driven.take_over_or_done().unwrap();
        assert_eq!((driven.fetch(second), driven.fetch(third), driven.fetch(third)), (None, Some(7), None));
    }

    #[test]
    fn what_was_given_up_is_dropped_and_has_no_outcome() {
        let (send, receive) = oneshot::channel::<i32>();
        let driven = Driven::new();
        driven.begin(async { receive.await.unwrap() });
        driven.give_up();
        assert!(send.is_closed());
        assert!(poll(&driven, FIRST) && driven.fetch(FIRST).is_none());
    }
}

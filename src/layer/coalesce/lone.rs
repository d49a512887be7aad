//! A call that runs in its caller, where others find it: [`Lone`].

use std::future::Future;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::error::Result;

/// A call that gets on while its caller polls it. A caller may hold on to it and wait for something else, as in a `select!`; so it
/// lies where it can be taken from it.
pub(super) struct Lone<A>(Mutex<Progress<A>>);

enum Progress<A> {
    /// It has yet to begin.
    New,
    UnderWay(BoxFuture<'static, Result<A>>),
    /// It is done, or was taken.
    Over,
}

impl<A> Lone<A> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Progress::New))
    }

    pub(super) fn begin(&self, call: impl Future<Output = Result<A>> + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Progress::UnderWay(call.boxed());
    }

    /// Gets on with the call; none if it was taken.
    pub(super) fn poll(&self, task: &mut TaskContext<'_>) -> Option<Poll<Result<A>>> {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Progress::UnderWay(call) = &mut *progress else { return None };
        let polled = call.poll_unpin(task);
        if polled.is_ready() {
            *progress = Progress::Over;
        }
        Some(polled)
    }

    /// Takes the call; none if its caller gets on with it at this moment, or it is not under way.
    pub(super) fn take(&self) -> Option<BoxFuture<'static, Result<A>>> {
        let mut progress = self.0.try_lock().ok()?;
        match mem::replace(&mut *progress, Progress::Over) {
            Progress::UnderWay(call) => Some(call),
            other => {
                *progress = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn a_call_is_ended_by_its_caller_or_taken_and_never_both() {
        let mut task = TaskContext::from_waker(Waker::noop());
        let (done, taken) = (Lone::new(), Lone::new());
        assert!(done.take().is_none(), "it has yet to begin");
        done.begin(async { Ok(7) });
        assert!(matches!(done.poll(&mut task), Some(Poll::Ready(Ok(7)))));
        assert!(done.poll(&mut task).is_none() && done.take().is_none());
        taken.begin(std::future::pending::<Result<i32>>());
        assert!(matches!(taken.poll(&mut task), Some(Poll::Pending)));
        assert!(taken.take().is_some());
        assert!(taken.poll(&mut task).is_none() && taken.take().is_none());
    }
}

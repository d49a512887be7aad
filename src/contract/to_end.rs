//! [`ToEnd`]: a call that is not broken off by the one who waits for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

/// A call that runs in its caller, and in a task of its own from when the caller goes away. A task from the start would cost each call
/// a hand-over from thread to thread.
pub(crate) struct ToEnd<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    runtime: Option<Handle>,
}

impl<T: Send + 'static> ToEnd<T> {
    /// Makes ready to run. Outside a runtime there is nobody to take it to its end: it ends with its caller.
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(work.boxed()), runtime: Handle::try_current().ok() }
    }
}

impl<T: Send + 'static> Future for ToEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<T> {
        // After its end it has nothing more to say. What panics is not put back: nobody is to run it again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(task);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToEnd<T> {
    fn drop(&mut self) {
        if let (Some(work), Some(runtime)) = (self.work.take(), &self.runtime) {
            runtime.spawn(work);
        }
    }
}

impl<T: Send + 'static> fmt::Debug for ToEnd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToEnd").field("is_over", &self.work.is_none()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn it_goes_on_when_its_caller_goes_away() {
        let (go, told) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut call = ToEnd::new(async move {
            told.await.unwrap();
            done.send(7).unwrap();
        });
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        go.send(()).unwrap();
        assert_eq!(is_done.await, Ok(7));
    }

    #[test]
    fn it_needs_no_runtime() {
        assert_eq!(ToEnd::new(async { 7 }).now_or_never(), Some(7));
        drop(ToEnd::new(std::future::pending::<()>()));
    }

    #[tokio::test]
    async fn it_runs_in_its_caller() {
        let outcome = tokio::spawn(async {
            let caller = tokio::task::id();
            ToEnd::new(async { tokio::task::id() }).await == caller
        });
        assert!(outcome.await.unwrap());
    }
}

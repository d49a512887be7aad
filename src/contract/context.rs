//! What travels down with every call: the [`Context`].

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::task::coop::unconstrained;

/// What a call carries through the layers: the moment by which it must have ended.
///
/// Each layer and backend honours the deadline: a call ends by it even if the server never answers. A write that had
/// been sent by then ends as [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), one that had not as
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// The moment by which the call must have ended.
    pub deadline: Instant,
    /// When the call began, if this was made for it alone.
    began: Option<Instant>,
}

impl Context {
    /// The longest time a call may take: 24 hours. Longer times are cut to it, so that the deadline can be computed.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

    /// Makes a context whose call must end within `timeout` from now, at most [`Context::MAX_TIMEOUT`].
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self::until(Instant::now() + timeout.min(Self::MAX_TIMEOUT))
    }

    /// Makes a context whose call must end by then.
    pub(crate) const fn until(deadline: Instant) -> Self {
        Self { deadline, began: None }
    }

    /// Makes a context for one call, which begins now, as [`Context::with_timeout`] does for any number of calls.
    pub(crate) fn of_call(timeout: Duration) -> Self {
        let began = Instant::now();
        Self { deadline: began + timeout.min(Self::MAX_TIMEOUT), began: Some(began) }
    }

    /// A moment within the call: when it began, else now. To read the clock takes a good part of a read in memory.
    pub(crate) fn moment(&self) -> Instant {
        self.began.unwrap_or_else(Instant::now)
    }

    /// The time left; zero once the deadline has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.remaining().is_zero()
    }

    /// As [`Context::is_expired`], for who has read the clock already.
    pub(crate) fn is_expired_at(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// Waits for a future until the deadline; `None` if the deadline came first, and the future is then dropped. What is ready at
    /// once is answered whatever the deadline.
    ///
    /// # Panics
    ///
    /// If it has to wait outside a Tokio runtime with timers.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the future.
    pub async fn limit<F: Future>(&self, future: F) -> Option<F::Output> {
        let (mut future, mut timer) = (pin!(future), pin!(None));
        poll_fn(|task| {
            if let Poll::Ready(output) = future.as_mut().poll(task) {
                return Poll::Ready(Some(output));
            }
            // What is ready at once costs no timer. What uses up the task's budget does not keep the timer from being looked at.
            if timer.is_none() {
                timer.set(Some(unconstrained(tokio::time::sleep_until(self.deadline.into()))));
            }
            timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(task)).map(|()| None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_future_that_is_always_busy_ends_at_the_deadline() {
        let cx = Context::with_timeout(Duration::from_millis(5));
        let busy = async {
            loop {
                tokio::task::consume_budget().await;
            }
        };
        assert_eq!(cx.limit(busy).await, None::<()>);
        assert!(cx.is_expired());
    }

    #[test]
    fn what_is_ready_at_once_needs_no_runtime() {
        let cx = Context::with_timeout(Duration::ZERO);
        let mut limited = pin!(cx.limit(std::future::ready(7)));
        let task = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert_eq!(limited.as_mut().poll(task), Poll::Ready(Some(7)));
    }
}

//! What travels down with every call: the [`Context`].

use std::future::Future;
use std::time::{Duration, Instant};

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
}

impl Context {
    /// The longest time a call may take: 24 hours. Longer times are cut to it, so that the deadline can be computed.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

    /// Makes a context whose call must end within `timeout` from now, at most [`Context::MAX_TIMEOUT`].
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout.min(Self::MAX_TIMEOUT) }
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

    /// Waits for a future until the deadline; `None` if the deadline came first, and the future is then dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the future.
    pub async fn limit<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.deadline.into(), future).await.ok()
    }
}

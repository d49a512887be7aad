//! How time passes for a store under test: [`Elapse`].

use std::time::Duration;

use crate::{Clock, Ttl};

/// How time passes for the store under test.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Elapse {
    /// The store judges TTLs by this manual clock, which the suite moves.
    Manual(Clock),
    /// The store judges TTLs by a clock out of reach, as a server does. The suite then really waits, for as short as it can,
    /// and asserts only what a slow machine cannot break.
    Real,
}

impl Elapse {
    /// A TTL that the suite can outwait.
    pub(super) fn short_ttl(&self) -> Ttl {
        let millis = match self {
            Self::Manual(_) => 60_000,
            Self::Real => 400,
        };
        Ttl::from_millis(millis).unwrap_or(Ttl::MAX)
    }

    /// Lets a time pass.
    pub(super) async fn pass(&self, time: Duration) {
        match self {
            Self::Manual(clock) => clock.advance(time),
            Self::Real => tokio::time::sleep(time).await,
        }
    }

    /// The clock that the store judges by, or the system's, which is close to a server's.
    pub(super) fn clock(&self) -> Clock {
        match self {
            Self::Manual(clock) => clock.clone(),
            Self::Real => Clock::system(),
        }
    }
}

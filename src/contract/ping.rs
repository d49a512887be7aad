//! What a store says of itself: [`Ping`] and [`Identity`].

use std::fmt;
use std::time::Duration;

/// The answer of a store that could be written to a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ping {
    /// How long the answer took.
    pub latency: Duration,
    /// The server's or library's version, as it names itself.
    pub server_version: Option<String>,
    /// Which database answered, and its canary as this ping raised it; `None` where the store cannot tell, as a cache.
    pub identity: Option<Identity>,
}

impl Ping {
    /// Makes an answer.
    #[must_use]
    pub const fn new(latency: Duration, server_version: Option<String>) -> Self {
        Self { latency, server_version, identity: None }
    }

    /// Says which database answered.
    #[must_use]
    pub const fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }
}

/// Which database this is, really: a random id made by its first migration, and a number that only rises.
///
/// A pooled reconnect or a repointed proxy shows another id; a restored backup shows a canary below the one remembered.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The random id.
    pub id: u128,
    /// The number that every ping raises.
    pub canary: u64,
}

impl Identity {
    /// Makes an identity.
    #[must_use]
    pub const fn new(id: u128, canary: u64) -> Self {
        Self { id, canary }
    }

    /// Whether this is the database that was seen before, at that state or a later one.
    #[must_use]
    pub const fn continues(self, seen: Self) -> bool {
        self.id == seen.id && self.canary >= seen.canary
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:032x} at {})", self.id, self.canary)
    }
}

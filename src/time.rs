//! Time as the stores see it: [`Timestamp`]s in milliseconds, [`Ttl`]s, and the [`Clock`] they are read from.
//!
//! Nothing else in the crate reads the system's clock, so that a test can hold time in its hand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// A moment: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Takes milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment a TTL after this one.
    #[must_use]
    pub const fn after(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.as_millis()))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// How long an entry lives: a whole number of milliseconds, at least 1 and at most [`Ttl::MAX`].
///
/// # Examples
///
/// ```
/// use agent_storage::Ttl;
/// use std::time::Duration;
///
/// assert_eq!(Ttl::from_secs(30)?.as_millis(), 30_000);
/// assert!(Ttl::new(Duration::ZERO).is_err());
/// # Ok::<(), agent_storage::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

impl Ttl {
    /// The longest TTL: 100 years of 365 days. Redis and NATS keep a TTL in 64 bits of milliseconds or nanoseconds; this
    /// stays well inside both.
    pub const MAX: Self = Self(100 * 365 * 24 * 3600 * 1000);

    /// The shortest TTL: a millisecond.
    pub const MIN: Self = Self(1);

    /// Takes a duration; a fraction of a millisecond is rounded up.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) if it is zero or longer than [`Ttl::MAX`].
    pub fn new(duration: Duration) -> Result<Self> {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        match u64::try_from(millis) {
            Ok(0) => Err(Error::invalid_value("a TTL must be longer than zero; leave it out for an entry that stays")),
            Ok(millis) if millis <= Self::MAX.0 => Ok(Self(millis)),
            _ => Err(Error::invalid_value("a TTL may be at most 100 years; leave it out for an entry that stays")),
        }
    }

    /// Takes milliseconds.
    ///
    /// # Errors
    ///
    /// As [`Ttl::new`].
    pub fn from_millis(millis: u64) -> Result<Self> {
        Self::new(Duration::from_millis(millis))
    }

    /// Takes seconds.
    ///
    /// # Errors
    ///
    /// As [`Ttl::new`].
    pub fn from_secs(secs: u64) -> Result<Self> {
        Self::new(Duration::from_secs(secs))
    }

    /// The TTL in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The TTL as a duration.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl TryFrom<Duration> for Ttl {
    type Error = Error;

    fn try_from(duration: Duration) -> Result<Self> {
        Self::new(duration)
    }
}

/// Where the time comes from: the system, or a test's hand.
///
/// Clones share the same time.
///
/// # Examples
///
/// ```
/// use agent_storage::Clock;
/// use std::time::Duration;
///
/// let clock = Clock::manual();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at the present moment until it is moved.
    #[must_use]
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(system_millis()))))
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(match &self.0 {
            Source::System => system_millis(),
            Source::Manual(millis) => millis.load(Ordering::SeqCst),
        })
    }

    /// Moves a manual clock forward; the system's clock is not touched.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(millis) = &self.0 {
            millis.fetch_add(saturating_millis(by), Ordering::SeqCst);
        }
    }

    /// Moves a manual clock back; the system's clock is not touched.
    pub fn rewind(&self, by: Duration) {
        if let Source::Manual(millis) = &self.0 {
            let by = saturating_millis(by);
            let _ = millis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_sub(by)));
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock::System",
            Source::Manual(_) => "Clock::Manual",
        })
    }
}

fn system_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, saturating_millis)
}

fn saturating_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_millisecond_is_rounded_up() {
        assert_eq!(Ttl::new(Duration::from_micros(1)).unwrap().as_millis(), 1);
        assert_eq!(Ttl::new(Duration::from_micros(1001)).unwrap().as_millis(), 2);
    }

    #[test]
    fn a_thousand_years_are_too_long() {
        assert!(Ttl::from_secs(1000 * 365 * 24 * 3600).is_err());
        assert!(Ttl::new(Duration::MAX).is_err());
        assert!(Ttl::from_millis(Ttl::MAX.as_millis()).is_ok());
    }
}

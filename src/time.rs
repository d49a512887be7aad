//! Time as the stores see it: [`Timestamp`]s in milliseconds, [`Ttl`]s, and the [`Clock`] they are read from.
//!
//! Nothing else in the crate reads the system's clock, so that a test can hold time in its hand.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

    /// The moment of an instant that was just read, for who has read one already. To be exact to a millisecond, as a timestamp is,
    /// the system's clock need not be asked more often than that.
    pub(crate) fn at(&self, instant: Instant) -> Timestamp {
        match &self.0 {
            Source::System => WALL.at(instant),
            Source::Manual(_) => self.now(),
        }
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
    system_nanos() / NANOS_PER_MILLI
}

/// Enough for the year 2554.
fn system_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, saturating_nanos)
}

const NANOS_PER_MILLI: u64 = 1_000_000;

/// How long an offset between the clocks is believed: a step of the system's clock, as after a suspend, is noticed after that.
const RECHECK_NANOS: u64 = NANOS_PER_MILLI;

/// How far apart the clocks may have been read for their offset to be kept; a thread may be suspended between two reads.
const TOLERATED_NANOS: u64 = NANOS_PER_MILLI / 10;

static WALL: Wall = Wall { base: OnceLock::new(), checked: AtomicU64::new(0), offset: AtomicU64::new(0) };

/// The system's clock as it was read lately, carried on by the monotonic clock.
#[derive(Debug)]
struct Wall {
    /// What the monotonic nanoseconds here count from.
    base: OnceLock<Instant>,
    /// When the system's clock was last read; zero if never.
    checked: AtomicU64,
    /// What the system's clock is ahead of the monotonic nanoseconds.
    offset: AtomicU64,
}

impl Wall {
    fn at(&self, instant: Instant) -> Timestamp {
        let base = *self.base.get_or_init(|| instant);
        let elapsed = nanos_between(base, instant);
        let checked = self.checked.load(Ordering::Acquire);
        let nanos = if checked != 0 && elapsed.saturating_sub(checked) < RECHECK_NANOS {
            elapsed.wrapping_add(self.offset.load(Ordering::Relaxed))
        } else {
            self.check(base)
        };
        Timestamp(nanos / NANOS_PER_MILLI)
    }

    /// Reads the system's clock, and keeps how far it is ahead.
    #[cold]
    fn check(&self, base: Instant) -> u64 {
        let before = nanos_between(base, Instant::now());
        let nanos = system_nanos();
        let after = nanos_between(base, Instant::now());
        if after.saturating_sub(before) <= TOLERATED_NANOS {
            self.offset.store(nanos.wrapping_sub(after), Ordering::Relaxed);
            self.checked.store(after.max(1), Ordering::Release);
        }
        nanos
    }
}

fn nanos_between(earlier: Instant, later: Instant) -> u64 {
    saturating_nanos(later.saturating_duration_since(earlier))
}

fn saturating_nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
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
    fn the_moment_of_an_instant_is_that_of_the_system_clock() {
        let clock = Clock::system();
        for round in 0..2000 {
            let before = clock.now();
            let at = clock.at(Instant::now());
            let after = clock.now();
            assert!(before.since(at).as_millis() <= 1 && at.since(after).as_millis() <= 1, "round {round}");
        }
    }

    #[test]
    fn an_offset_is_believed_for_a_millisecond() {
        let wall = Wall { base: OnceLock::new(), checked: AtomicU64::new(0), offset: AtomicU64::new(0) };
        let instant = Instant::now();
        while wall.checked.load(Ordering::Relaxed) == 0 {
            wall.at(instant);
        }
        let checked = Duration::from_nanos(wall.checked.load(Ordering::Relaxed));
        wall.offset.fetch_add(3_600_000_000_000, Ordering::Relaxed);
        let (soon, later) = (wall.at(instant + checked), wall.at(instant + checked + Duration::from_millis(1)));
        assert!(soon.since(later) > Duration::from_secs(3000));
    }

    #[test]
    fn a_thousand_years_are_too_long() {
        assert!(Ttl::from_secs(1000 * 365 * 24 * 3600).is_err());
        assert!(Ttl::new(Duration::MAX).is_err());
        assert!(Ttl::from_millis(Ttl::MAX.as_millis()).is_ok());
    }
}

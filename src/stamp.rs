//! What orders writes: the [`Stamp`], given before a write's first attempt, and the [`HybridClock`] that gives it.
//!
//! A hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014) runs with the wall clock, never backwards,
//! and steps past every stamp it is shown. So a stamp is close to the time, and newer than all its writer has seen.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::{Behind, Error, Result};
use crate::time::{Clock, Timestamp};

/// The bits of a stamp's time that count writes within one millisecond.
const COUNTER_BITS: u32 = 16;

/// The year 2200, in milliseconds since the Unix epoch. A later stamp was damaged: no clock gave it. To follow one would leave
/// this process, and whoever reads what it writes, without newer stamps.
const HORIZON_MILLIS: u64 = 7_258_118_400_000;

/// A write's identity and its place in the order of writes: 16 bytes that sort like the stamp.
///
/// Eight bytes of hybrid logical clock (48 bits of milliseconds, 16 of counter), then eight random bytes that name the
/// writing process. It is the operation's id, the revision a database reports, the last-writer-wins order, and the default
/// id of a list item.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    time: u64,
    writer: u64,
}

impl Stamp {
    /// The stamp before all others; no write carries it.
    pub const MIN: Self = Self { time: 0, writer: 0 };

    /// The stamp before all that stand for this moment or a later one.
    #[must_use]
    pub const fn earliest(moment: Timestamp) -> Self {
        Self { time: moment.as_millis() << COUNTER_BITS, writer: 0 }
    }

    /// The 16 bytes, in an order that sorts like the stamp.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.time) << 64) | u128::from(self.writer)).to_be_bytes()
    }

    /// Reads what [`Stamp::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [time @ .., _, _, _, _, _, _, _, _] = bytes;
        let [_, _, _, _, _, _, _, _, writer @ ..] = bytes;
        Self { time: u64::from_be_bytes(time), writer: u64::from_be_bytes(writer) }
    }

    /// Reads a stamp from a stored column.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if it is not 16 bytes long, or of a time after the year 2200.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        let bytes = <[u8; 16]>::try_from(bytes).map_err(|_| Error::corrupt("a stored stamp is not 16 bytes long"))?;
        let stamp = Self::from_bytes(bytes);
        if stamp.is_plausible() { Ok(stamp) } else { Err(Error::corrupt("a stored stamp lies after the year 2200")) }
    }

    /// Whether a clock can have given it: not if its time is after the year 2200.
    #[must_use]
    pub const fn is_plausible(self) -> bool {
        self.timestamp().as_millis() < HORIZON_MILLIS
    }

    /// The moment the stamp stands for; at or after the writer's wall clock when it was given.
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(self.time >> COUNTER_BITS)
    }

    /// The random number of the process that wrote.
    #[must_use]
    pub const fn writer(self) -> u64 {
        self.writer
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.time, self.writer)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp({self})")
    }
}

impl FromStr for Stamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let valid = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if valid => Ok(Self::from_bytes(number.to_be_bytes())),
            _ => Err(Error::invalid_value("a stamp is 32 hexadecimal digits")),
        }
    }
}

/// The clock that gives stamps: each newer than every stamp it gave or was shown, whatever the wall clock does.
///
/// # Examples
///
/// ```
/// use agent_storage::{Clock, HybridClock};
/// use std::time::Duration;
///
/// let wall = Clock::manual();
/// let clock = HybridClock::new(wall.clone());
/// let first = clock.issue();
/// wall.rewind(Duration::from_secs(10));
/// assert!(clock.issue() > first);
/// ```
#[derive(Debug)]
pub struct HybridClock {
    wall: Clock,
    writer: u64,
    last: AtomicU64,
}

impl HybridClock {
    /// Makes a clock over a wall clock, with a random writer of its own.
    ///
    /// Within one process all stores should share [`HybridClock::process`]; a clock of its own stands for another process,
    /// as tests want it.
    #[must_use]
    pub fn new(wall: Clock) -> Self {
        Self { wall, writer: random_writer(), last: AtomicU64::new(0) }
    }

    /// The clock of this process.
    #[must_use]
    pub fn process() -> Arc<Self> {
        static PROCESS: OnceLock<Arc<HybridClock>> = OnceLock::new();
        Arc::clone(PROCESS.get_or_init(|| Arc::new(Self::new(Clock::system()))))
    }

    /// Gives a stamp newer than all that this clock gave or was shown.
    #[must_use]
    pub fn issue(&self) -> Stamp {
        self.issue_block(1)
    }

    /// Gives as many stamps, one right after the other, for one look at the clock.
    pub(crate) fn issue_many(&self, count: usize) -> impl Iterator<Item = Stamp> + use<> {
        let Stamp { time: first, writer } = self.issue_block(count as u64);
        (first..).take(count).map(move |time| Stamp { time, writer })
    }

    /// Gives the first of as many stamps in a row.
    fn issue_block(&self, count: u64) -> Stamp {
        let physical = self.wall.now().as_millis() << COUNTER_BITS;
        let next = |last: u64| physical.max(last.saturating_add(1));
        let given = |last: u64| next(last).saturating_add(count.saturating_sub(1));
        let time = match self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(given(last))) {
            Ok(last) | Err(last) => next(last),
        };
        Stamp { time, writer: self.writer }
    }

    /// Shows the clock a stamp that was read, so that the next one it gives is newer. One that no clock can have given is not
    /// followed.
    pub fn observe(&self, stamp: Stamp) {
        if stamp.is_plausible() {
            // Another writer's stamp of the same time may be newer than the last that was given.
            let passed = stamp.time + u64::from(stamp.writer != self.writer);
            // Nearly always it knows, and threads that only look do not wait for each other.
            if self.last.load(Ordering::SeqCst) < passed {
                self.last.fetch_max(passed, Ordering::SeqCst);
            }
        }
    }

    /// The moment of the newest stamp that this clock gave or was shown.
    pub(crate) fn newest(&self) -> Timestamp {
        Timestamp::from_millis(self.last.load(Ordering::SeqCst) >> COUNTER_BITS)
    }

    /// Gives a stamp newer than `stamp` and than all that this clock gave or was shown.
    #[must_use]
    pub fn issue_after(&self, stamp: Stamp) -> Stamp {
        self.observe(stamp);
        self.issue()
    }

    /// Whether these are the last stamps that this clock gave, one right after the other, and it was shown none that may be newer.
    #[must_use]
    pub fn are_newest(&self, stamps: impl IntoIterator<Item = Stamp>) -> bool {
        let mut newest = None;
        for Stamp { time, writer } in stamps {
            if writer != self.writer || newest.is_some_and(|last: u64| last + 1 != time) {
                return false;
            }
            newest = Some(time);
        }
        newest == Some(self.last.load(Ordering::SeqCst))
    }

    /// The random number that names this process in its stamps.
    #[must_use]
    pub const fn writer(&self) -> u64 {
        self.writer
    }
}

fn random_writer() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        // Without a source of randomness, the keys of a fresh hash map (seeded by the standard library) still differ a process.
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(std::process::id())
    })
}

impl Behind {
    /// The newest stamp that stands in the way of the write, as far as the store knows: whoever stamps it anew must pass it. `None` for
    /// what was refused only because it follows in its batch.
    #[must_use]
    pub fn standing(self) -> Option<Stamp> {
        self.standing.map(Stamp::from_bytes)
    }

    /// The same, and this stands in the way.
    #[must_use]
    pub fn with_standing(mut self, standing: Option<Stamp>) -> Self {
        self.standing = self.standing.max(standing.map(Stamp::to_bytes));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn bytes_sort_like_the_stamp_and_come_back() {
        let clock = HybridClock::new(Clock::manual());
        let (first, second) = (clock.issue(), clock.issue());
        assert!(first < second && first.to_bytes() < second.to_bytes());
        assert_eq!(Stamp::from_bytes(second.to_bytes()), second);
        assert_eq!(second.to_string().parse::<Stamp>().unwrap(), second);
    }

    #[test]
    fn a_stamp_shown_is_passed() {
        let ahead = Clock::manual();
        ahead.advance(Duration::from_secs(3600));
        let (theirs, ours) = (HybridClock::new(ahead), HybridClock::new(Clock::manual()));
        let stamp = theirs.issue();
        assert!(ours.issue() < stamp);
        assert!(ours.issue_after(stamp) > stamp);
    }

    #[test]
    fn a_clock_knows_its_newest_stamps() {
        let (ours, theirs) = (HybridClock::new(Clock::manual()), HybridClock::new(Clock::manual()));
        let (first, second, third) = (ours.issue(), ours.issue(), ours.issue());
        assert!(
            ours.are_newest([third]) && ours.are_newest([second, third]) && ours.are_newest([first, second, third])
        );
        assert!(!ours.are_newest([second]) && !ours.are_newest([first, third]) && !ours.are_newest([third, second]));
        assert!(!ours.are_newest([]) && !theirs.are_newest([third]));
        // Another writer's of the same time may be newer.
        let other = Stamp { writer: theirs.writer(), ..third };
        ours.observe(other);
        assert!(!ours.are_newest([third]) && ours.issue() > other);
    }

    #[test]
    fn many_stamps_follow_each_other_and_what_was_given_before() {
        let clock = HybridClock::new(Clock::manual());
        let before = clock.issue();
        let many: Vec<Stamp> = clock.issue_many(3).collect();
        assert!(before < many[0] && many.is_sorted() && clock.are_newest(many.iter().copied()));
        assert!(clock.issue() > many[2]);
        assert_eq!(clock.issue_many(0).count(), 0);
    }

    #[test]
    fn the_earliest_of_a_moment_parts_older_from_newer() {
        let wall = Clock::manual();
        let clock = HybridClock::new(wall.clone());
        let before = clock.issue();
        wall.advance(Duration::from_millis(1));
        let earliest = Stamp::earliest(wall.now());
        assert!(before < earliest && earliest < clock.issue());
        assert_eq!(earliest.timestamp(), wall.now());
    }

    #[test]
    fn a_damaged_stamp_is_not_followed() {
        let clock = HybridClock::new(Clock::manual());
        let before = clock.issue();
        clock.observe(Stamp::from_bytes([0xff; 16]));
        let (first, second) = (clock.issue(), clock.issue());
        assert!(before < first && first < second && second.is_plausible());
        assert!(Stamp::from_slice(&[0xff; 16]).is_err() && Stamp::from_slice(&[1; 15]).is_err());
    }

    #[test]
    fn text_that_is_no_stamp_is_refused() {
        assert!("+0000000000000000000000000000001".parse::<Stamp>().is_err());
        assert!("12".parse::<Stamp>().is_err());
    }
}

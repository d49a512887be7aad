//! The server's clock, as far as it is known here: what arrives after its deadline by that clock changes nothing.
//!
//! A statement that the network holds back may arrive when it has long been given up, journaled and replayed, and would decide then over
//! what others wrote meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long a reading is relied on: clocks drift, and are set.
const RELIED_ON_FOR: Duration = Duration::from_secs(60);

/// What a ping said of the server's clock last, if any did.
#[derive(Debug, Default)]
pub(super) struct ServerClock(Mutex<Option<Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// When it was asked. The server answered later, so its clock was further then than at this moment.
    asked: Instant,
    /// Milliseconds since the epoch.
    said: i64,
}

impl ServerClock {
    /// Notes what the server said to a question of that moment. What an earlier answer says is nearer where this one was held up.
    pub(super) fn note(&self, asked: Instant, said: i64) {
        if self.at(asked).is_none_or(|shown| said <= shown) {
            *self.reading() = Some(Reading { asked, said });
        }
    }

    /// Forgets it: it was wrong, because the clock was set, or because another server answers.
    pub(super) fn forget(&self) {
        *self.reading() = None;
    }

    /// What the server's clock shows at a moment, and no less, in milliseconds since the epoch; none if nobody knows.
    pub(super) fn at(&self, moment: Instant) -> Option<i64> {
        let Reading { asked, said } = self.reading().filter(|reading| reading.asked.elapsed() < RELIED_ON_FOR)?;
        let since = moment.saturating_duration_since(asked).as_millis();
        Some(said.saturating_add(i64::try_from(since).ok()?).saturating_add(1))
    }

    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_was_said_until_that_is_old() {
        let (clock, now) = (ServerClock::default(), Instant::now());
        assert_eq!(clock.at(now), None);
        clock.note(now, 1_000);
        assert_eq!(clock.at(now + Duration::from_secs(5)), Some(6_001));
        clock.note(now + Duration::from_secs(1), 2_500);
        assert_eq!(clock.at(now + Duration::from_secs(5)), Some(6_001), "that answer was held up");
        clock.note(now + Duration::from_secs(2), 2_500);
        assert_eq!(clock.at(now + Duration::from_secs(5)), Some(5_501));
        clock.forget();
        assert_eq!(clock.at(now), None);
        if let Some(long_ago) = now.checked_sub(RELIED_ON_FOR) {
            clock.note(long_ago, 1_000);
            assert_eq!(clock.at(now), None);
        }
    }
}

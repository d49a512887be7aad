//! The writes that may come [`Late`]: given up on their way, but not by those who carry them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::contract::Write;
use crate::key::{Key, KeyPrefix};

/// Until when writes that nobody waits for any more may still be sent, by their keys.
///
/// A backend may carry a write to its end though its caller went away, until the deadline it was given. What was not sent by then
/// never is; what was is on the connection before whatever is sent now.
#[derive(Debug, Default)]
pub(super) struct Late {
    until: Mutex<HashMap<Key, Instant>>,
}

impl Late {
    /// Notes, when dropped, that these writes were given up, unless they were answered.
    pub(super) const fn watch<'a>(&'a self, writes: &'a [Write], deadline: Instant) -> GivenUp<'a> {
        GivenUp { late: self, keys: Keys::Of(writes), deadline }
    }

    /// The same for a change of one key.
    pub(super) const fn watch_one<'a>(&'a self, key: &'a Key, deadline: Instant) -> GivenUp<'a> {
        GivenUp { late: self, keys: Keys::One(key), deadline }
    }

    /// Until when something may come under a key.
    pub(super) fn until(&self, key: &Key) -> Option<Instant> {
        self.lock().get(key).copied()
    }

    /// Until when something may come under a prefix.
    pub(super) fn until_under(&self, prefix: &KeyPrefix) -> Option<Instant> {
        self.lock().iter().filter(|(key, _)| prefix.matches(key)).map(|(_, until)| *until).max()
    }

    fn add(&self, key: &Key, deadline: Instant) {
        let mut until = self.lock();
        let latest = until.entry(key.clone()).or_insert(deadline);
        *latest = deadline.max(*latest);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if !until.is_empty() {
            let now = Instant::now();
            until.retain(|_, deadline| *deadline > now);
        }
        until
    }
}

/// Writes on their way.
#[derive(Debug)]
pub(super) struct GivenUp<'a> {
    late: &'a Late,
    keys: Keys<'a>,
    deadline: Instant,
}

#[derive(Debug)]
enum Keys<'a> {
    Of(&'a [Write]),
    One(&'a Key),
    None,
}

impl GivenUp<'_> {
    /// The backend answered, and carries nothing any more.
    pub(super) fn answered(mut self) {
        self.keys = Keys::None;
    }
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        match self.keys {
            Keys::Of(writes) => writes.iter().for_each(|write| self.late.add(&write.key, self.deadline)),
            Keys::One(key) => self.late.add(key, self.deadline),
            Keys::None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::HybridClock;
    use std::time::Duration;

    #[test]
    fn what_is_given_up_may_come_until_its_deadline() {
        let (late, now) = (Late::default(), Instant::now());
        let key = Key::parse("a:1").unwrap();
        let writes = [Write::delete(key.clone(), HybridClock::process().issue())];
        let (soon, later) = (now + Duration::from_secs(60), now + Duration::from_secs(120));
        late.watch(&writes, later).answered();
        assert_eq!(late.until(&key), None);
        drop(late.watch(&writes, later));
        drop(late.watch_one(&key, soon));
        assert_eq!(late.until(&key), Some(later));
        assert_eq!(late.until_under(&KeyPrefix::parse("a:").unwrap()), Some(later));
        assert_eq!(late.until_under(&KeyPrefix::parse("b:").unwrap()), None);
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let late = Late::default();
        let key = Key::parse("a").unwrap();
        drop(late.watch_one(&key, Instant::now()));
        assert_eq!(late.until(&key), None);
        assert!(late.until.lock().unwrap().is_empty());
    }
}

//! The writes that may come [`Late`]: given up on their way, but not by those who carry them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::chain::in_flight::overlap;
use crate::contract::Write;
use crate::key::{Key, KeyPrefix};

/// Until when writes and clears that nobody waits for any more may still be sent, by their keys and prefixes.
///
/// A backend may carry a write to its end though its caller went away, until the deadline it was given. What was not sent by then
/// never is; what was is on the connection before whatever is sent now.
#[derive(Debug, Default)]
pub(super) struct Late {
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    until: HashMap<Key, Instant>,
    /// Of clears. There are few: each had a caller.
    until_under: Vec<(KeyPrefix, Instant)>,
    /// How many there may be before those whose time is over are looked for.
    most: usize,
}

/// So few are not worth looking through.
const FEW: usize = 1024;

impl Late {
    /// Notes, when dropped, that these writes were given up, unless they were answered.
    pub(super) const fn watch<'a>(&'a self, writes: &'a [Write], deadline: Instant) -> GivenUp<'a> {
        GivenUp { late: self, keys: Keys::Of(writes), deadline }
    }

    /// The same for a change of one key.
    pub(super) const fn watch_one<'a>(&'a self, key: &'a Key, deadline: Instant) -> GivenUp<'a> {
        GivenUp { late: self, keys: Keys::One(key), deadline }
    }

    /// The same for a clear.
    pub(super) const fn watch_prefix<'a>(&'a self, prefix: &'a KeyPrefix, deadline: Instant) -> GivenUp<'a> {
        GivenUp { late: self, keys: Keys::Under(prefix), deadline }
    }

    /// Until when something may come under a key.
    pub(super) fn until(&self, key: &Key) -> Option<Instant> {
        let now = Instant::now();
        let noted = self.lock();
        let clears = noted.until_under.iter().filter(|(prefix, _)| prefix.matches(key)).map(|(_, until)| *until);
        noted.until.get(key).copied().into_iter().chain(clears).filter(|until| *until > now).max()
    }

    /// Until when something may come under a prefix.
    pub(super) fn until_under(&self, prefix: &KeyPrefix) -> Option<Instant> {
        let now = Instant::now();
        let noted = self.lock();
        let writes = noted.until.iter().filter(|(key, _)| prefix.matches(key)).map(|(_, until)| *until);
        let clears = noted.until_under.iter().filter(|(cleared, _)| overlap(cleared, prefix)).map(|(_, until)| *until);
        writes.chain(clears).filter(|until| *until > now).max()
    }

    fn add<'k>(&self, keys: impl IntoIterator<Item = &'k Key>, deadline: Instant) {
        let mut noted = self.lock();
        for key in keys {
            let latest = noted.until.entry(key.clone()).or_insert(deadline);
            *latest = deadline.max(*latest);
        }
        if noted.until.len() > noted.most {
            let now = Instant::now();
            noted.until.retain(|_, until| *until > now);
            noted.most = FEW.max(noted.until.len().saturating_mul(2));
        }
    }

    fn add_prefix(&self, prefix: &KeyPrefix, deadline: Instant) {
        let now = Instant::now();
        let mut noted = self.lock();
        noted.until_under.retain(|(known, until)| *until > now && (known != prefix || *until > deadline));
        noted.until_under.push((prefix.clone(), deadline));
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
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
    Under(&'a KeyPrefix),
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
            Keys::Of(writes) => self.late.add(writes.iter().map(|write| &write.key), self.deadline),
            Keys::One(key) => self.late.add([key], self.deadline),
            Keys::Under(prefix) => self.late.add_prefix(prefix, self.deadline),
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
    fn a_clear_that_is_given_up_may_come_under_each_key_with_its_prefix() {
        let (late, now) = (Late::default(), Instant::now());
        let prefix = |text: &str| KeyPrefix::parse(text).unwrap();
        let key = |name: &str| Key::parse(name).unwrap();
        let (soon, later) = (now + Duration::from_secs(60), now + Duration::from_secs(120));
        late.watch_prefix(&prefix("a:"), later).answered();
        assert_eq!(late.until(&key("a:1")), None);
        drop(late.watch_prefix(&prefix("a:"), later));
        drop(late.watch_prefix(&prefix("a:"), soon));
        drop(late.watch_one(&key("a:1"), soon));
        assert_eq!([late.until(&key("a:1")), late.until(&key("b:1"))], [Some(later), None]);
        for (other, until) in [("", Some(later)), ("a:1:", Some(later)), ("b:", None)] {
            assert_eq!(late.until_under(&prefix(other)), until, "{other}");
        }
        for _ in 0..10 {
            drop(late.watch_prefix(&prefix("b:"), now));
        }
        assert_eq!(late.until_under(&prefix("b:")), None);
        assert!(late.lock().until_under.len() <= 3, "what has passed is forgotten");
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let late = Late::default();
        let name = |number: usize| Key::parse(format!("k:{number}")).unwrap();
        drop(late.watch_one(&name(0), Instant::now()));
        assert_eq!(late.until(&name(0)), None);
        for number in 0..10 * FEW {
            drop(late.watch_one(&name(number), Instant::now()));
        }
        assert!(late.lock().until.len() <= FEW + 1);
    }
}

//! [`Owed`]: what the primary is owed, by key.
//!
//! It holds no values: of each operation its number in the journal, its stamp, and what it does to its key.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::in_flight::overlap;
use super::journal::{Effect, Header};

/// What a reader is told of a value that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwedValue {
    /// The journal holds it under this number.
    Put { seq: u64, stamp: Stamp, expires_at: Option<Timestamp> },
    /// It was deleted.
    Deleted,
}

/// What a reader is told of a list that is owed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwedList {
    /// It was deleted, and nothing was appended since.
    Deleted,
    /// Items were appended whose positions only the primary can give.
    Appended,
}

/// All that is owed.
#[derive(Debug, Default)]
pub(super) struct Owed {
    debts: BTreeMap<u64, Header>,
    keys: BTreeMap<Key, OwedKey>,
    /// The numbers of the clears among the debts.
    clears: BTreeMap<u64, (KeyPrefix, Stamp)>,
    parked: HashSet<u64>,
}

#[derive(Debug, Default)]
struct OwedKey {
    debts: usize,
    value: Option<(u64, Stamp, OwedValue)>,
    deleted: Option<(u64, Stamp)>,
    appends: BTreeMap<u64, Stamp>,
}

impl Owed {
    /// Adds a debt, unless it is known.
    pub(super) fn add(&mut self, debt: Header) {
        if self.debts.contains_key(&debt.seq) {
            return;
        }
        let Header { seq, stamp, .. } = debt;
        match &debt.effect {
            Effect::Put(key, expires_at) => {
                let value = OwedValue::Put { seq, stamp, expires_at: *expires_at };
                self.key_mut(key).write(seq, stamp, value);
            }
            Effect::Delete(key) => {
                let owed = self.key_mut(key);
                owed.write(seq, stamp, OwedValue::Deleted);
                if owed.deleted.is_none_or(|(_, standing)| standing < stamp) {
                    owed.deleted = Some((seq, stamp));
                }
            }
            Effect::Append(key) => {
                self.key_mut(key).appends.insert(seq, stamp);
            }
            Effect::Clear(prefix) => {
                self.clears.insert(seq, (prefix.clone(), stamp));
            }
        }
        if debt.parked {
            self.parked.insert(seq);
        }
        self.debts.insert(seq, debt);
    }

    fn key_mut(&mut self, key: &Key) -> &mut OwedKey {
        let owed = self.keys.entry(key.clone()).or_default();
        owed.debts += 1;
        owed
    }

    /// Forgets a debt that was paid.
    pub(super) fn pay(&mut self, seq: u64) {
        let Some(debt) = self.debts.remove(&seq) else { return };
        self.parked.remove(&seq);
        match &debt.effect {
            Effect::Clear(_) => drop(self.clears.remove(&seq)),
            Effect::Put(key, _) | Effect::Delete(key) | Effect::Append(key) => {
                let Some(owed) = self.keys.get_mut(key) else { return };
                owed.debts -= 1;
                owed.value.take_if(|(newest, ..)| *newest == seq);
                owed.deleted.take_if(|(newest, _)| *newest == seq);
                owed.appends.remove(&seq);
                if owed.debts == 0 {
                    self.keys.remove(key);
                }
            }
        }
    }

    /// Says that a debt cannot be paid as things are. Its key stays owed.
    pub(super) fn park(&mut self, seq: u64) {
        if self.debts.contains_key(&seq) {
            self.parked.insert(seq);
        }
    }

    /// How many debts there are, those that are parked included.
    pub(super) fn len(&self) -> usize {
        self.debts.len()
    }

    /// How many of them wait for the primary.
    pub(super) fn pending(&self) -> usize {
        self.debts.len() - self.parked.len()
    }

    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// The next debts to pay, in the order of the journal, a clear always alone.
    pub(super) fn next(&self, limit: usize) -> Vec<u64> {
        let mut next = Vec::new();
        for (seq, debt) in self.debts.iter().filter(|(seq, _)| !self.parked.contains(seq)) {
            let clear = matches!(debt.effect, Effect::Clear(_));
            if next.len() >= limit || (clear && !next.is_empty()) {
                break;
            }
            next.push(*seq);
            if clear {
                break;
            }
        }
        next
    }

    /// The oldest stamp that is owed.
    pub(super) fn oldest(&self) -> Option<Stamp> {
        self.debts.values().next().map(|debt| debt.stamp)
    }

    /// Whether anything is owed to a key.
    pub(super) fn owes(&self, key: &Key) -> bool {
        self.keys.contains_key(key) || self.cleared(key).is_some()
    }

    /// Whether anything is owed to a key with a prefix.
    pub(super) fn owes_under(&self, prefix: &KeyPrefix) -> bool {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        self.keys.range::<str, _>(from).next().is_some_and(|(key, _)| prefix.matches(key))
            || self.clears.values().any(|(cleared, _)| overlap(cleared, prefix))
    }

    /// What is owed of a key's value, if anything is.
    pub(super) fn value(&self, key: &Key) -> Option<OwedValue> {
        let written = self.keys.get(key).and_then(|owed| owed.value);
        match (written, self.cleared(key)) {
            (Some((_, stamp, value)), cleared) if cleared.is_none_or(|cleared| cleared < stamp) => Some(value),
            (_, Some(_)) => Some(OwedValue::Deleted),
            (_, None) => None,
        }
    }

    /// What is owed of a key's list, if anything is.
    pub(super) fn list(&self, key: &Key) -> Option<OwedList> {
        let owed = self.keys.get(key);
        let deleted = owed.and_then(|owed| owed.deleted).map(|(_, stamp)| stamp).max(self.cleared(key));
        let alive = |stamp: &Stamp| deleted.is_none_or(|deleted| deleted < *stamp);
        if owed.is_some_and(|owed| owed.appends.values().any(alive)) {
            return Some(OwedList::Appended);
        }
        deleted.map(|_| OwedList::Deleted)
    }

    /// The stamp of the newest clear that covers a key.
    fn cleared(&self, key: &Key) -> Option<Stamp> {
        let covers = |(prefix, stamp): &(KeyPrefix, Stamp)| prefix.matches(key).then_some(*stamp);
        self.clears.values().filter_map(covers).max()
    }
}

impl OwedKey {
    /// The newest by stamp counts, whatever the order of the journal.
    fn write(&mut self, seq: u64, stamp: Stamp, value: OwedValue) {
        if self.value.is_none_or(|(_, standing, _)| standing < stamp) {
            self.value = Some((seq, stamp, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::HybridClock;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn debts(effects: impl IntoIterator<Item = Effect>) -> (Owed, Vec<Stamp>) {
        let clock = HybridClock::process();
        let (mut owed, mut stamps) = (Owed::default(), Vec::new());
        for (seq, effect) in (1..).zip(effects) {
            let stamp = clock.issue();
            owed.add(Header { seq, stamp, effect, parked: false });
            stamps.push(stamp);
        }
        (owed, stamps)
    }

    #[test]
    fn the_newest_effect_is_what_a_reader_sees() {
        let put = || Effect::Put(key("k"), None);
        let (mut owed, stamps) = debts([put(), Effect::Delete(key("k")), put()]);
        assert_eq!(owed.value(&key("k")), Some(OwedValue::Put { seq: 3, stamp: stamps[2], expires_at: None }));
        assert_eq!(owed.list(&key("k")), Some(OwedList::Deleted));
        owed.pay(1);
        owed.pay(2);
        assert_eq!(owed.list(&key("k")), None);
        assert!(owed.owes(&key("k")));
        owed.pay(3);
        assert!(!owed.owes(&key("k")) && owed.len() == 0);
        assert_eq!(owed.value(&key("k")), None);
    }

    #[test]
    fn what_came_late_into_the_journal_does_not_hide_what_is_newer() {
        let clock = HybridClock::process();
        let (older, newer) = (clock.issue(), clock.issue());
        let mut owed = Owed::default();
        owed.add(Header { seq: 1, stamp: newer, effect: Effect::Delete(key("k")), parked: false });
        owed.add(Header { seq: 2, stamp: older, effect: Effect::Put(key("k"), None), parked: false });
        assert_eq!(owed.value(&key("k")), Some(OwedValue::Deleted));
    }

    #[test]
    fn a_clear_covers_what_is_older_under_its_prefix() {
        let clear = Effect::Clear(KeyPrefix::parse("a:").unwrap());
        let (owed, _) = debts([Effect::Put(key("a:1"), None), clear, Effect::Put(key("a:2"), None)]);
        assert_eq!(owed.value(&key("a:1")), Some(OwedValue::Deleted));
        assert!(matches!(owed.value(&key("a:2")), Some(OwedValue::Put { seq: 3, .. })));
        assert_eq!(owed.value(&key("a:3")), Some(OwedValue::Deleted));
        assert_eq!(owed.value(&key("b")), None);
        let under = |prefix: &str| owed.owes_under(&KeyPrefix::parse(prefix).unwrap());
        assert!(under("") && under("a:") && under("a:7") && !under("b") && !under("a;"));
    }

    #[test]
    fn appends_after_a_delete_are_not_a_deleted_list() {
        let append = || Effect::Append(key("k"));
        let (mut owed, _) = debts([append(), Effect::Delete(key("k")), append()]);
        assert_eq!(owed.list(&key("k")), Some(OwedList::Appended));
        owed.pay(3);
        assert_eq!(owed.list(&key("k")), Some(OwedList::Deleted));
        assert_eq!(owed.value(&key("k")), Some(OwedValue::Deleted));
        owed.pay(2);
        assert_eq!(owed.list(&key("k")), Some(OwedList::Appended));
    }

    #[test]
    fn a_clear_is_paid_alone_and_what_is_parked_is_passed_over() {
        let put = |name: &str| Effect::Put(key(name), None);
        let (mut owed, _) = debts([put("a"), put("b"), Effect::Clear(KeyPrefix::empty()), put("c")]);
        assert_eq!(owed.next(10), [1, 2]);
        assert_eq!(owed.next(1), [1]);
        owed.park(1);
        assert_eq!(owed.next(10), [2]);
        owed.pay(2);
        assert_eq!(owed.next(10), [3]);
        owed.pay(3);
        assert_eq!(owed.next(10), [4]);
        assert_eq!((owed.len(), owed.pending(), owed.parked()), (2, 1, 1));
        assert!(owed.owes(&key("a")));
    }
}

//! [`Owed`]: what the primary is owed, by key.
//!
//! It holds no values: of each operation its number in the journal, its stamp, and what it does to its key.

use std::collections::{BTreeMap, BTreeSet};
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
///
/// A debt that was taken over from a dead process while this one was running is hidden from readers until it is paid: what they are
/// told may be newer, and was written without knowing of it. It is somebody else's write that has not reached the primary yet.
#[derive(Debug, Default)]
pub(super) struct Owed {
    debts: BTreeMap<u64, Header>,
    keys: BTreeMap<Key, OwedKey>,
    /// The numbers of the clears among the debts.
    clears: BTreeMap<u64, (KeyPrefix, Stamp)>,
    /// The numbers of the debts that wait for the primary.
    due: BTreeSet<u64>,
    /// The numbers of those that were put aside.
    parked: BTreeSet<u64>,
    /// The numbers of those that readers are not told of.
    hidden: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct OwedKey {
    debts: usize,
    /// The numbers of those that were put aside.
    parked: BTreeSet<u64>,
    value: Option<(u64, Stamp, OwedValue)>,
    deleted: Option<(u64, Stamp)>,
    appends: BTreeMap<u64, Stamp>,
}

impl Owed {
    /// Adds a debt, unless it is known. Readers are told of it.
    pub(super) fn add(&mut self, debt: Header) {
        let Header { seq, stamp, .. } = debt;
        let effect = debt.effect.clone();
        if self.register(debt) || self.hidden.remove(&seq) {
            self.show(seq, stamp, &effect);
        }
    }

    /// Adds a debt that was taken over while this process was running, unless it is known. It is hidden from readers.
    #[cfg(feature = "sqlite")]
    pub(super) fn add_hidden(&mut self, debt: Header) {
        let seq = debt.seq;
        if self.register(debt) {
            self.hidden.insert(seq);
        }
    }

    /// Counts a debt, unless it is known; says whether it was not.
    fn register(&mut self, debt: Header) -> bool {
        if self.debts.contains_key(&debt.seq) {
            return false;
        }
        let Header { seq, stamp, parked, .. } = debt;
        match &debt.effect {
            Effect::Put(key, _) | Effect::Delete(key) => self.key_mut(key).debts += 1,
            Effect::Append(key) => {
                let owed = self.key_mut(key);
                owed.debts += 1;
                owed.appends.insert(seq, stamp);
            }
            Effect::Clear(prefix) => {
                self.clears.insert(seq, (prefix.clone(), stamp));
            }
        }
        let stopped = debt.effect.list().and_then(|key| self.keys.get(key)).and_then(OwedKey::stopped_at);
        self.debts.insert(seq, debt);
        if parked {
            self.park(seq);
        } else if stopped.is_none_or(|stopped| seq < stopped) {
            self.due.insert(seq);
        }
        true
    }

    /// Tells readers what a debt does to its key.
    fn show(&mut self, seq: u64, stamp: Stamp, effect: &Effect) {
        match effect {
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
            Effect::Append(_) | Effect::Clear(_) => {}
        }
    }

    fn key_mut(&mut self, key: &Key) -> &mut OwedKey {
        self.keys.entry(key.clone()).or_default()
    }

    /// Forgets a debt that was paid.
    pub(super) fn pay(&mut self, seq: u64) {
        if self.parked.contains(&seq) {
            // What waited behind it goes on.
            self.unpark(seq);
        }
        let Some(debt) = self.debts.remove(&seq) else { return };
        self.due.remove(&seq);
        self.hidden.remove(&seq);
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

    /// Says that a debt cannot be paid as things are. Its key stays owed. Later items of its list wait behind it, those to come
    /// too, for they may not overtake it.
    pub(super) fn park(&mut self, seq: u64) {
        let Some(debt) = self.debts.get(&seq) else { return };
        self.parked.insert(seq);
        self.due.remove(&seq);
        let Some(owed) = debt.effect.key().and_then(|key| self.keys.get_mut(key)) else { return };
        owed.parked.insert(seq);
        if owed.appends.contains_key(&seq) {
            for (later, _) in owed.appends.range(seq..) {
                self.due.remove(later);
            }
        }
    }

    /// Has a debt wait for the primary again that was put aside.
    pub(super) fn unpark(&mut self, seq: u64) {
        let Some(debt) = self.debts.get(&seq).filter(|_| self.parked.remove(&seq)) else { return };
        let Some(owed) = debt.effect.key().and_then(|key| self.keys.get_mut(key)) else {
            self.due.insert(seq);
            return;
        };
        owed.parked.remove(&seq);
        if owed.appends.contains_key(&seq) {
            let stopped = owed.stopped_at();
            let goes_on = |later: &u64| stopped.is_none_or(|stopped| *later < stopped);
            self.due.extend(owed.appends.range(seq..).map(|(later, _)| *later).take_while(goes_on));
        } else {
            self.due.insert(seq);
        }
    }

    /// The numbers of the debts that were put aside, in their order.
    pub(super) fn put_aside(&self) -> Vec<u64> {
        self.parked.iter().copied().collect()
    }

    /// The first debt of a key that was put aside, or of a prefix that covers the key.
    pub(super) fn put_aside_of(&self, key: &Key) -> Option<u64> {
        let clear = self.clears.iter().find(|(seq, (prefix, _))| prefix.matches(key) && self.parked.contains(seq));
        let of_key = self.keys.get(key).and_then(|owed| owed.parked.first());
        of_key.or(clear.map(|(seq, _)| seq)).copied()
    }

    /// The debt that was put aside and has this one wait behind it, if one does.
    pub(super) fn waits_behind(&self, seq: u64) -> Option<u64> {
        let key = self.debts.get(&seq)?.effect.list()?;
        self.keys.get(key)?.stopped_at().filter(|stopped| *stopped < seq && !self.parked.contains(&seq))
    }

    /// How many debts there are, those that are parked included.
    pub(super) fn len(&self) -> usize {
        self.debts.len()
    }

    /// How many of them wait for the primary.
    pub(super) fn pending(&self) -> usize {
        self.due.len()
    }

    /// How many were put aside, or wait behind one that was.
    pub(super) fn parked(&self) -> usize {
        self.debts.len() - self.due.len()
    }

    /// Who wrote what is owed.
    pub(super) fn writers(&self) -> BTreeSet<u64> {
        self.debts.values().map(|debt| debt.stamp.writer()).collect()
    }

    /// The next debts to pay, in the order of the journal, a clear always alone.
    pub(super) fn next(&self, limit: usize) -> Vec<u64> {
        let mut next = Vec::new();
        for seq in &self.due {
            let clear = self.clears.contains_key(seq);
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
        self.keys.contains_key(key) || self.clears.values().any(|(prefix, _)| prefix.matches(key))
    }

    /// Whether anything is owed to a key with a prefix.
    pub(super) fn owes_under(&self, prefix: &KeyPrefix) -> bool {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        self.keys.range::<str, _>(from).next().is_some_and(|(key, _)| prefix.matches(key))
            || self.clears.values().any(|(cleared, _)| overlap(cleared, prefix))
    }

    /// What readers are told of a key's value, if it is owed.
    pub(super) fn value(&self, key: &Key) -> Option<OwedValue> {
        let written = self.keys.get(key).and_then(|owed| owed.value);
        match (written, self.cleared(key)) {
            (Some((_, stamp, value)), cleared) if cleared.is_none_or(|cleared| cleared < stamp) => Some(value),
            (_, Some(_)) => Some(OwedValue::Deleted),
            (_, None) => None,
        }
    }

    /// What readers are told of a key's list, if it is owed something.
    pub(super) fn list(&self, key: &Key) -> Option<OwedList> {
        let owed = self.keys.get(key);
        let deleted = owed.and_then(|owed| owed.deleted).map(|(_, stamp)| stamp).max(self.cleared(key));
        let alive =
            |(seq, stamp): (&u64, &Stamp)| deleted.is_none_or(|deleted| deleted < *stamp) && !self.hidden.contains(seq);
        // The last ones are the likeliest.
        if owed.is_some_and(|owed| owed.appends.iter().rev().any(alive)) {
            return Some(OwedList::Appended);
        }
        deleted.map(|_| OwedList::Deleted)
    }

    /// The stamp of the newest clear that covers a key, of those that readers are told of.
    fn cleared(&self, key: &Key) -> Option<Stamp> {
        let clears = self.clears.iter().filter(|(seq, (prefix, _))| prefix.matches(key) && !self.hidden.contains(seq));
        clears.map(|(_, (_, stamp))| *stamp).max()
    }
}

impl OwedKey {
    /// The first item that was put aside: later ones wait behind it.
    fn stopped_at(&self) -> Option<u64> {
        self.parked.iter().copied().find(|seq| self.appends.contains_key(seq))
    }

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
        assert_eq!((owed.put_aside(), owed.put_aside_of(&key("a"))), (vec![1], Some(1)));
        owed.unpark(1);
        assert_eq!(owed.next(10), [1, 4]);
    }

    #[test]
    fn items_wait_behind_one_of_their_list_that_was_put_aside() {
        let append = || Effect::Append(key("list"));
        let put = || Effect::Put(key("list"), None);
        let others = Effect::Append(key("other"));
        let (mut owed, stamps) = debts([append(), append(), put(), append(), others, append()]);
        owed.park(2);
        assert_eq!(owed.next(10), [1, 3, 5]);
        assert_eq!((owed.pending(), owed.parked()), (3, 3));
        assert_eq!([1, 2, 3, 4].map(|seq| owed.waits_behind(seq)), [None, None, None, Some(2)]);
        owed.add(Header { seq: 7, stamp: stamps[5], effect: append(), parked: false });
        assert_eq!(owed.next(10), [1, 3, 5], "those to come wait too");
        owed.park(6);
        owed.unpark(2);
        assert_eq!(owed.next(10), [1, 2, 3, 4, 5]);
        owed.park(2);
        owed.unpark(6);
        assert_eq!(owed.next(10), [1, 3, 5], "the first one still stops them");
        owed.pay(2);
        assert_eq!(owed.next(10), [1, 3, 4, 5, 6, 7]);
        assert_eq!(owed.parked(), 0);
    }
}

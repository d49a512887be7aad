//! [`Owed`]: what the primary is owed, by key.
//!
//! It holds no values: of each operation its number in the journal, its stamp, and what it does to its key.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::journal::{Effect, Header};

use clears::{Clears, OwedClear};
use paid::{Paid, PaidNow};

mod clears;
mod paid;

/// Of how many keys it is noted at most that readers were shown something newer than what is owed, where only clears cover them.
const MOST_NEWER: usize = 100_000;

/// What a reader is told of a value that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwedValue {
    /// The journal holds it under this number.
    Put { seq: u64, stamp: Stamp, expires_at: Option<Timestamp> },
    /// It was deleted.
    Deleted { stamp: Stamp },
    /// It was deleted, but the delete was put aside, or something newer overtook it: what there is now nobody can tell.
    Unsettled,
}

impl OwedValue {
    /// The stamp of what tells, if anything does.
    pub(super) const fn stamp(self) -> Option<Stamp> {
        match self {
            Self::Put { stamp, .. } | Self::Deleted { stamp } => Some(stamp),
            Self::Unsettled => None,
        }
    }
}

/// What a reader is told of a list that is owed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwedList {
    /// It was deleted, and nothing was appended since.
    Deleted { stamp: Stamp },
    /// Items were appended whose positions only the primary can give.
    Appended,
    /// It was deleted, but the delete was put aside, or something newer overtook it: what there is now nobody can tell.
    Unsettled,
}

/// A debt that was put aside, and that something newer replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    pub(super) seq: u64,
    pub(super) stamp: Stamp,
    /// The stamp of what replaced it.
    pub(super) by: Stamp,
}

/// All that is owed.
///
/// A debt that was taken over from a dead process while this one was running is hidden from readers until it is paid: what they are
/// told may be newer, and was written without knowing of it. It is somebody else's write that has not reached the primary yet.
#[derive(Debug, Default)]
pub(super) struct Owed {
    debts: BTreeMap<u64, Header>,
    keys: BTreeMap<Key, OwedKey>,
    clears: Clears,
    /// The numbers of the debts that wait for the primary.
    due: BTreeSet<u64>,
    /// The numbers of those that were put aside.
    parked: BTreeSet<u64>,
    /// The numbers of those that readers are not told of.
    hidden: BTreeSet<u64>,
    /// The numbers of those that were put aside, and that the journal says were replaced since by somebody who did not know of them.
    /// They are hidden too.
    replaced: BTreeSet<u64>,
    /// The stamps of what readers were shown from the primary, because it is newer than what is owed to the value.
    newer: HashMap<Key, Stamp>,
}

#[derive(Debug, Default)]
struct OwedKey {
    debts: usize,
    /// The numbers of those that were put aside.
    parked: BTreeSet<u64>,
    value: Option<(u64, Stamp, OwedValue)>,
    deleted: Option<(u64, Stamp)>,
    appends: BTreeMap<u64, Stamp>,
    paid: Paid,
}

impl Owed {
    /// Adds a debt, unless it is known. Readers are told of it.
    pub(super) fn add(&mut self, debt: Header) {
        let Header { seq, stamp, replaced, .. } = debt;
        let effect = debt.effect.clone();
        if replaced {
            self.add_hidden(debt);
            self.replaced.insert(seq);
        } else if self.register(debt) || self.hidden.remove(&seq) {
            self.show(seq, stamp, &effect);
        }
    }

    /// Adds a debt of which nobody heard that it was kept, unless it is known. Readers are told of it.
    pub(super) fn add_unheard(&mut self, debt: Header) {
        if !self.debts.contains_key(&debt.seq) {
            self.add(debt);
        }
    }

    /// Adds a debt that was taken over while this process was running, unless it is known. It is hidden from readers.
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
            Effect::Clear(prefix) => self.clears.insert(seq, prefix.clone(), stamp),
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
                owed.write(seq, stamp, OwedValue::Deleted { stamp });
                let newest = owed.deleted.map(|(_, standing)| standing).max(owed.paid.deleted);
                if newest < Some(stamp) {
                    owed.deleted = Some((seq, stamp));
                }
            }
            Effect::Append(_) | Effect::Clear(_) => {}
        }
    }

    fn key_mut(&mut self, key: &Key) -> &mut OwedKey {
        self.keys.entry(key.clone()).or_default()
    }

    /// Forgets a debt that was paid, and what is older by what it did.
    pub(super) fn pay(&mut self, seq: u64) {
        let Some(Header { stamp, effect, .. }) = self.debts.get(&seq).cloned() else { return };
        match &effect {
            Effect::Put(key, _) => {
                self.clears.overtake(key.as_str(), stamp);
                self.keys.get_mut(key).into_iter().for_each(|owed| owed.was_written(stamp));
            }
            Effect::Append(key) => {
                self.clears.overtake(key.as_str(), stamp);
                self.keys
                    .get_mut(key)
                    .into_iter()
                    .for_each(|owed| owed.paid.appended = owed.paid.appended.max(Some(stamp)));
            }
            Effect::Delete(key) => self.keys.get_mut(key).into_iter().for_each(|owed| owed.was_deleted(stamp)),
            Effect::Clear(prefix) => {
                let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
                let covered = self.keys.range_mut::<str, _>(from).take_while(|(key, _)| prefix.matches(key));
                covered.for_each(|(_, owed)| owed.was_deleted(stamp));
            }
        }
        self.remove(seq);
    }

    /// Forgets debts that will not be paid. Readers are told of what they hid. It looks at all debts, once.
    pub(super) fn give_up(&mut self, seqs: &[u64]) {
        let given_up: Vec<Header> = seqs.iter().filter_map(|seq| self.remove(*seq)).collect();
        let mut keys: HashSet<&Key> = given_up.iter().filter_map(|debt| debt.effect.key()).collect();
        keys.retain(|key| self.keys.contains_key(*key));
        let is_told = |debt: &&Header| {
            debt.effect.key().is_some_and(|key| keys.contains(key)) && !self.hidden.contains(&debt.seq)
        };
        let others: Vec<Header> = self.debts.values().filter(is_told).cloned().collect();
        others.into_iter().for_each(|Header { seq, stamp, effect, .. }| self.show(seq, stamp, &effect));
    }

    fn remove(&mut self, seq: u64) -> Option<Header> {
        if self.parked.contains(&seq) {
            // What waited behind it goes on.
            self.unpark(seq);
        }
        let debt = self.debts.remove(&seq)?;
        self.due.remove(&seq);
        self.hidden.remove(&seq);
        self.replaced.remove(&seq);
        match &debt.effect {
            Effect::Clear(_) => self.clears.remove(seq),
            Effect::Put(key, _) | Effect::Delete(key) | Effect::Append(key) => {
                if let Some(owed) = self.keys.get_mut(key) {
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
        self.forget_newer(&debt.effect);
        Some(debt)
    }

    /// Which of the debts that were put aside, or are to be now, something newer replaces that was paid, or is paid now. Items that
    /// wait behind such a one are among them: a clear leaves nothing at the primary that would stop them.
    pub(super) fn replaced(&self, paid: &[u64], aside: impl Iterator<Item = u64>) -> Vec<Replaced> {
        let aside: BTreeSet<u64> = aside.chain(self.parked.iter().copied()).collect();
        if aside.is_empty() {
            return Vec::new();
        }
        let paid = PaidNow::of(paid.iter().filter_map(|seq| self.debts.get(seq)));
        let debts = aside.iter().filter(|seq| !self.replaced.contains(seq)).filter_map(|seq| self.debts.get(seq));
        let mut replaced = BTreeMap::new();
        for Header { seq, stamp, effect, .. } in debts {
            let owed = effect.key().and_then(|key| self.keys.get(key));
            let before = owed.map(|owed| owed.paid).unwrap_or_default();
            let Some(by) = paid.since(effect, before).filter(|by| stamp < by) else { continue };
            replaced.insert(*seq, Replaced { seq: *seq, stamp: *stamp, by });
            if let (Some(owed), Some(_)) = (owed, effect.list()) {
                let behind = owed.appends.range(seq..).filter(|(_, stamp)| **stamp < by);
                replaced.extend(behind.map(|(seq, stamp)| (*seq, Replaced { seq: *seq, stamp: *stamp, by })));
            }
        }
        replaced.into_values().collect()
    }

    /// Whether a debt is an item of a list.
    pub(super) fn is_item(&self, seq: u64) -> bool {
        self.debts.get(&seq).is_some_and(|debt| debt.effect.list().is_some())
    }

    /// Hides a debt that was put aside, because something newer stands that was written without knowing of it.
    pub(super) fn hide_replaced(&mut self, seq: u64) {
        let Some(debt) = self.debts.get(&seq) else { return };
        self.hidden.insert(seq);
        self.replaced.insert(seq);
        if let Some(owed) = debt.effect.key().and_then(|key| self.keys.get_mut(key)) {
            owed.value.take_if(|(newest, ..)| *newest == seq);
            owed.deleted.take_if(|(newest, _)| *newest == seq);
        }
    }

    /// Whether the journal says that a debt which was put aside was replaced since.
    pub(super) fn is_replaced(&self, seq: u64) -> bool {
        self.replaced.contains(&seq)
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
        let of_key = self.keys.get(key).and_then(|owed| owed.parked.first().copied());
        let clears = self.clears.covering(key.as_str()).flatten().map(|clear| clear.seq);
        of_key.or_else(|| clears.filter(|seq| self.parked.contains(seq)).min())
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
            let clear = self.clears.contains(*seq);
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

    /// Notes that readers are shown what stands at the primary under this stamp: of what is owed to the value and older, they are not
    /// told again, also where the primary goes away. Says whether there was room to note it, as for a key with debts of its own there
    /// always is; a clear may cover any number.
    pub(super) fn note_newer(&mut self, key: &Key, stamp: Stamp) -> bool {
        let is_covered = !self.keys.contains_key(key);
        if is_covered && !self.clears.cover(key.as_str()) {
            return true;
        }
        if is_covered && self.newer.len() >= MOST_NEWER && !self.newer.contains_key(key) {
            return false;
        }
        let newest = self.newer.entry(key.clone()).or_insert(stamp);
        *newest = stamp.max(*newest);
        true
    }

    /// Forgets what readers were shown: another database is the known one, or an older state of it.
    pub(super) fn forget_all_newer(&mut self) {
        self.newer.clear();
    }

    /// Forgets what readers were shown of keys that are owed nothing any more.
    fn forget_newer(&mut self, paid: &Effect) {
        if self.newer.is_empty() {
            return;
        }
        match paid.key() {
            Some(key) if self.owes(key) => {}
            Some(key) => _ = self.newer.remove(key),
            None => {
                let mut newer = std::mem::take(&mut self.newer);
                newer.retain(|key, _| self.owes(key));
                self.newer = newer;
            }
        }
    }

    /// Whether anything is owed to a key.
    pub(super) fn owes(&self, key: &Key) -> bool {
        self.keys.contains_key(key) || self.clears.cover(key.as_str())
    }

    /// Whether anything is owed to a key with a prefix.
    pub(super) fn owes_under(&self, prefix: &KeyPrefix) -> bool {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        self.keys.range::<str, _>(from).next().is_some_and(|(key, _)| prefix.matches(key)) || self.clears.touch(prefix)
    }

    /// What readers are told of a key's value, if it is owed.
    pub(super) fn value(&self, key: &Key) -> Option<OwedValue> {
        let owed = self.keys.get(key);
        let written = owed.and_then(|owed| owed.value).map(|(seq, stamp, value)| match value {
            OwedValue::Deleted { .. } if self.parked.contains(&seq) => (stamp, OwedValue::Unsettled),
            value => (stamp, value),
        });
        let cleared = self.cleared(key).map(|(stamp, is_settled)| {
            (stamp, if is_settled { OwedValue::Deleted { stamp } } else { OwedValue::Unsettled })
        });
        let known = owed.and_then(|owed| owed.paid.value).max(self.newer.get(key).copied());
        let newest = written.into_iter().chain(cleared).max_by_key(|(stamp, _)| *stamp);
        newest.filter(|(stamp, _)| known < Some(*stamp)).map(|(_, value)| value)
    }

    /// What readers are told of a key's list, if it is owed something.
    pub(super) fn list(&self, key: &Key) -> Option<OwedList> {
        let owed = self.keys.get(key);
        let paid = owed.map(|owed| owed.paid).unwrap_or_default();
        let deleted = owed.and_then(|owed| owed.deleted).map(|(seq, stamp)| (stamp, !self.parked.contains(&seq)));
        let newest = deleted.max(self.cleared(key)).filter(|(stamp, _)| paid.deleted < Some(*stamp));
        let alive = |(seq, stamp): (&u64, &Stamp)| {
            newest.is_none_or(|(deleted, _)| deleted < *stamp) && !self.hidden.contains(seq)
        };
        // The last ones are the likeliest.
        if owed.is_some_and(|owed| owed.appends.iter().rev().any(alive)) {
            return Some(OwedList::Appended);
        }
        let (stamp, is_settled) = newest?;
        Some(if is_settled && paid.appended < Some(stamp) { OwedList::Deleted { stamp } } else { OwedList::Unsettled })
    }

    /// The stamp of the newest clear that covers a key, of those that readers are told of, and whether all under its prefix is known
    /// by it.
    fn cleared(&self, key: &Key) -> Option<(Stamp, bool)> {
        let is_told = |clear: &OwedClear| !self.hidden.contains(&clear.seq);
        let newest = self.clears.covering(key.as_str()).filter_map(|mut clears| clears.find(is_told));
        newest.map(|clear| (clear.stamp, !clear.overtaken && !self.parked.contains(&clear.seq))).max()
    }
}

impl OwedKey {
    /// The first item that was put aside: later ones wait behind it.
    fn stopped_at(&self) -> Option<u64> {
        self.parked.iter().copied().find(|seq| self.appends.contains_key(seq))
    }

    /// The newest by stamp counts, whatever the order of the journal.
    fn write(&mut self, seq: u64, stamp: Stamp, value: OwedValue) {
        let newest = self.value.map(|(_, standing, _)| standing).max(self.paid.value);
        if newest < Some(stamp) {
            self.value = Some((seq, stamp, value));
        }
    }

    /// A value with this stamp was paid: readers are told of newer ones only.
    fn was_written(&mut self, stamp: Stamp) {
        self.paid.note_value(stamp);
        self.value.take_if(|(_, standing, _)| *standing <= stamp);
    }

    /// A delete with this stamp was paid, of this key or of a prefix of it.
    fn was_deleted(&mut self, stamp: Stamp) {
        self.was_written(stamp);
        self.paid.note_delete(stamp);
        self.deleted.take_if(|(_, standing)| *standing <= stamp);
    }
}

#[cfg(test)]
mod tests;

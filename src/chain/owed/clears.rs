//! [`Clears`]: the clears that are owed, by what they cover.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::key::KeyPrefix;
use crate::stamp::Stamp;

/// The clears among the debts. What covers a key is found by the beginnings of the key, however many prefixes were cleared.
#[derive(Debug, Default)]
pub(super) struct Clears {
    clears: BTreeMap<u64, Clear>,
    /// Those of each prefix, the newest last.
    by_prefix: BTreeMap<String, BTreeSet<(Stamp, u64)>>,
    /// How many prefixes there are of each length, in bytes.
    lengths: BTreeMap<usize, usize>,
}

#[derive(Debug)]
struct Clear {
    prefix: KeyPrefix,
    stamp: Stamp,
    /// Something newer under the prefix was paid before it.
    overtaken: bool,
}

/// One clear, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwedClear {
    pub(super) seq: u64,
    pub(super) stamp: Stamp,
    pub(super) overtaken: bool,
}

impl Clears {
    pub(super) fn insert(&mut self, seq: u64, prefix: KeyPrefix, stamp: Stamp) {
        let text = prefix.as_str();
        if !self.by_prefix.contains_key(text) {
            *self.lengths.entry(text.len()).or_default() += 1;
        }
        self.by_prefix.entry(text.to_owned()).or_default().insert((stamp, seq));
        self.clears.insert(seq, Clear { prefix, stamp, overtaken: false });
    }

    pub(super) fn remove(&mut self, seq: u64) {
        let Some(Clear { prefix, stamp, .. }) = self.clears.remove(&seq) else { return };
        let text = prefix.as_str();
        let Some(of_prefix) = self.by_prefix.get_mut(text) else { return };
        of_prefix.remove(&(stamp, seq));
        if !of_prefix.is_empty() {
            return;
        }
        self.by_prefix.remove(text);
        if let Some(count) = self.lengths.get_mut(&text.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&text.len());
            }
        }
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.clears.contains_key(&seq)
    }

    /// Whether any covers a key, or the whole of a prefix.
    pub(super) fn cover(&self, text: &str) -> bool {
        self.prefixes_of(text).next().is_some()
    }

    /// Whether any covers something under a prefix.
    pub(super) fn touch(&self, prefix: &KeyPrefix) -> bool {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let below = self.by_prefix.range::<str, _>(from).next();
        below.is_some_and(|(text, _)| text.starts_with(prefix.as_str())) || self.cover(prefix.as_str())
    }

    /// Those that cover a key: for each prefix, the newest first.
    pub(super) fn covering(&self, key: &str) -> impl Iterator<Item = impl Iterator<Item = OwedClear>> {
        self.prefixes_of(key).map(|of_prefix| of_prefix.iter().rev().filter_map(|(_, seq)| self.get(*seq)))
    }

    /// Notes that something with this stamp was paid before those that cover its key and are older.
    pub(super) fn overtake(&mut self, key: &str, stamp: Stamp) {
        let older = |of_prefix: &BTreeSet<(Stamp, u64)>| -> Vec<u64> {
            of_prefix.range(..(stamp, 0)).map(|(_, seq)| *seq).collect()
        };
        let older: Vec<u64> = self.prefixes_of(key).flat_map(older).collect();
        for seq in older {
            if let Some(clear) = self.clears.get_mut(&seq) {
                clear.overtaken = true;
            }
        }
    }

    fn get(&self, seq: u64) -> Option<OwedClear> {
        self.clears.get(&seq).map(|Clear { stamp, overtaken, .. }| OwedClear {
            seq,
            stamp: *stamp,
            overtaken: *overtaken,
        })
    }

    /// The clears of each prefix that a text begins with.
    fn prefixes_of(&self, text: &str) -> impl Iterator<Item = &BTreeSet<(Stamp, u64)>> {
        let beginnings = self.lengths.range(..=text.len()).filter_map(move |(length, _)| text.get(..*length));
        beginnings.filter_map(|beginning| self.by_prefix.get(beginning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u8) -> Stamp {
        Stamp::from_bytes([number; 16])
    }

    fn prefix(text: &str) -> KeyPrefix {
        KeyPrefix::parse(text).unwrap()
    }

    fn seqs(clears: &Clears, key: &str) -> Vec<u64> {
        clears.covering(key).flatten().map(|clear| clear.seq).collect()
    }

    #[test]
    fn what_covers_a_key_is_found_by_its_beginnings() {
        let mut clears = Clears::default();
        for (seq, text) in [(1, "a:"), (2, ""), (3, "a:b"), (4, "b"), (5, "a:"), (6, "ä")] {
            clears.insert(seq, prefix(text), stamp(u8::try_from(seq).unwrap()));
        }
        assert_eq!(seqs(&clears, "a:bc"), [2, 5, 1, 3]);
        assert_eq!(seqs(&clears, "ä1"), [2, 6]);
        assert_eq!(seqs(&clears, "z"), [2]);
        clears.remove(2);
        assert!(!clears.cover("z") && clears.cover("a:c") && !clears.contains(2));
        assert!(clears.touch(&prefix("a")) && clears.touch(&prefix("a:bcd")) && !clears.touch(&prefix("c")));
        for seq in [1, 3, 4, 5, 6] {
            clears.remove(seq);
        }
        assert!(clears.by_prefix.is_empty() && clears.lengths.is_empty() && !clears.touch(&prefix("")));
    }

    #[test]
    fn what_is_older_is_overtaken() {
        let mut clears = Clears::default();
        clears.insert(1, prefix("a"), stamp(1));
        clears.insert(2, prefix("a"), stamp(3));
        clears.overtake("ab", stamp(2));
        clears.overtake("b", stamp(9));
        let overtaken: Vec<bool> = clears.covering("a").flatten().map(|clear| clear.overtaken).collect();
        assert_eq!(overtaken, [false, true]);
    }
}

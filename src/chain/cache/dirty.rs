//! The [`Dirty`] keys: those under which the primary may hold something older than what was acknowledged here.

use std::collections::BTreeSet;

use crate::chain::in_flight::overlap;
use crate::key::{Key, KeyPrefix};

/// The most keys, the most bytes of them, and the most prefixes that are told apart. Beyond them everything is dirty.
const MOST_KEYS: usize = 100_000;
const MOST_BYTES: usize = 16 << 20;
const MOST_PREFIXES: usize = 64;

/// What must be deleted at the primary before it is read there again.
///
/// The memory that stands in never holds a key that is not dirty. So what it holds is forgotten with the last dirty key.
#[derive(Debug)]
pub(super) struct Dirty {
    keys: BTreeSet<Key>,
    bytes: usize,
    prefixes: Vec<DirtyPrefix>,
    everything: Everything,
    /// The last key that was handed out: those that cannot be deleted must not keep the others from it.
    last: Option<Key>,
    /// A prefix could not be cleared just now: keys have their turn before the next one.
    keys_first: bool,
    most_keys: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct DirtyPrefix {
    prefix: KeyPrefix,
    /// While it is being cleared, a clear of the same prefix is another one.
    being_cleared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Everything {
    Clean,
    Dirty,
    /// It is being cleared: what becomes dirty from now on is noted apart, because it may come too late for that.
    BeingCleared,
}

/// What is to be done at the primary next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Debt {
    /// To delete these keys.
    Keys(Vec<Key>),
    /// To clear this prefix.
    Prefix(KeyPrefix),
    /// To clear everything that the chain can write to.
    Everything,
}

impl Default for Dirty {
    fn default() -> Self {
        Self::bounded(MOST_KEYS, MOST_BYTES)
    }
}

impl Dirty {
    const fn bounded(most_keys: usize, most_bytes: usize) -> Self {
        Self {
            keys: BTreeSet::new(),
            bytes: 0,
            prefixes: Vec::new(),
            everything: Everything::Clean,
            last: None,
            keys_first: false,
            most_keys,
            most_bytes,
        }
    }

    pub(super) fn add_key(&mut self, key: &Key) {
        if self.everything == Everything::Dirty || self.keys.contains(key) {
            return;
        }
        self.bytes += key.as_bytes().len();
        self.keys.insert(key.clone());
        if self.keys.len() > self.most_keys || self.bytes > self.most_bytes {
            self.add_everything();
        }
    }

    pub(super) fn add_prefix(&mut self, prefix: &KeyPrefix) {
        let covers = |known: &DirtyPrefix| !known.being_cleared && prefix.as_str().starts_with(known.prefix.as_str());
        if self.everything == Everything::Dirty || self.prefixes.iter().any(covers) {
            return;
        }
        self.prefixes.push(DirtyPrefix { prefix: prefix.clone(), being_cleared: false });
        if self.prefixes.len() > MOST_PREFIXES {
            self.add_everything();
        }
    }

    pub(super) fn add_everything(&mut self) {
        self.everything = Everything::Dirty;
        self.keys = BTreeSet::new();
        self.bytes = 0;
        self.prefixes = Vec::new();
    }

    /// Whether the primary must not be asked for a key.
    pub(super) fn covers(&self, key: &Key) -> bool {
        self.everything != Everything::Clean
            || self.keys.contains(key)
            || self.prefixes.iter().any(|dirty| dirty.prefix.matches(key))
    }

    /// Whether a key with this prefix may be dirty.
    pub(super) fn touches(&self, prefix: &KeyPrefix) -> bool {
        let overlaps = |dirty: &DirtyPrefix| overlap(&dirty.prefix, prefix);
        self.everything != Everything::Clean || self.prefixes.iter().any(overlaps) || self.has_key_with(prefix)
    }

    fn has_key_with(&self, prefix: &KeyPrefix) -> bool {
        match Key::parse(prefix.as_str()) {
            Ok(first) => self.keys.range(first..).next().is_some_and(|key| prefix.matches(key)),
            // The empty prefix.
            Err(_) => !self.keys.is_empty(),
        }
    }

    /// How many things are to be done.
    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.prefixes.len() + usize::from(self.everything != Everything::Clean)
    }

    /// What is to be done next: what covers most comes first, but a prefix that is not due, or could just not be cleared, keeps no key
    /// waiting, nor another prefix. Keys come in turn, at most so many of them.
    pub(super) fn next(&mut self, most: usize, is_due: impl Fn(&KeyPrefix) -> bool) -> Option<Debt> {
        if self.everything != Everything::Clean {
            return Some(Debt::Everything);
        }
        let keys_first = std::mem::take(&mut self.keys_first) && !self.keys.is_empty();
        let due = self.prefixes.iter().find(|dirty| is_due(&dirty.prefix) && !keys_first);
        if let Some(dirty) = due.or_else(|| self.prefixes.first().filter(|_| self.keys.is_empty())) {
            return Some(Debt::Prefix(dirty.prefix.clone()));
        }
        let after = |key: &&Key| self.last.as_ref().is_none_or(|last| *key > last);
        let from = self.keys.iter().filter(after).take(most).cloned().collect::<Vec<_>>();
        let keys = if from.is_empty() { self.keys.iter().take(most).cloned().collect() } else { from };
        self.last = keys.last().cloned();
        (!keys.is_empty()).then_some(Debt::Keys(keys))
    }

    /// Something is about to be cleared: what becomes dirty from now on stays so.
    pub(super) fn begin(&mut self, debt: &Debt) {
        match debt {
            Debt::Keys(_) => {}
            Debt::Prefix(prefix) => {
                let first = self.prefixes.iter_mut().find(|dirty| dirty.prefix == *prefix);
                first.into_iter().for_each(|dirty| dirty.being_cleared = true);
            }
            Debt::Everything => self.everything = Everything::BeingCleared,
        }
    }

    /// Something was done at the primary; `false` if it became dirty again meanwhile.
    pub(super) fn settle(&mut self, debt: &Debt) -> bool {
        match debt {
            Debt::Keys(keys) => {
                for key in keys {
                    if self.keys.remove(key) {
                        self.bytes -= key.as_bytes().len();
                    }
                }
                true
            }
            Debt::Prefix(prefix) => {
                let cleared = |dirty: &DirtyPrefix| dirty.being_cleared && dirty.prefix == *prefix;
                let at = self.prefixes.iter().position(cleared);
                at.map(|at| self.prefixes.remove(at)).is_some()
            }
            Debt::Everything => {
                let settled = self.everything == Everything::BeingCleared;
                if settled {
                    self.everything = Everything::Clean;
                }
                settled
            }
        }
    }

    /// Something could not be cleared.
    pub(super) fn fail(&mut self, debt: &Debt) {
        match debt {
            Debt::Keys(_) => {}
            Debt::Prefix(prefix) => {
                self.prefixes.iter_mut().filter(|dirty| dirty.prefix == *prefix).for_each(|dirty| {
                    dirty.being_cleared = false;
                });
                // Whatever else there is has its turn first.
                self.prefixes.sort_by_key(|dirty| dirty.prefix == *prefix);
                self.keys_first = true;
            }
            Debt::Everything => {
                if self.everything == Everything::BeingCleared {
                    self.add_everything();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::parse(name).unwrap()
    }

    fn prefix(text: &str) -> KeyPrefix {
        KeyPrefix::parse(text).unwrap()
    }

    fn keys(names: &[&str]) -> Debt {
        Debt::Keys(names.iter().map(|name| key(name)).collect())
    }

    fn next(dirty: &mut Dirty, most: usize) -> Option<Debt> {
        dirty.next(most, |_| true)
    }

    #[test]
    fn a_prefix_that_is_not_due_keeps_no_key_waiting() {
        let mut dirty = Dirty::default();
        ["a:", "b:"].iter().for_each(|text| dirty.add_prefix(&prefix(text)));
        dirty.add_key(&key("c"));
        assert_eq!(dirty.next(10, |prefix| prefix.as_str() == "b:"), Some(Debt::Prefix(prefix("b:"))));
        assert_eq!(dirty.next(10, |_| false), Some(keys(&["c"])));
        dirty.settle(&keys(&["c"]));
        assert_eq!(dirty.next(10, |_| false), Some(Debt::Prefix(prefix("a:"))));
    }

    #[test]
    fn a_prefix_that_cannot_be_cleared_keeps_nothing_else_waiting() {
        let mut dirty = Dirty::default();
        ["a:", "b:"].iter().for_each(|text| dirty.add_prefix(&prefix(text)));
        dirty.add_key(&key("c"));
        let mut turns = Vec::new();
        for _ in 0..5 {
            let debt = next(&mut dirty, 10).unwrap();
            dirty.begin(&debt);
            dirty.fail(&debt);
            turns.push(debt);
        }
        let [a, b, c] = [Debt::Prefix(prefix("a:")), Debt::Prefix(prefix("b:")), keys(&["c"])];
        assert_eq!(turns, [a.clone(), c.clone(), b, c, a]);
        assert!(dirty.covers(&key("a:1")) && dirty.covers(&key("b:1")) && dirty.covers(&key("c")));
    }

    #[test]
    fn a_dirty_key_is_dirty_until_it_is_settled() {
        let mut dirty = Dirty::default();
        dirty.add_key(&key("a"));
        dirty.add_key(&key("a"));
        assert!(dirty.covers(&key("a")) && !dirty.covers(&key("b")));
        assert!(dirty.touches(&prefix("")) && dirty.touches(&prefix("a")) && !dirty.touches(&prefix("b")));
        assert_eq!((dirty.len(), next(&mut dirty, 10)), (1, Some(keys(&["a"]))));
        assert!(dirty.settle(&keys(&["a"])));
        assert_eq!((dirty.len(), dirty.bytes, next(&mut dirty, 10)), (0, 0, None));
    }

    #[test]
    fn keys_that_stay_do_not_keep_others_from_their_turn() {
        let mut dirty = Dirty::default();
        ["a", "b", "c"].iter().for_each(|name| dirty.add_key(&key(name)));
        let mut next = || next(&mut dirty, 2);
        assert_eq!([next(), next(), next()], [keys(&["a", "b"]), keys(&["c"]), keys(&["a", "b"])].map(Some));
    }

    #[test]
    fn too_many_keys_or_bytes_or_prefixes_make_everything_dirty() {
        let mut many = Dirty::bounded(2, 100);
        ["a", "b", "c"].iter().for_each(|name| many.add_key(&key(name)));
        let mut long = Dirty::bounded(2, 3);
        long.add_key(&key("long"));
        let mut prefixes = Dirty::default();
        (0..=MOST_PREFIXES).for_each(|number| prefixes.add_prefix(&prefix(&format!("{number}:"))));
        for mut dirty in [many, long, prefixes] {
            assert!(dirty.covers(&key("any")) && dirty.touches(&prefix("any")));
            assert_eq!((dirty.len(), next(&mut dirty, 10)), (1, Some(Debt::Everything)));
            dirty.add_key(&key("more"));
            dirty.add_prefix(&prefix("more"));
            assert_eq!(dirty.len(), 1);
            dirty.begin(&Debt::Everything);
            assert!(dirty.settle(&Debt::Everything) && dirty.len() == 0);
        }
    }

    #[test]
    fn what_becomes_dirty_while_everything_is_cleared_stays_dirty() {
        let mut dirty = Dirty::bounded(2, 100);
        dirty.add_everything();
        dirty.begin(&Debt::Everything);
        dirty.add_key(&key("late"));
        assert!(dirty.covers(&key("any")), "until it is cleared");
        assert!(dirty.settle(&Debt::Everything));
        assert!(dirty.covers(&key("late")) && !dirty.covers(&key("any")));
        dirty.begin(&Debt::Everything);
        ["a", "b", "c"].iter().for_each(|name| dirty.add_key(&key(name)));
        assert!(!dirty.settle(&Debt::Everything), "too many meanwhile");
        assert!(dirty.covers(&key("any")));
        dirty.begin(&Debt::Everything);
        dirty.fail(&Debt::Everything);
        dirty.add_key(&key("no use to note it"));
        assert_eq!(dirty.len(), 1);
    }

    #[test]
    fn a_prefix_that_is_cleared_again_meanwhile_stays_dirty() {
        let mut dirty = Dirty::default();
        dirty.add_prefix(&prefix("a:"));
        dirty.add_prefix(&prefix("a:b:"));
        assert!(dirty.covers(&key("a:1")) && dirty.touches(&prefix("a")) && dirty.touches(&prefix("a:b:c")));
        let debt = next(&mut dirty, 10).unwrap();
        assert_eq!((&debt, dirty.len()), (&Debt::Prefix(prefix("a:")), 1));
        dirty.begin(&debt);
        dirty.add_prefix(&prefix("a:"));
        assert!(dirty.settle(&debt) && dirty.covers(&key("a:1")));
        dirty.begin(&debt);
        dirty.fail(&debt);
        assert!(!dirty.settle(&debt));
        dirty.begin(&debt);
        assert!(dirty.settle(&debt) && dirty.len() == 0);
    }
}

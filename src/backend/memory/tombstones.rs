//! The stamps of what was deleted lately.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::key::Key;
use crate::stamp::Stamp;
use crate::time::Timestamp;

/// How long what is gone is remembered, a deleted key's stamp as a trimmed item's id: long after callers have given up repeating.
pub(super) const RETENTION: Duration = Duration::from_secs(600);

/// A delete: its stamp, and when it came.
pub(super) type Tombstone = (Stamp, Timestamp);

/// Deletes by key, so that a repeat of an older write does not bring back what was deleted.
///
/// They stand apart from the records, where nothing that lists, counts or evicts meets them. At most `capacity` are kept; the
/// oldest go first.
#[derive(Debug)]
pub(super) struct Tombstones {
    by_key: HashMap<Key, Tombstone>,
    /// In the order they came. One that a later delete of the key replaced stays behind for a while.
    queue: VecDeque<(Key, Tombstone)>,
    capacity: usize,
    /// The newest stamp of what was forgotten.
    forgotten: Stamp,
}

impl Tombstones {
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_key: HashMap::new(), queue: VecDeque::new(), capacity, forgotten: Stamp::MIN }
    }

    /// The stamp of the last delete of a key.
    pub(super) fn stamp(&self, key: &Key) -> Option<Stamp> {
        self.by_key.get(key).map(|(stamp, _)| *stamp)
    }

    /// The newest stamp of what was forgotten: whether an older write was beaten is not known any more.
    pub(super) const fn forgotten(&self) -> Stamp {
        self.forgotten
    }

    /// Notes that a stamp is forgotten.
    pub(super) fn forget(&mut self, stamp: Stamp) {
        self.forgotten = self.forgotten.max(stamp);
    }

    /// Remembers a delete, and hands out the one it replaces.
    pub(super) fn bury(&mut self, key: &Key, stamp: Stamp, now: Timestamp) -> Option<Tombstone> {
        let old = self.by_key.insert(key.clone(), (stamp, now));
        self.queue.push_back((key.clone(), (stamp, now)));
        self.compact();
        while self.by_key.len() > self.capacity {
            self.forget_oldest();
        }
        old
    }

    /// Takes the last delete of a key back, to the one before.
    pub(super) fn take_back(&mut self, key: &Key, old: Option<Tombstone>) {
        match old {
            Some(old) => {
                self.by_key.insert(key.clone(), old);
                self.queue.push_front((key.clone(), old));
            }
            None => drop(self.by_key.remove(key)),
        }
    }

    /// Forgets what is older than the retention.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        while self.queue.front().is_some_and(|(_, (_, at))| now.since(*at) > RETENTION) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, tombstone)) = self.queue.pop_front()
            && self.by_key.get(&key) == Some(&tombstone)
        {
            self.by_key.remove(&key);
            self.forget(tombstone.0);
        }
    }

    /// Drops from the queue what was replaced once that is the most, so that one key deleted again and again takes no more room.
    fn compact(&mut self) {
        if self.queue.len() > self.by_key.len().saturating_mul(2).saturating_add(16) {
            let by_key = &self.by_key;
            self.queue.retain(|(key, tombstone)| by_key.get(key) == Some(tombstone));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::HybridClock;
    use crate::time::Clock;

    struct Fixture {
        tombstones: Tombstones,
        wall: Clock,
        stamps: HybridClock,
    }

    impl Fixture {
        fn new(capacity: usize) -> Self {
            let wall = Clock::manual();
            Self { tombstones: Tombstones::new(capacity), stamps: HybridClock::new(wall.clone()), wall }
        }

        fn bury(&mut self, name: &str) -> Option<Tombstone> {
            self.tombstones.bury(&key(name), self.stamps.issue(), self.wall.now())
        }

        fn has(&self, name: &str) -> bool {
            self.tombstones.stamp(&key(name)).is_some()
        }
    }

    fn key(name: &str) -> Key {
        Key::parse(name).unwrap()
    }

    #[test]
    fn a_delete_is_forgotten_after_the_retention_of_the_last() {
        let mut fixture = Fixture::new(10);
        for name in ["a", "b"] {
            fixture.bury(name);
        }
        fixture.wall.advance(RETENTION);
        fixture.bury("b");
        fixture.wall.advance(Duration::from_secs(1));
        fixture.tombstones.sweep(fixture.wall.now());
        assert!(!fixture.has("a") && fixture.has("b"));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut fixture = Fixture::new(2);
        for name in ["a", "b", "a", "c"] {
            fixture.bury(name);
        }
        assert!(fixture.has("a") && fixture.has("c") && !fixture.has("b"));
    }

    #[test]
    fn one_key_deleted_again_and_again_takes_no_more_room() {
        let mut fixture = Fixture::new(usize::MAX);
        for _ in 0..1000 {
            fixture.bury("a");
        }
        assert!(fixture.tombstones.queue.len() < 20);
        assert!(fixture.has("a"));
    }

    #[test]
    fn a_delete_taken_back_leaves_the_one_before() {
        let mut fixture = Fixture::new(10);
        fixture.bury("a");
        let first = fixture.tombstones.stamp(&key("a"));
        for (name, stamp) in [("a", first), ("b", None)] {
            let old = fixture.bury(name);
            fixture.tombstones.take_back(&key(name), old);
            assert_eq!(fixture.tombstones.stamp(&key(name)), stamp);
        }
        fixture.wall.advance(RETENTION + Duration::from_secs(1));
        fixture.tombstones.sweep(fixture.wall.now());
        assert!(!fixture.has("a"));
    }
}

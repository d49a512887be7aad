//! The records of a shard, found by hash and listed in order.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::Bound;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::key::{Key, KeyPrefix};

use super::record::Record;

/// The capacity up to which a hash table is left as it is.
const ROOMY: usize = 64;

/// Records by key. A read or an overwrite costs one look into a hash table; only a key that comes or goes changes the order.
#[derive(Debug)]
pub(super) struct Records {
    slots: HashTable<Slot>,
    order: BTreeSet<Key>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    record: Record,
}

impl Records {
    /// Makes an empty map. Its hashes are those of the hasher, so that whoever has the hash of a key can pass it on.
    pub(super) const fn new(hasher: RandomState) -> Self {
        Self { slots: HashTable::new(), order: BTreeSet::new(), hasher }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.get_hashed(self.hasher.hash_one(key), key)
    }

    pub(super) fn get_hashed(&self, hash: u64, key: &Key) -> Option<&Record> {
        self.slots.find(hash, |slot| slot.key == *key).map(|slot| &slot.record)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Record> {
        self.get_mut_hashed(self.hasher.hash_one(key), key)
    }

    pub(super) fn get_mut_hashed(&mut self, hash: u64, key: &Key) -> Option<&mut Record> {
        self.slots.find_mut(hash, |slot| slot.key == *key).map(|slot| &mut slot.record)
    }

    /// The record under a key, an empty one if there was none.
    pub(super) fn get_or_insert(&mut self, key: &Key) -> &mut Record {
        let Self { slots, order, hasher } = self;
        let same = |slot: &Slot| slot.key == *key;
        match slots.entry(hasher.hash_one(key), same, |slot| hasher.hash_one(&slot.key)) {
            Entry::Occupied(entry) => &mut entry.into_mut().record,
            Entry::Vacant(entry) => {
                order.insert(key.clone());
                let slot = Slot { key: key.clone(), record: Record::default() };
                &mut entry.insert(slot).into_mut().record
            }
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Ok(entry) = self.slots.find_entry(self.hasher.hash_one(key), |slot| slot.key == *key) {
            entry.remove();
            self.order.remove(key);
            self.give_room_back();
        }
    }

    /// Shrinks a hash table that is mostly empty, to twice what is in it: for its room, and so that a walk over its places is short.
    fn give_room_back(&mut self) {
        let Self { slots, hasher, .. } = self;
        if slots.capacity() > ROOMY && slots.len() < slots.capacity() / 8 {
            slots.shrink_to(slots.len() * 2, |slot| hasher.hash_one(&slot.key));
        }
    }

    /// The records with a prefix in order, from the first key after `after`.
    pub(super) fn after<'a>(
        &'a self,
        prefix: &'a KeyPrefix,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Record)> {
        let start = match after {
            Some(after) if after >= prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(prefix.as_str()),
        };
        let keys = self.order.range::<str, _>((start, Bound::Unbounded)).take_while(|key| prefix.matches(key));
        keys.filter_map(|key| Some((key, self.get(key)?)))
    }

    /// The key at a place of the hash table, if there is one. Places change when the table grows.
    pub(super) fn key_at(&self, place: usize) -> Option<&Key> {
        self.slots.get_bucket(place).map(|slot| &slot.key)
    }

    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        self.slots.num_buckets()
    }
}

//! The list under a key.

use std::collections::{HashMap, VecDeque};

use crate::contract::{Append, AppendAck, Item, ItemId, ListRange};
use crate::error::Result;
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::Value;

use super::tombstones::RETENTION;
use super::write::Moment;

/// An item, and the stamp of its append.
#[derive(Clone, Debug)]
pub(super) struct Stamped {
    pub(super) item: Item,
    pub(super) stamp: Stamp,
}

/// What is kept of an item that was trimmed, and when it was.
#[derive(Debug)]
struct Trimmed {
    at: Timestamp,
    id: ItemId,
    stamp: Stamp,
}

/// Items in order, and the ids that make an append repeatable.
///
/// An empty one is kept for ever once it had an item, so that no position is used again.
#[derive(Debug)]
pub(super) struct List {
    items: VecDeque<Stamped>,
    next_position: u64,
    positions: HashMap<ItemId, u64>,
    trimmed: VecDeque<Trimmed>,
    /// The stamp of the last delete; the oldest of all if there was none.
    floor: Stamp,
    /// The newest stamp of an item that is there or was.
    newest: Stamp,
    /// The newest stamp of an item whose id was forgotten.
    forgotten: Stamp,
}

impl Default for List {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            next_position: 0,
            positions: HashMap::new(),
            trimmed: VecDeque::new(),
            floor: Stamp::MIN,
            newest: Stamp::MIN,
            forgotten: Stamp::MIN,
        }
    }
}

impl List {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn length(&self) -> u64 {
        self.items.len() as u64
    }

    /// Whether it never had an item, and nothing needs to be remembered of it.
    pub(super) const fn is_unused(&self) -> bool {
        self.next_position == 0
    }

    /// The stamp of the last delete.
    pub(super) const fn floor(&self) -> Stamp {
        self.floor
    }

    /// The newest stamp of an item that is there or was.
    pub(super) const fn newest(&self) -> Stamp {
        self.newest
    }

    /// The newest stamp of an item whose id was forgotten.
    pub(super) const fn forgotten(&self) -> Stamp {
        self.forgotten
    }

    /// The items with their stamps, in order.
    pub(super) fn stamped(&self) -> impl Iterator<Item = &Stamped> {
        self.items.iter()
    }

    /// Whether the list has, or lately had, an item of an id.
    pub(super) fn knows(&self, id: &ItemId) -> bool {
        self.positions.contains_key(id)
    }

    /// Forgets the ids of items trimmed long ago, and gives back the room of a list that is empty.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.forget_trimmed(now);
        if self.positions.is_empty() {
            self.items.shrink_to_fit();
            self.trimmed.shrink_to_fit();
            self.positions.shrink_to_fit();
        }
    }

    /// Appends an item, unless there is, or lately was, one of its id. `buried` is the last delete of the key, which may have
    /// found no list.
    pub(super) fn append(&mut self, append: Append, buried: Option<Stamp>, moment: Moment<'_>) -> Result<AppendAck> {
        self.forget_trimmed(moment.now);
        if let Some(position) = self.positions.get(&append.item_id) {
            return Ok(AppendAck::primary(*position, true));
        }
        // Only a delete outvotes an append: the order of the items is that of their commits, whatever their clocks say.
        let floor = buried.max(Some(self.floor));
        let stamp = append.attempt.stamp_past(floor, append.stamp, moment.stamps)?;
        Ok(AppendAck::primary(self.push(append.item_id, append.value, stamp), false))
    }

    /// Puts an item at the tail, and says where that is.
    pub(super) fn push(&mut self, id: ItemId, value: Value, stamp: Stamp) -> u64 {
        let position = self.next_position;
        self.next_position += 1;
        self.newest = self.newest.max(stamp);
        self.positions.insert(id.clone(), position);
        self.items.push_back(Stamped { item: Item::new(position, id, value), stamp });
        position
    }

    /// Takes back the newest item, as if it had never been appended.
    pub(super) fn take_back(&mut self) {
        if let Some(Stamped { item, .. }) = self.items.pop_back() {
            self.positions.remove(&item.id);
            self.next_position = item.position;
        }
    }

    pub(super) fn range(&self, range: ListRange) -> Vec<Item> {
        let Some((first, last)) = range.resolve(self.length()) else { return Vec::new() };
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        self.items.range(index(first)..=index(last)).map(|stamped| stamped.item.clone()).collect()
    }

    /// Cuts the list to its last items and hands out the others, oldest first.
    pub(super) fn trim(&mut self, keep_last: u64, now: Timestamp) -> Vec<Stamped> {
        let keep = usize::try_from(keep_last).unwrap_or(usize::MAX);
        let trimmed: Vec<Stamped> = self.items.drain(..self.items.len().saturating_sub(keep)).collect();
        let remember = |Stamped { item, stamp }: &Stamped| Trimmed { at: now, id: item.id.clone(), stamp: *stamp };
        self.trimmed.extend(trimmed.iter().map(remember));
        self.forget_trimmed(now);
        trimmed
    }

    /// Puts trimmed items back.
    pub(super) fn untrim(&mut self, items: Vec<Stamped>) {
        self.trimmed.truncate(self.trimmed.len().saturating_sub(items.len()));
        for stamped in items.into_iter().rev() {
            self.positions.insert(stamped.item.id.clone(), stamped.item.position);
            self.items.push_front(stamped);
        }
    }

    /// Leaves an empty list in the place of this one, which goes on counting where this one stopped.
    pub(super) fn delete(&mut self, stamp: Stamp) -> Self {
        let (next_position, newest, forgotten) = (self.next_position, self.newest, self.forgotten);
        let next = Self { next_position, newest, forgotten, floor: stamp, ..Self::default() };
        std::mem::replace(self, next)
    }

    /// Removes the items of these ids, and what is remembered of trimmed ones up to a stamp, which becomes the floor.
    ///
    /// Live items are all that lies between the first and the next position, so those that stay behind a gap move to the tail.
    pub(super) fn delete_some(&mut self, stamp: Stamp, goes: impl Fn(Stamp) -> bool) {
        let (gone, stay): (Vec<Stamped>, Vec<Stamped>) = self.items.drain(..).partition(|stamped| goes(stamped.stamp));
        let (lost, kept): (VecDeque<Trimmed>, VecDeque<Trimmed>) =
            self.trimmed.drain(..).partition(|trimmed| trimmed.stamp <= stamp);
        for id in gone.iter().map(|gone| &gone.item.id).chain(lost.iter().map(|lost| &lost.id)) {
            self.positions.remove(id);
        }
        self.trimmed = kept;
        self.floor = self.floor.max(stamp);
        let first = stay.first().map(|stamped| stamped.item.position);
        if first.is_none_or(|first| gone.iter().all(|gone| gone.item.position < first)) {
            self.items = stay.into();
            return;
        }
        for Stamped { item, stamp } in stay {
            self.push(item.id, item.value, stamp);
        }
    }

    fn forget_trimmed(&mut self, now: Timestamp) {
        while self.trimmed.front().is_some_and(|trimmed| now.since(trimmed.at) > RETENTION) {
            if let Some(Trimmed { id, stamp, .. }) = self.trimmed.pop_front() {
                self.positions.remove(&id);
                self.forgotten = self.forgotten.max(stamp);
            }
        }
    }
}

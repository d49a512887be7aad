//! The list under a key.

use std::collections::{HashMap, VecDeque};

use crate::contract::{Append, AppendAck, Item, ItemId, ListRange};
use crate::error::Result;
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::tombstones::RETENTION;
use super::write::Moment;

/// Items in order, and the ids that make an append repeatable.
///
/// An empty one is kept for ever once it had an item, so that no position is used again.
#[derive(Debug, Default)]
pub(super) struct List {
    items: VecDeque<Item>,
    next_position: u64,
    positions: HashMap<ItemId, u64>,
    trimmed: VecDeque<(Timestamp, ItemId)>,
    /// The stamp of the last delete.
    floor: Option<Stamp>,
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
        self.next_position == 0 && self.floor.is_none()
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

    pub(super) fn append(&mut self, append: Append, moment: Moment<'_>) -> Result<AppendAck> {
        self.forget_trimmed(moment.now);
        if let Some(position) = self.positions.get(&append.item_id) {
            return Ok(AppendAck::primary(*position, true));
        }
        append.attempt.stamp_past(self.floor, append.stamp, moment.stamps)?;
        let position = self.next_position;
        self.next_position += 1;
        self.positions.insert(append.item_id.clone(), position);
        self.items.push_back(Item::new(position, append.item_id, append.value));
        Ok(AppendAck::primary(position, false))
    }

    /// Takes back the newest item, as if it had never been appended.
    pub(super) fn take_back(&mut self) {
        if let Some(item) = self.items.pop_back() {
            self.positions.remove(&item.id);
            self.next_position = item.position;
        }
    }

    pub(super) fn range(&self, range: ListRange) -> Vec<Item> {
        let Some((first, last)) = range.resolve(self.length()) else { return Vec::new() };
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        self.items.range(index(first)..=index(last)).cloned().collect()
    }

    /// Cuts the list to its last items and hands out the others, oldest first.
    pub(super) fn trim(&mut self, keep_last: u64, now: Timestamp) -> Vec<Item> {
        let keep = usize::try_from(keep_last).unwrap_or(usize::MAX);
        let trimmed: Vec<Item> = self.items.drain(..self.items.len().saturating_sub(keep)).collect();
        self.trimmed.extend(trimmed.iter().map(|item| (now, item.id.clone())));
        self.forget_trimmed(now);
        trimmed
    }

    /// Puts trimmed items back.
    pub(super) fn untrim(&mut self, items: Vec<Item>) {
        self.trimmed.truncate(self.trimmed.len().saturating_sub(items.len()));
        for item in items.into_iter().rev() {
            self.positions.insert(item.id.clone(), item.position);
            self.items.push_front(item);
        }
    }

    /// Leaves an empty list in the place of this one, which goes on counting where this one stopped.
    pub(super) fn delete(&mut self, stamp: Stamp) -> Self {
        let (next_position, floor) = (self.next_position, Some(stamp));
        let next = Self { next_position, floor, ..Self::default() };
        std::mem::replace(self, next)
    }

    fn forget_trimmed(&mut self, now: Timestamp) {
        while self.trimmed.front().is_some_and(|(at, _)| now.since(*at) > RETENTION) {
            if let Some((_, id)) = self.trimmed.pop_front() {
                self.positions.remove(&id);
            }
        }
    }
}

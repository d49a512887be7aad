//! What replayed steps do to a list: what is newer than a delete, and not our own, stays. It sends nothing.

use std::collections::HashMap;
use std::ops::Range;

use crate::contract::{Append, ReplayDecision, ReplayOptions};
use crate::stamp::{HybridClock, Stamp};

/// A list under a replay, as it becomes step by step.
///
/// Its live items are the positions `unread`, then those of `items`.
#[derive(Debug)]
pub(super) struct List<'a> {
    /// The stamp of the last delete.
    pub(super) floor: Option<Stamp>,
    /// The newest stamp that changed the list.
    pub(super) max_stamp: Stamp,
    pub(super) first: u64,
    pub(super) next: u64,
    /// The items that were there and were not looked at: each delete of the replay beats them, and nobody misses them.
    unread: Range<u64>,
    items: Vec<Item<'a>>,
    /// Items that steps name, by their ids.
    known: HashMap<&'a str, Known>,
    /// The ids of appended items that were stored before, with items that were deleted.
    stored: Vec<&'a str>,
    /// How many items the last delete took.
    pub(super) removed: Option<u64>,
    /// Whether an item was appended, even if it is gone again.
    pub(super) used: bool,
    pub(super) changed: bool,
    /// Whether the stored row makes no sense.
    pub(super) corrupt: bool,
}

/// A live item.
#[derive(Clone, Copy, Debug)]
struct Item<'a> {
    position: u64,
    stamp: Stamp,
    source: Source<'a>,
}

/// Where an item comes from.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// It is stored at this position.
    Stored(u64),
    /// This replay appends it.
    Appended(&'a Append),
}

/// An item that is stored, and may be trimmed or deleted.
#[derive(Clone, Copy, Debug)]
enum Known {
    Stored { position: u64, stamp: Stamp },
    Appended,
}

/// What a delete does to a list.
#[derive(Debug, Default)]
pub(super) struct Sentence {
    /// Whether items that it beats go, and its stamp becomes the floor.
    applies: bool,
    /// Of each item whether it stays.
    stay: Vec<bool>,
    /// Whether any item goes.
    pub(super) removes: bool,
    /// The newest stamp of what stays of others.
    pub(super) winner: Option<Stamp>,
}

/// An item of somebody else that goes although it was appended meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overwritten<'a> {
    pub(super) stamp: Stamp,
    /// The append, or where it is stored.
    pub(super) item: Result<&'a Append, u64>,
}

impl<'a> List<'a> {
    /// A list as it is stored, whose items are not looked at.
    pub(super) fn stored(floor: Option<Stamp>, max_stamp: Stamp, first: u64, next: u64) -> Self {
        let corrupt = first > next;
        // There was something, whatever it was.
        let unread = if corrupt { 0..first } else { first..next };
        Self {
            floor,
            max_stamp,
            first: unread.start,
            next: unread.end,
            unread,
            items: Vec::new(),
            known: HashMap::new(),
            stored: Vec::new(),
            removed: None,
            used: false,
            changed: false,
            corrupt,
        }
    }

    /// Adds a stored item that is to be looked at. They come in order.
    pub(super) fn read(&mut self, position: u64, stamp: Stamp) {
        self.unread = 0..0;
        self.items.push(Item { position, stamp, source: Source::Stored(position) });
    }

    /// Adds a stored item by its id, live or not.
    pub(super) fn know(&mut self, id: &'a str, position: u64, stamp: Stamp) {
        self.known.insert(id, Known::Stored { position, stamp });
    }

    /// Whether the list has, or lately had, an item of this id.
    pub(super) fn knows(&self, id: &str) -> bool {
        match self.known.get(id) {
            None => false,
            Some(Known::Appended) => true,
            Some(Known::Stored { position, stamp }) => self.floor < Some(*stamp) || self.has(*position),
        }
    }

    /// Whether the id of an appended item was that of a deleted one, which may still be stored.
    pub(super) fn was_stored(&self, append: &Append) -> bool {
        self.stored.contains(&append.item_id.as_str())
    }

    fn has(&self, stored_at: u64) -> bool {
        self.unread.contains(&stored_at)
            || self.items.iter().any(|item| matches!(item.source, Source::Stored(position) if position == stored_at))
    }

    pub(super) const fn length(&self) -> u64 {
        self.next - self.first
    }

    /// Puts an item at the tail.
    pub(super) fn push(&mut self, append: &'a Append) {
        self.items.push(Item { position: self.next, stamp: append.stamp, source: Source::Appended(append) });
        if let Some(Known::Stored { .. }) = self.known.insert(append.item_id.as_str(), Known::Appended) {
            self.stored.push(append.item_id.as_str());
        }
        self.next += 1;
        self.max_stamp = self.max_stamp.max(append.stamp);
        (self.used, self.changed) = (true, true);
    }

    /// Judges a delete, without changing anything.
    pub(super) fn judge(&self, stamp: Stamp, options: &ReplayOptions, clock: &HybridClock) -> Sentence {
        match judge(stamp, self.floor, options, clock) {
            ReplayDecision::Skip => return Sentence::default(),
            ReplayDecision::Lose { winner } => return Sentence { winner: Some(winner), ..Sentence::default() },
            ReplayDecision::Apply { .. } => {}
        }
        let mut sentence = Sentence { applies: true, removes: !self.unread.is_empty(), ..Sentence::default() };
        for item in &self.items {
            let decision = judge(stamp, Some(item.stamp), options, clock);
            if let ReplayDecision::Lose { winner } = decision {
                sentence.winner = sentence.winner.max(Some(winner));
            }
            let stays = !matches!(decision, ReplayDecision::Apply { .. });
            sentence.removes |= !stays;
            sentence.stay.push(stays);
        }
        sentence
    }

    /// Does what was judged; answers what is to be kept of it.
    ///
    /// The live items are all positions from the first to the next, so those that stay behind a gap move to the tail. Those that
    /// go are before the first position then, where they are cleaned up.
    pub(super) fn execute(
        &mut self,
        stamp: Stamp,
        sentence: &Sentence,
        options: &ReplayOptions,
    ) -> Vec<Overwritten<'a>> {
        let mut overwritten = Vec::new();
        if !sentence.applies {
            return overwritten;
        }
        let before = self.length();
        let items = std::mem::take(&mut self.items);
        for (item, stays) in items.into_iter().zip(&sentence.stay) {
            if *stays {
                self.items.push(item);
                continue;
            }
            let keep =
                matches!(options.decide(stamp, Some(item.stamp)), ReplayDecision::Apply { keep_overwritten: true });
            let source = match item.source {
                Source::Appended(append) => {
                    self.known.remove(append.item_id.as_str());
                    Ok(append)
                }
                Source::Stored(position) => Err(position),
            };
            overwritten.extend(keep.then_some(Overwritten { stamp: item.stamp, item: source }));
        }
        self.unread = 0..0;
        self.close_gaps();
        self.removed = Some(before.saturating_sub(self.length()));
        self.floor = self.floor.max(Some(stamp));
        self.max_stamp = self.max_stamp.max(stamp);
        (self.changed, self.corrupt) = (true, false);
        overwritten
    }

    fn close_gaps(&mut self) {
        let count = self.items.len() as u64;
        let first = self.items.first().map_or(self.next, |item| item.position);
        if self.next - first == count {
            self.first = first;
            return;
        }
        self.first = self.next;
        for item in &mut self.items {
            item.position = self.next;
            self.next += 1;
        }
    }

    /// The stored items that are to stand elsewhere: from where, to where.
    pub(super) fn moved(&self) -> impl Iterator<Item = (u64, u64)> {
        self.items.iter().filter_map(|item| match item.source {
            Source::Stored(from) if from != item.position => Some((from, item.position)),
            Source::Stored(_) | Source::Appended(_) => None,
        })
    }

    /// The items to be stored, and where.
    pub(super) fn appended(&self) -> impl Iterator<Item = (u64, &'a Append)> {
        self.items.iter().filter_map(|item| match item.source {
            Source::Appended(append) => Some((item.position, append)),
            Source::Stored(_) => None,
        })
    }
}

/// Judges a stamp by what stands, and follows the newer one.
pub(super) fn judge(
    stamp: Stamp,
    standing: Option<Stamp>,
    options: &ReplayOptions,
    clock: &HybridClock,
) -> ReplayDecision {
    if let Some(standing) = standing {
        clock.observe(standing);
    }
    options.decide(stamp, standing)
}

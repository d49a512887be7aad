//! The primary: a row, a list, the floor of what was swept, and the conflicts.

use arrayvec::ArrayVec;

use crate::event::{Event, Events};
use crate::message::{Reply, Statement, Steps};
use crate::operation::{Id, Ids, Kind, MOST, Operation};
use crate::rules::Rules;
use crate::stamp::Stamp;

/// How much later than others one clock shows at first.
pub const SKEW: u8 = 16;

/// How far `since` reaches back: at least by as much as two clocks may ever differ.
pub const REACH: u8 = SKEW + 8;

/// The value under the key, or the tombstone that a delete left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Its stamp.
    pub stamp: Stamp,
    /// Who wrote it.
    pub id: Id,
    /// Whether it is gone: then only an observer still knows who was here last.
    pub is_gone: bool,
}

/// An item of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// Its stamp.
    pub stamp: Stamp,
    /// Who appended it; its name in the list.
    pub id: Id,
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Primary {
    /// The value or tombstone.
    pub row: Option<Row>,
    /// The items in order. More than one an operation only where a rule is missing.
    pub items: ArrayVec<Item, { 2 * MOST }>,
    /// The stamp of the list's last delete.
    pub floor: Stamp,
    /// The newest stamp that changed the list.
    pub newest: Stamp,
    /// What is older may have been swept.
    pub gc_floor: Stamp,
    /// Who was kept as a conflict.
    pub conflicts: Ids,
    /// Who took effect.
    pub applied: Ids,
    /// Who took effect a second time.
    pub repeated: Ids,
    /// Who emptied the list, if it had items.
    pub emptied: Ids,
    /// Who took effect by a statement that nobody waited for any more.
    pub late: Ids,
    /// Who was overwritten by a replay that did not know of it, and not kept.
    pub unnoticed: Ids,
    /// Which values have ended.
    pub expired: Ids,
}

/// What is known of operations, and the rules.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) operations: &'a [Operation],
    pub(crate) rules: &'a Rules,
    pub(crate) events: &'a Events,
}

/// What is replayed, and how.
pub(crate) struct Replayed<'a> {
    pub(crate) process: u8,
    pub(crate) steps: &'a Steps,
    pub(crate) since: Stamp,
    pub(crate) aware_of: Ids,
    pub(crate) primary_wins: bool,
}

/// What a replay does with one operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    Skip,
    Lose,
    Apply { overwrites: bool },
}

impl Primary {
    pub(crate) const fn new() -> Self {
        Self {
            row: None,
            items: ArrayVec::new_const(),
            floor: Stamp::MIN,
            newest: Stamp::MIN,
            gc_floor: Stamp::MIN,
            conflicts: Ids::NONE,
            applied: Ids::NONE,
            repeated: Ids::NONE,
            emptied: Ids::NONE,
            late: Ids::NONE,
            unnoticed: Ids::NONE,
            expired: Ids::NONE,
        }
    }

    /// The row, unless it was swept.
    #[must_use]
    pub fn standing(&self) -> Option<Row> {
        self.row.filter(|row| !row.is_gone)
    }

    /// Who wrote the value that a reader finds.
    #[must_use]
    pub fn value(&self, operations: &[Operation]) -> Option<Id> {
        let live = |row: &Row| operations[usize::from(row.id)].kind.sets() && !self.expired.has(row.id);
        self.standing().filter(live).map(|row| row.id)
    }

    /// Whether the list has an item of this name.
    #[must_use]
    pub fn has_item(&self, id: Id) -> bool {
        self.items.iter().any(|item| item.id == id)
    }

    /// Whether a statement can have no effect any more, whenever it is executed: stamps here only grow.
    pub(crate) fn outvotes(&self, statement: Statement, operations: &[Operation]) -> bool {
        let Statement { id, stamp, .. } = statement;
        let row = self.standing().is_some_and(|row| row.stamp >= stamp);
        match operations[usize::from(id)].kind {
            Kind::Set | Kind::SetForAWhile | Kind::Create => row,
            Kind::Append => self.has_item(id) || stamp <= self.floor,
            Kind::Delete | Kind::Clear => row && self.newest >= stamp,
        }
    }

    /// Executes a statement of normal operation.
    pub(crate) fn execute(&mut self, statement: Statement, is_awaited: bool, known: Known<'_>) -> Reply {
        let Statement { id, stamp, .. } = statement;
        let before = self.clone();
        let reply = match known.operations[usize::from(id)].kind {
            Kind::Set | Kind::SetForAWhile => self.put(id, stamp, known),
            Kind::Create => match self.value(known.operations) {
                Some(standing) if standing == id => Reply::Applied,
                Some(_) => Reply::Exists,
                None => self.put(id, stamp, known),
            },
            Kind::Append => self.append(id, stamp, known),
            Kind::Delete => self.delete(id, stamp, known),
            Kind::Clear => self.clear(id, stamp, known),
        };
        let is_changed = before != *self;
        if is_changed && !is_awaited {
            known.events.note(Event::LateWriteLands);
            self.late.add(id);
        }
        if is_changed && reply == Reply::Applied {
            self.note(id);
        }
        reply
    }

    /// Notes that an operation had its effect.
    const fn note(&mut self, id: Id) {
        if self.applied.has(id) {
            self.repeated.add(id);
        }
        self.applied.add(id);
    }

    fn put(&mut self, id: Id, stamp: Stamp, known: Known<'_>) -> Reply {
        match self.standing() {
            Some(row) if known.rules.stamp_guard && row.stamp > stamp => Reply::Behind(row.stamp.max(self.newest)),
            _ => {
                self.row = Some(Row { stamp, id, is_gone: false });
                Reply::Applied
            }
        }
    }

    fn append(&mut self, id: Id, stamp: Stamp, known: Known<'_>) -> Reply {
        if known.rules.item_id && self.has_item(id) {
            return Reply::Applied;
        }
        if known.rules.floor && stamp <= self.floor {
            return Reply::Behind(self.floor);
        }
        self.push(id, stamp);
        Reply::Applied
    }

    fn push(&mut self, id: Id, stamp: Stamp) {
        if self.items.try_push(Item { stamp, id }).is_ok() {
            self.newest = self.newest.max(stamp);
        }
    }

    /// Value and list are guarded each for itself, as two halves of one statement.
    fn delete(&mut self, id: Id, stamp: Stamp, known: Known<'_>) -> Reply {
        let guarded = |standing: Stamp| known.rules.stamp_guard && standing > stamp;
        let (standing, newest) = (self.standing().map_or(Stamp::MIN, |row| row.stamp), self.newest);
        if !guarded(standing) {
            self.bury(id, stamp, known);
        }
        if !guarded(newest) {
            self.empty(id, stamp);
        }
        if guarded(standing) != guarded(newest) {
            known.events.note(Event::HalfADelete);
        }
        let newest = standing.max(newest);
        if guarded(newest) { Reply::Behind(newest) } else { Reply::Applied }
    }

    /// As a delete, but nothing is left where nothing is, and all or nothing goes.
    fn clear(&mut self, id: Id, stamp: Stamp, known: Known<'_>) -> Reply {
        let is_empty = self.value(known.operations).is_none() && self.items.is_empty();
        let newest = self.standing().map_or(Stamp::MIN, |row| row.stamp).max(self.newest);
        if is_empty {
            return Reply::Applied;
        }
        if known.rules.stamp_guard && newest > stamp {
            return Reply::Behind(newest);
        }
        self.delete(id, stamp, known)
    }

    fn bury(&mut self, id: Id, stamp: Stamp, known: Known<'_>) {
        self.row = Some(Row { stamp, id, is_gone: !known.rules.tombstones });
    }

    fn empty(&mut self, id: Id, stamp: Stamp) {
        self.items.clear();
        self.emptied.add(id);
        (self.floor, self.newest) = (stamp, stamp);
    }

    /// Replays operations in one transaction.
    pub(crate) fn replay(&mut self, replayed: &Replayed<'_>, known: Known<'_>) -> Reply {
        let (mut done, mut too_old) = (Ids::NONE, Ids::NONE);
        for &id in replayed.steps {
            if self.replay_one(id, replayed, known) {
                done.add(id);
            } else {
                too_old.add(id);
            }
        }
        Reply::Replayed { done, too_old }
    }

    fn replay_one(&mut self, id: Id, replayed: &Replayed<'_>, known: Known<'_>) -> bool {
        let Operation { kind, stamp, .. } = known.operations[usize::from(id)];
        let is_old = known.rules.gc_floor && stamp <= self.gc_floor;
        match kind {
            Kind::Append => {
                if known.rules.item_id && self.has_item(id) {
                    known.events.note(Event::ReplayedAgain);
                    return true;
                }
                let floor = Some(self.floor).filter(|_| known.rules.floor);
                match decide(stamp, floor, replayed, known) {
                    Decision::Skip => {}
                    Decision::Lose => self.lose(id, known),
                    Decision::Apply { .. } if is_old => return false,
                    Decision::Apply { .. } => {
                        self.push(id, stamp);
                        self.note(id);
                    }
                }
                true
            }
            Kind::Delete => self.replay_delete(id, replayed, known),
            Kind::Clear => {
                let is_empty = self.value(known.operations).is_none() && self.items.is_empty();
                if is_old { false } else { is_empty || self.replay_delete(id, replayed, known) }
            }
            Kind::Set | Kind::SetForAWhile | Kind::Create => {
                if self.expired.has(id) {
                    known.events.note(Event::ReplayOfExpired);
                    if !known.rules.expired_is_applied {
                        return true;
                    }
                }
                match decide(stamp, self.guard(), replayed, known) {
                    Decision::Skip => {}
                    Decision::Lose => self.lose(id, known),
                    Decision::Apply { .. } if is_old => return false,
                    Decision::Apply { overwrites } => {
                        if let Some(row) = self.standing() {
                            self.overwrite(row.id, overwrites, replayed, known);
                        }
                        self.row = Some(Row { stamp, id, is_gone: false });
                        self.note(id);
                    }
                }
                true
            }
        }
    }

    /// The list is judged apart from the value: by its floor, then item by item.
    fn replay_delete(&mut self, id: Id, replayed: &Replayed<'_>, known: Known<'_>) -> bool {
        let Operation { stamp, kind, .. } = known.operations[usize::from(id)];
        let value = decide(stamp, self.guard(), replayed, known);
        let list = decide(stamp, Some(self.floor), replayed, known);
        let of_item = |item: &Item| match list {
            Decision::Apply { .. } => decide(stamp, Some(item.stamp), replayed, known),
            other => other,
        };
        let beats = |item: &Item| matches!(of_item(item), Decision::Apply { .. });
        let takes_value = matches!(value, Decision::Apply { .. });
        if known.rules.gc_floor && stamp <= self.gc_floor && (takes_value || self.items.iter().any(beats)) {
            return false;
        }
        let before = self.clone();
        if let Decision::Apply { overwrites } = value {
            if let Some(row) = self.standing() {
                self.overwrite(row.id, overwrites, replayed, known);
            }
            self.bury(id, stamp, known);
        }
        for item in &before.items {
            if let Decision::Apply { overwrites } = of_item(item) {
                self.overwrite(item.id, overwrites, replayed, known);
            }
        }
        self.items.retain(|item| !beats(item));
        if matches!(list, Decision::Apply { .. }) {
            self.emptied.add(id);
            self.floor = self.floor.max(stamp);
            self.newest = self.newest.max(stamp);
        }
        let of_items = before.items.iter().map(|item| (of_item(item), item.stamp));
        let of_value = (value, before.guard().unwrap_or(Stamp::MIN));
        let judged = of_items.chain([of_value, (list, before.floor)]);
        let winner = judged.filter(|(decision, _)| *decision == Decision::Lose).map(|(_, winner)| winner).min();
        // What was written after a clear is none of its matter.
        if winner.is_some_and(|winner| kind == Kind::Delete || winner < stamp) {
            self.lose(id, known);
        }
        // One that took a part only may yet take the rest, by a statement with a newer stamp that is late.
        if winner.is_none() && (takes_value || before.items != self.items) {
            self.note(id);
        }
        true
    }

    fn guard(&self) -> Option<Stamp> {
        self.standing().map(|row| row.stamp)
    }

    fn lose(&mut self, id: Id, known: Known<'_>) {
        known.events.note(Event::ReplayLoses);
        if known.rules.losers_are_kept {
            self.conflicts.add(id);
        }
    }

    /// Keeps what a replay is about to overwrite, if it was written meanwhile.
    fn overwrite(&mut self, id: Id, overwrites: bool, replayed: &Replayed<'_>, known: Known<'_>) {
        if overwrites && known.rules.overwritten_is_kept {
            known.events.note(Event::ReplayOverwrites);
            self.conflicts.add(id);
        } else if known.operations[usize::from(id)].process != replayed.process && !replayed.aware_of.has(id) {
            self.unnoticed.add(id);
        }
    }
}

/// Judges an operation by the stamp that stands where it would write.
fn decide(stamp: Stamp, standing: Option<Stamp>, replayed: &Replayed<'_>, known: Known<'_>) -> Decision {
    let note = |event| known.events.note(event);
    let Some(standing) = standing.filter(|standing| *standing != Stamp::MIN) else {
        return Decision::Apply { overwrites: false };
    };
    let is_foreign = standing.writer % 2 != replayed.process;
    if standing == stamp {
        note(Event::ReplayedAgain);
        return Decision::Skip;
    }
    let meanwhile = is_foreign && standing >= replayed.since;
    let is_behind = standing > stamp && known.rules.stamp_guard;
    match (is_behind, is_foreign) {
        (true, false) => {
            note(Event::ReplayPassedOver);
            Decision::Skip
        }
        (true, true) => Decision::Lose,
        (false, _) if meanwhile && replayed.primary_wins => Decision::Lose,
        (false, _) => Decision::Apply { overwrites: meanwhile },
    }
}

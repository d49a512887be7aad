//! A process: its clock, its journal, what it knows to owe, and its breaker.

use crate::message::Steps;
use crate::operation::{Id, Ids, Operation};
use crate::primary::Primary;
use crate::rules::Rules;
use crate::stamp::Stamp;

/// A process with a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub number: u8,
    /// How often it crashed.
    pub life: u8,
    /// The time of the newest stamp that it gave or saw.
    pub clock: u8,
    /// Whether the breaker is open.
    pub is_open: bool,
    /// The operations in the journal, in order. They survive a crash.
    pub journal: Steps,
    /// What it knows to owe.
    pub owed: Ids,
    /// What it put aside.
    pub parked: Ids,
    /// The oldest stamp of what was owed since the outage began.
    pub since: Option<Stamp>,
    /// What had been acknowledged when the outage began; only an observer knows.
    pub aware_of: Ids,
    /// Whether the journal takes no more operations.
    pub is_full: bool,
}

/// What a reader is told of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What is owed, marked as pending.
    Owed(Id),
    /// What the primary has: who wrote it, or that it is missing.
    Primary(Option<Id>),
    /// Missing, which nobody proved.
    Guess,
    /// Nothing.
    Unavailable,
}

/// What a reader is told of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenList {
    /// It was deleted, by what is owed.
    Deleted(Id),
    /// What the primary has.
    Primary,
    /// Empty, which nobody proved.
    Guess,
    /// Nothing.
    Unavailable,
}

impl Process {
    pub(crate) fn new(number: u8, clock: u8) -> Self {
        Self {
            number,
            life: 0,
            clock,
            is_open: false,
            journal: Steps::new(),
            owed: Ids::NONE,
            parked: Ids::NONE,
            since: None,
            aware_of: Ids::NONE,
            is_full: false,
        }
    }

    /// Gives a stamp.
    pub(crate) const fn issue(&mut self) -> Stamp {
        self.clock += 1;
        Stamp { time: self.clock, writer: self.number + 2 * self.life }
    }

    /// Sees a stamp.
    pub(crate) fn observe(&mut self, stamp: Stamp) {
        self.clock = self.clock.max(stamp.time);
    }

    /// Whether nothing waits to be replayed.
    pub(crate) fn is_settled(&self) -> bool {
        self.journal.iter().all(|id| self.parked.has(*id))
    }

    /// Reads the value.
    #[must_use]
    pub fn get(&self, primary: &Primary, operations: &[Operation], is_away: bool, rules: &Rules) -> Seen {
        match self.newest(operations, |operation| operation.kind.changes_value()) {
            Some(id) => Seen::Owed(id),
            None if self.is_open && rules.unavailable_while_open => Seen::Unavailable,
            None if self.is_open => Seen::Guess,
            None if is_away && rules.identity => Seen::Unavailable,
            None if is_away => Seen::Guess,
            None => Seen::Primary(primary.standing().map(|row| row.id)),
        }
    }

    /// Reads the list.
    #[must_use]
    pub fn range(&self, operations: &[Operation], is_away: bool, rules: &Rules) -> SeenList {
        let deleted = self.newest(operations, |operation| operation.kind.deletes());
        let stamp = |id: Option<Id>| id.map(|id| operations[usize::from(id)].stamp);
        let appended = self.newest(operations, |operation| !operation.kind.changes_value());
        match deleted {
            _ if stamp(appended) > stamp(deleted) => SeenList::Unavailable,
            Some(id) => SeenList::Deleted(id),
            None if self.is_open && rules.unavailable_while_open => SeenList::Unavailable,
            None if self.is_open => SeenList::Guess,
            None if is_away && rules.identity => SeenList::Unavailable,
            None if is_away => SeenList::Guess,
            None => SeenList::Primary,
        }
    }

    /// The newest of what is owed, by its stamp.
    fn newest(&self, operations: &[Operation], is_meant: impl Fn(&Operation) -> bool) -> Option<Id> {
        let meant = operations.iter().zip(0..).filter(|(operation, id)| self.owed.has(*id) && is_meant(operation));
        meant.max_by_key(|(operation, _)| operation.stamp).map(|(_, id)| id)
    }
}

//! Operations, and what their callers were told.

use crate::stamp::Stamp;

/// Names an operation: its place in the order in which they were called.
pub type Id = u8;

/// The most operations of a run.
pub const MOST: usize = 4;

/// What an operation does to the one key, under which there may be a value and a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Writes the value.
    Set,
    /// Writes a value that ends some time later.
    SetForAWhile,
    /// Writes the value if there is none.
    Create,
    /// Deletes value and list.
    Delete,
    /// Deletes what there is under a prefix.
    Clear,
    /// Appends to the list.
    Append,
}

impl Kind {
    /// Whether it leaves a value.
    #[must_use]
    pub const fn sets(self) -> bool {
        matches!(self, Self::Set | Self::SetForAWhile | Self::Create)
    }

    /// Whether it deletes value and list.
    #[must_use]
    pub const fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::Clear)
    }

    /// Whether it changes the value.
    #[must_use]
    pub const fn changes_value(self) -> bool {
        self.sets() || self.deletes()
    }

    /// Whether only the primary can judge it.
    #[must_use]
    pub const fn is_conditional(self) -> bool {
        matches!(self, Self::Create)
    }
}

/// How far a call has come in its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waits until no other write of the key is on its way.
    Waiting,
    /// It was sent to the primary.
    Sent,
    /// It is being journaled.
    Journaling,
    /// It is over.
    Over,
}

/// What the caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Nothing yet, or nothing ever: the process crashed, or the caller went away.
    None,
    /// The primary has it.
    Primary,
    /// The journal has it.
    Local,
    /// It may have been applied.
    Unknown,
    /// It was not applied.
    Refused,
}

/// An operation, and what an observer knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// Who called it.
    pub process: u8,
    /// The stamp that it has: its own, or the newer one under which it took effect.
    pub stamp: Stamp,
    /// How far it has come.
    pub stage: Stage,
    /// What its caller was told.
    pub answer: Answer,
    /// What was over for its caller when it began: of another process only what was acknowledged.
    pub before: Ids,
    /// What the same process had acknowledged when this was acknowledged.
    pub acknowledged_before: Ids,
}

impl Operation {
    /// Whether it was acknowledged.
    #[must_use]
    pub const fn is_acknowledged(&self) -> bool {
        matches!(self.answer, Answer::Primary | Answer::Local)
    }
}

/// A set of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ids(u8);

impl Ids {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Whether an operation is among them.
    #[must_use]
    pub const fn has(self, id: Id) -> bool {
        self.0 & (1 << id) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Id> {
        (0..8).filter(move |id| self.has(*id))
    }

    /// Adds one.
    pub const fn add(&mut self, id: Id) {
        self.0 |= 1 << id;
    }

    /// Takes one out.
    pub const fn remove(&mut self, id: Id) {
        self.0 &= !(1 << id);
    }
}

impl FromIterator<Id> for Ids {
    fn from_iter<T: IntoIterator<Item = Id>>(ids: T) -> Self {
        let mut all = Self::NONE;
        ids.into_iter().for_each(|id| all.add(id));
        all
    }
}

//! What was called, what was answered, and for which database each write was meant.

use std::collections::BTreeSet;

use agent_storage::chain::{JournaledEffect, JournaledOperation};

use crate::files::{Address, Number};
use crate::line::{Action, Call};

/// What became of a write, as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Primary,
    Local,
    /// Its process was killed, or said that it does not know.
    Unknown,
}

/// A write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Its place in the order in which they were made.
    pub(crate) number: usize,
    pub(crate) process: usize,
    pub(crate) action: Action,
    pub(crate) key: String,
    pub(crate) value: i64,
    pub(crate) fate: Fate,
    /// The databases that it may be in. None where it waits for the first one that is known at an address.
    pub(crate) meant: BTreeSet<Number>,
    pub(crate) follows: Option<Address>,
}

impl Write {
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.fate != Fate::Unknown
    }

    /// Whether it decides what value stands under a key.
    pub(crate) fn covers(&self, key: &str) -> bool {
        match self.action {
            Action::Set | Action::Delete => self.key == key,
            Action::Clear => key.starts_with(&self.key),
            Action::Append | Action::Get | Action::Range => false,
        }
    }

    pub(crate) fn removes(&self, key: &str) -> bool {
        self.action != Action::Set && self.covers(key)
    }

    /// Whether it is the removal that a journal names so.
    fn is_removal_of(&self, name: &str) -> bool {
        matches!(self.action, Action::Delete | Action::Clear) && self.key == name
    }
}

/// The databases that a write may be in, and the address at which it waits for one.
#[derive(Debug)]
pub(crate) struct Meant {
    pub(crate) databases: BTreeSet<Number>,
    pub(crate) follows: Option<Address>,
}

/// All writes of a schedule.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    /// The processes that have ended.
    pub(crate) ended: BTreeSet<usize>,
    values: i64,
}

impl History {
    /// A value that nobody else writes.
    pub(crate) fn fresh_value(&mut self) -> i64 {
        self.values += 1;
        self.values
    }

    pub(crate) fn note(&mut self, process: usize, call: Call, fate: Fate, meant: Meant) {
        let number = self.writes.len();
        let Call { action, key, value } = call;
        let Meant { databases: meant, follows } = meant;
        self.writes.push(Write { number, process, action, key, value, fate, meant, follows });
    }

    /// It is known now which database is at an address: what waits there for the first one is meant for it.
    pub(crate) fn settle_followers(&mut self, at: Address, known: &BTreeSet<Number>) {
        for write in self.writes.iter_mut().filter(|write| write.follows == Some(at)) {
            // One that lives does not know of it.
            if self.ended.contains(&write.process) {
                write.follows = None;
            }
            write.meant.extend(known);
        }
    }

    /// What waits for the first database at an address may have met it.
    pub(crate) fn note_met(&mut self, at: Address, met: Number) {
        for write in self.writes.iter_mut().filter(|write| write.follows == Some(at)) {
            write.meant.insert(met);
        }
    }

    /// What a journal holds may go to a database that was accepted.
    pub(crate) fn accept(&mut self, owed: &[(Option<String>, Option<i64>)], accepted: Number) {
        for (key, value) in owed {
            for write in &mut self.writes {
                let is_it = match value {
                    Some(value) => write.value == *value,
                    None => write.fate != Fate::Primary && key.as_ref().is_some_and(|key| write.is_removal_of(key)),
                };
                if is_it {
                    write.meant.insert(accepted);
                }
            }
        }
    }

    /// The write of a value.
    pub(crate) fn by_value(&self, value: i64) -> Option<&Write> {
        self.writes.iter().find(|write| write.value == value && matches!(write.action, Action::Set | Action::Append))
    }

    /// The last write of a process that covers a key.
    pub(crate) fn last_own(&self, process: usize, key: &str) -> Option<&Write> {
        self.writes.iter().rev().find(|write| write.process == process && write.covers(key))
    }
}

/// The key, or the prefix, of an operation, and the value that it writes.
pub(crate) fn of_journal(operation: JournaledOperation) -> (Option<String>, Option<i64>) {
    match operation.effect {
        JournaledEffect::Put { key, value, .. } | JournaledEffect::Append { key, value, .. } => {
            (Some(key.to_string()), value.decode().ok())
        }
        JournaledEffect::Delete { key } => (Some(key.to_string()), None),
        JournaledEffect::Clear { prefix } => (Some(prefix.to_string()), None),
        _ => (None, None),
    }
}

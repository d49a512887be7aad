//! The [`System`]: two processes, the primary, and what is on its way between them.

use arrayvec::ArrayVec;

use crate::event::Events;
use crate::message::{Network, Steps};
use crate::operation::{Answer, Id, Ids, Kind, MOST, Operation, Stage};
use crate::primary::{Known, Primary, SKEW};
use crate::process::{Process, Seen, SeenList};
use crate::rules::Rules;
use crate::scene::{Faults, Scene};
use crate::stamp::Stamp;

/// A state of all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct System {
    /// All operations that were called, in that order.
    pub operations: ArrayVec<Operation, MOST>,
    /// The processes.
    pub processes: [Process; 2],
    /// The primary.
    pub primary: Primary,
    /// What is on its way.
    pub network: Network,
    /// Whether the primary's address leads to another, empty database.
    pub is_away: bool,
    /// The faults that may still happen.
    pub faults: Faults,
}

impl System {
    /// Nothing has happened; the clock of one process may show much more than the other's.
    #[must_use]
    pub fn new(scene: &Scene, skews: [bool; 2]) -> Self {
        let clock = |is_skewed| SKEW * (1 + u8::from(is_skewed));
        Self {
            operations: ArrayVec::new(),
            processes: [Process::new(0, clock(skews[0])), Process::new(1, clock(skews[1]))],
            primary: Primary::new(),
            network: Network::default(),
            is_away: false,
            faults: scene.faults,
        }
    }

    /// An operation.
    #[must_use]
    pub fn operation(&self, id: Id) -> &Operation {
        &self.operations[usize::from(id)]
    }

    /// All operations with their names.
    pub fn all(&self) -> impl Iterator<Item = (Id, &Operation)> {
        (0..).zip(&self.operations)
    }

    /// All operations of a process, with their names.
    pub fn of(&self, process: u8) -> impl Iterator<Item = (Id, &Operation)> {
        self.all().filter(move |(_, one)| one.process == process)
    }

    /// The process that called an operation.
    #[must_use]
    pub fn caller(&self, id: Id) -> &Process {
        &self.processes[usize::from(self.operation(id).process)]
    }

    /// What a process is told of the value.
    #[must_use]
    pub fn get(&self, process: &Process, rules: &Rules) -> Seen {
        process.get(&self.primary, &self.operations, self.is_away, rules)
    }

    /// What a process is told of the list.
    #[must_use]
    pub fn range(&self, process: &Process, rules: &Rules) -> SeenList {
        process.range(&self.operations, self.is_away, rules)
    }

    /// What a process has to replay, in order.
    #[must_use]
    pub fn due(&self, process: &Process) -> Steps {
        let is_due = |id: &Id| !process.parked.has(*id) && self.operation(*id).stage != Stage::Journaling;
        process.journal.iter().copied().filter(is_due).collect()
    }

    pub(crate) fn known<'a>(&'a self, rules: &'a Rules, events: &'a Events) -> Known<'a> {
        Known { operations: &self.operations, rules, events }
    }

    pub(crate) fn operation_mut(&mut self, id: Id) -> &mut Operation {
        &mut self.operations[usize::from(id)]
    }

    pub(crate) fn caller_mut(&mut self, id: Id) -> &mut Process {
        let process = usize::from(self.operation(id).process);
        &mut self.processes[process]
    }

    pub(crate) fn begin(&mut self, process: u8, kind: Kind) -> Id {
        let is_over = |one: &Operation| match one.process == process {
            true => one.stage == Stage::Over || one.answer != Answer::None,
            false => one.is_acknowledged(),
        };
        let before = self.all().filter(|(_, one)| is_over(one)).map(|(id, _)| id).collect();
        let operation = Operation {
            kind,
            process,
            stamp: Stamp::MIN,
            stage: Stage::Waiting,
            answer: Answer::None,
            before,
            acknowledged_before: Ids::NONE,
        };
        self.operations.push(operation);
        u8::try_from(self.operations.len() - 1).unwrap_or(u8::MAX)
    }

    /// Tells the caller, once.
    pub(crate) fn answer(&mut self, id: Id, answer: Answer) {
        let Operation { process, answer: given, .. } = *self.operation(id);
        if given != Answer::None {
            return;
        }
        let is_earlier = |one: &Operation| one.process == process && one.is_acknowledged();
        let earlier = self.all().filter(|(_, one)| is_earlier(one)).map(|(id, _)| id).collect();
        let operation = self.operation_mut(id);
        operation.answer = answer;
        if operation.is_acknowledged() {
            operation.acknowledged_before = earlier;
        }
    }
}

//! What was reached: a schedule that meets nothing proves nothing.

use std::collections::BTreeMap;

/// How often each situation was met.
#[derive(Debug, Default)]
pub(crate) struct Reached(BTreeMap<&'static str, u64>);

/// What must be met.
const SITUATIONS: [&str; 34] = [
    "a clear is owed",
    "a copy is restored",
    "a copy of its own is at an address",
    "a database can be reached again",
    "a database is accepted",
    "a database is brought back",
    "a database is copied",
    "a database is cut off",
    "a database is replaced by an empty one",
    "a database moves in the middle of calls",
    "a living process hears what was accepted",
    "a process ends in order",
    "a process is killed",
    "a process is killed in the middle of a call",
    "a process starts fenced",
    "a process starts while its database is away",
    "a read is told missing",
    "a read is unavailable",
    "a read sees what is owed",
    "a write is owed",
    "a write that lost is kept",
    "an empty database is fenced off",
    "an older state is fenced off",
    "an operator accepts",
    "another database is fenced off",
    "another database is fenced off at a new address",
    "it takes more than one round to bring all home",
    "several processes live",
    "something is owed to both addresses",
    "the folder of the journals is put back",
    "the folder of the journals moves",
    "the same database is recognised at a new address",
    "two databases are swapped",
    "what is owed elsewhere is accepted with it",
];

impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:6} {what}"))
    }
}

impl Reached {
    pub(crate) fn note(&mut self, what: &'static str) {
        self.note_times(what, 1);
    }

    pub(crate) fn note_times(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub(crate) fn join(&mut self, other: Self) {
        for (what, times) in other.0 {
            self.note_times(what, times);
        }
    }

    /// What was never met.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        SITUATIONS.into_iter().filter(|what| self.0.get(what).is_none_or(|times| *times == 0)).collect()
    }
}

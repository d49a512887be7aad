//! What the documentation says of a database at an address, before a process is asked.

use std::collections::BTreeSet;

use crate::files::{Address, Number};
use crate::folder::Journal;
use crate::schedule::Schedule;

/// What a process that starts at an address must make of the database there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None can be reached.
    Away,
    /// No database is known at the address.
    New,
    /// It is the known one.
    Right,
    /// It is another one, or an older state of the known one.
    Wrong,
    /// The documentation does not say.
    Unclear,
}

/// What waits in the folder for another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Debts {
    None,
    /// It is owed to the database that answers.
    Same,
    /// It is owed to another one, or nobody can say.
    Other,
    /// Another database was accepted while its process lived, and whether that heard of it is not known.
    Unclear,
}

impl Schedule {
    /// What a process that starts at an address must make of the database there.
    pub(crate) fn verdict(&self, address: Address, journals: &[Journal]) -> Verdict {
        let Some(place) = self.files.answering(address) else { return Verdict::Away };
        let homes = &self.homes[address as usize];
        let is_remembered = is_remembered(address, journals);
        match homes.len() {
            _ if self.murky => Verdict::Unclear,
            0 if !is_remembered => Verdict::New,
            1 if homes.contains(&place) => Verdict::Right,
            1 if is_remembered => Verdict::Wrong,
            _ => Verdict::Unclear,
        }
    }

    /// What it finds in the folder for the other address.
    pub(crate) fn debts(&self, address: Address, journals: &[Journal]) -> Debts {
        let owing =
            |journal: &&Journal| !journal.is_owned && journal.operations > 0 && journal.address != Some(address);
        let owing: Vec<_> = journals.iter().filter(owing).collect();
        if owing.is_empty() {
            return Debts::None;
        }
        let is_unclear = |journal: &&Journal| !self.is_told_by_its_home(journal);
        if self.murky || owing.iter().any(is_unclear) {
            return Debts::Unclear;
        }
        let Some(place) = self.files.answering(address) else { return Debts::Other };
        // A word of it may stand beside what a process left that lived then.
        if self.accepted.contains(&place) {
            return Debts::Unclear;
        }
        let there = self.files.contents(place);
        let is_same = |journal: &&Journal| {
            journal
                .identity
                .as_ref()
                .is_some_and(|(id, canary)| there.identity.as_ref() == Some(id) && there.canary >= *canary)
        };
        if owing.iter().all(is_same) { Debts::Same } else { Debts::Other }
    }

    /// What was meant for one of two databases that have the same identity may be in the other one.
    pub(crate) fn allow_twins(&mut self) {
        if !self.murky {
            return;
        }
        let ids: Vec<_> = (0..self.files.count()).map(|database| self.files.contents(database).identity).collect();
        for write in &mut self.history.writes {
            let is_twin = |database: &Number| {
                write.meant.iter().any(|meant| ids[*database].is_some() && ids[*meant] == ids[*database])
            };
            let twins: Vec<Number> = (0..ids.len()).filter(is_twin).collect();
            write.meant.extend(twins);
        }
    }

    /// Whether a journal knows what its address is known for.
    fn is_told_by_its_home(&self, journal: &Journal) -> bool {
        let homes: Vec<Number> =
            journal.address.iter().flat_map(|at| self.homes[*at as usize].iter().copied()).collect();
        match (&homes[..], &journal.identity) {
            ([] | [_], None) => true,
            ([home], Some((id, _))) => self.files.contents(*home).identity.as_ref() == Some(id),
            _ => false,
        }
    }

    /// Whether it is certain what everybody makes of a database at an address. A copy that nobody can tell from the original yet, or
    /// that caught up with it, passes for it, as the documentation says; that proves nothing.
    pub(crate) fn may_be_placed(&self, address: Address, database: Number) -> bool {
        let homes: BTreeSet<Number> = self.homes.iter().flatten().copied().collect();
        let contents = self.files.contents(database);
        let Some(id) = &contents.identity else { return true };
        let others = homes.iter().filter(|home| **home != database);
        let is_alone = others.clone().all(|home| self.files.contents(*home).identity.as_ref() != Some(id));
        if homes.contains(&database) {
            return is_alone;
        }
        let journals = self.journals();
        let knowing: Vec<u64> = journals
            .iter()
            .filter_map(|journal| journal.identity.as_ref())
            .filter(|known| known.0 == *id)
            .map(|known| known.1)
            .collect();
        if is_alone && knowing.is_empty() {
            return true;
        }
        is_remembered(address, &journals) && !knowing.is_empty() && knowing.iter().all(|known| contents.canary < *known)
    }

    /// Whether two databases that somebody may take for the known one have the same identity: what is older then, nobody can say.
    pub(crate) fn note_murky(&mut self) {
        let mut known: BTreeSet<Number> = self.homes.iter().flatten().copied().collect();
        known.extend(self.processes.iter().flatten().flat_map(|process| &process.known | &process.maybe));
        let ids: Vec<_> = known.iter().filter_map(|database| self.files.contents(*database).identity).collect();
        let distinct: BTreeSet<_> = ids.iter().collect();
        if distinct.len() < ids.len() && !self.murky {
            self.murky = true;
            self.trace("two copies are known, and nobody can tell them apart for certain".to_owned());
        }
    }
}

/// Whether somebody knows which database is at an address: where all that did was taken over by a process at another address, nobody
/// does any more.
pub(crate) fn is_remembered(address: Address, journals: &[Journal]) -> bool {
    journals.iter().any(|journal| journal.address == Some(address) && journal.identity.is_some())
}

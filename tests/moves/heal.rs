//! The end: everything is brought back, and all that is owed comes home.

use std::collections::BTreeSet;

use crate::files::{Address, Number};
use crate::folder::Journal;
use crate::lives::SOON;
use crate::schedule::{SLOTS, Schedule};

/// How often processes start at both addresses at most until nothing is owed.
const ROUNDS: usize = 8;

impl Schedule {
    pub(crate) fn heal(&mut self) {
        self.trace("everything is brought back".to_owned());
        for slot in 0..SLOTS {
            if self.processes[slot].is_some() {
                if self.draw(2) == 0 { self.kill(slot) } else { self.disconnect(slot) }
            }
        }
        for round in 0..ROUNDS {
            let journals = self.journals();
            if round > 0 && journals.iter().all(|journal| journal.operations == 0) {
                return self.check_healed(&journals);
            }
            self.reached.note_times("it takes more than one round to bring all home", u64::from(round == 1));
            self.bring_home(&journals, round);
        }
        self.fail("what is owed does not come home");
    }

    /// Whoever finds debts to the other address takes its own over all the same, so that the other one finds none.
    fn bring_home(&mut self, journals: &[Journal], round: usize) {
        let homes = Address::ALL.map(|address| self.home_of(address, journals, round));
        let mut begun = Vec::new();
        for (address, home) in Address::ALL.into_iter().zip(homes) {
            self.files.set_cut(address, false);
            // Contents are at one address at a time.
            let is_both = self.files.is_in_place() && homes[0].is_some() && homes[0] == homes[1];
            if is_both && round % 2 != address as usize {
                continue;
            }
            if let Some(home) = home {
                self.files.place(address, home);
            }
            begun.push(address);
        }
        let begun: Vec<usize> = begun.into_iter().filter_map(|address| self.start(address)).collect();
        for slot in begun {
            let patience = if self.murky { 1000 } else { 0 };
            let state = self.process(slot).settle(patience);
            let is_degraded = state.is_some_and(|state| state.is_degraded());
            let last_resort = self.murky && is_degraded && round + 2 >= ROUNDS;
            if last_resort {
                self.accept(slot);
            } else if !is_degraded {
                self.process(slot).settle(SOON);
            }
            self.disconnect(slot);
        }
    }

    /// The database that an address led to when something was journaled there, as the journals say; else the known one.
    fn home_of(&self, address: Address, journals: &[Journal], round: usize) -> Option<Number> {
        let homes: Vec<Number> = self.homes[address as usize].iter().copied().collect();
        let owing = journals.iter().find(|journal| journal.operations > 0 && journal.address == Some(address));
        let owed = owing.and_then(|journal| journal.identity.as_ref());
        let told = owed.and_then(|(id, _)| {
            homes.iter().rev().find(|home| self.files.contents(**home).identity.as_ref() == Some(id))
        });
        match told {
            Some(told) if round < 4 => Some(*told),
            // The word of an acceptance may stand beside a journal.
            _ if homes.is_empty() => None,
            _ => Some(homes[(homes.len() - 1 + round) % homes.len()]),
        }
    }

    fn check_healed(&mut self, journals: &[Journal]) {
        let aside: u64 = journals.iter().map(|journal| journal.parked).sum();
        if aside > 0 {
            self.fail(&format!("{aside} operations were put aside"));
        }
        let unsettled: BTreeSet<Address> = self
            .history
            .writes
            .iter()
            .filter(|write| write.meant.is_empty())
            .filter_map(|write| write.follows)
            .collect();
        if !unsettled.is_empty() {
            self.fail(&format!("nothing is owed, and what was written at {unsettled:?} is nowhere"));
        }
    }
}

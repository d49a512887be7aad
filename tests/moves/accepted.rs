//! An operator, or the application, says that the database that answers is right.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::files::Number;
use crate::folder::Journal;
use crate::line::{Command, Reply};
use crate::lives::SOON;
use crate::schedule::Schedule;

/// How often it is looked whether a process has heard, in milliseconds.
const EVERY: u64 = 20;

impl Schedule {
    /// By a process that lives, or by one that is started for it, as `agent-storage reconcile --accept` is.
    pub(crate) fn accept_somewhere(&mut self) {
        let fenced = self.living().into_iter().filter(|slot| self.is_fenced(*slot)).collect::<Vec<_>>();
        // Nobody accepts what nobody asked about.
        if fenced.is_empty() {
            return;
        }
        let fenced = fenced[self.choose(fenced.len())];
        let address = self.process(fenced).address;
        if self.files.is_cut(address) {
            return;
        }
        if self.draw(2) == 0 {
            return self.accept(fenced);
        }
        if let Some(operator) = self.start(address) {
            self.accept(operator);
            self.reached.note("an operator accepts");
            self.disconnect(operator);
        }
    }

    fn is_fenced(&mut self, slot: usize) -> bool {
        self.process(slot).settle(0).is_some_and(|state| state.fenced)
    }

    /// Has a process accept the database at its address.
    pub(crate) fn accept(&mut self, slot: usize) {
        let (number, address) = (self.process(slot).number, self.process(slot).address);
        let there = self.files.at(address);
        let owed: Vec<_> = self.journals().iter().flat_map(Journal::owed).collect();
        self.trace(format!("process {number} accepts database {there} at {address:?}"));
        match self.process(slot).ask(&Command::Accept) {
            Some(Reply::Accepted { taken_over, told }) => {
                self.trace(format!("  {taken_over} are taken over, {told} are told"));
                self.reached.note("a database is accepted");
                self.reached.note_times("what is owed elsewhere is accepted with it", u64::from(taken_over > 0));
                let others = self.living().len() - 1;
                if told != others {
                    self.fail(&format!("{told} processes are told, and {others} live"));
                }
                self.history.accept(&owed, there);
                self.note_accepted(slot, there);
                self.check_accepted(slot);
            }
            // A file that was replaced while it was open needs a new start.
            Some(Reply::Failed(why)) if !self.finds(slot, there) => self.trace(format!("  {why}")),
            reply => self.fail(&format!("what answers is not accepted: {reply:?}")),
        }
    }

    fn note_accepted(&mut self, slot: usize, accepted: Number) {
        let address = self.process(slot).address;
        let only = BTreeSet::from([accepted]);
        self.homes[address as usize].clone_from(&only);
        self.accepted.insert(accepted);
        // What was known before counts no more.
        self.backup = None;
        self.history.settle_followers(address, &only);
        if !self.homes[address.other() as usize].is_empty() {
            self.homes[address.other() as usize].insert(accepted);
        }
        for living in self.living() {
            let process = self.process(living);
            if living == slot {
                process.known.clone_from(&only);
            } else {
                process.maybe.insert(accepted);
            }
            // Others look again only now and then whether what they wait for is settled.
            process.is_moved &= process.address != address;
        }
        self.note_murky();
    }

    /// What was accepted is used from now on, by all that were fenced off from it.
    fn check_accepted(&mut self, slot: usize) {
        let address = self.process(slot).address;
        let there = self.files.at(address);
        self.must_be_normal(slot);
        let only = BTreeSet::from([there]);
        for other in self.living() {
            // One that holds another file open needs a new start.
            if other != slot && self.process(other).address == address && self.finds(other, there) && !self.murky {
                self.must_hear(other, there);
                self.process(other).known.clone_from(&only);
                self.reached.note("a living process hears what was accepted");
            }
        }
        let left = self.journals().into_iter().find(|journal| !journal.is_owned && journal.operations > 0);
        if let Some(left) = left {
            self.fail(&format!("what a dead process owed was not taken over with the acceptance: {left:?}"));
        }
    }

    /// It may not have noticed yet that another database is there.
    fn must_hear(&mut self, slot: usize, accepted: Number) {
        let (number, id) = (self.process(slot).number, self.files.contents(accepted).identity);
        let mut state = None;
        for _ in 0..SOON / EVERY {
            state = self.process(slot).settle(EVERY);
            if state.as_ref().is_some_and(|state| state.is_normal() && state.known == id) {
                return;
            }
            std::thread::sleep(Duration::from_millis(EVERY));
        }
        self.fail(&format!("process {number} does not hear what was accepted: {state:?}"));
    }
}

//! Databases move, are copied and restored, and the folder of the journals moves.

use std::collections::BTreeSet;

use crate::files::{Address, Number};
use crate::folder;
use crate::process::Process;
use crate::schedule::Schedule;

impl Schedule {
    /// Something happens to the databases.
    pub(crate) fn move_something(&mut self) {
        let address = self.draw_address();
        match self.draw(20) {
            0..5 => self.cut(address),
            5..9 => self.bring_back(address),
            9..12 => self.copy(address),
            12..15 => self.restore_some(address),
            15..17 => self.swap(),
            17..18 => self.place_copy_of_its_own(address),
            _ => self.place_empty(address),
        }
        self.note_met();
    }

    fn cut(&mut self, address: Address) {
        let is_cut = self.files.is_cut(address);
        self.trace(format!("{address:?} is cut off: {}", !is_cut));
        self.files.set_cut(address, !is_cut);
        self.reached.note(if is_cut { "a database can be reached again" } else { "a database is cut off" });
    }

    /// A process that knows no database yet takes the first one that it meets for its own, whether it is called or not.
    pub(crate) fn note_met(&mut self) {
        for address in Address::ALL {
            let Some(place) = self.files.answering(address) else { continue };
            let mut processes = self.processes.iter_mut().flatten();
            let is_open = |process: &&mut Process| process.address == address && process.known.is_empty();
            if processes.by_ref().filter(is_open).map(|process| process.maybe.insert(place)).count() > 0 {
                self.homes[address as usize].insert(place);
                self.history.note_met(address, place);
            }
        }
    }

    /// The database that is known at an address is there again.
    pub(crate) fn bring_back(&mut self, address: Address) {
        if let Some(home) = self.homes[address as usize].last().copied()
            && self.may_be_placed(address, home)
        {
            let was_away = self.files.answering(address) != Some(home);
            self.trace(format!("database {home} is brought back to {address:?}"));
            self.files.place(address, home);
            self.files.set_cut(address, false);
            self.reached.note_times("a database is brought back", u64::from(was_away));
        }
    }

    pub(crate) fn copy(&mut self, address: Address) {
        let original = self.files.at(address);
        if self.files.contents(original).identity.is_some() {
            let copy = self.files.copy(original);
            self.copies.push(copy);
            self.trace(format!("database {original} is copied as {copy}"));
            self.reached.note("a database is copied");
        }
    }

    fn restore_some(&mut self, address: Address) {
        if !self.copies.is_empty() {
            let drawn = self.choose(self.copies.len());
            self.restore(address, self.copies[drawn]);
        }
    }

    /// A backup is put in the place of the database.
    pub(crate) fn restore(&mut self, address: Address, copy: Number) {
        if self.may_be_placed(address, copy) {
            self.trace(format!("copy {copy} is restored at {address:?}"));
            self.files.place(address, copy);
            self.reached.note("a copy is restored");
        }
    }

    fn swap(&mut self) {
        let [a, b] = Address::ALL.map(|address| self.files.at(address));
        if a != b && self.may_be_placed(Address::A, b) && self.may_be_placed(Address::B, a) {
            self.trace(format!("databases {a} and {b} are swapped"));
            self.files.place(Address::A, b);
            self.files.place(Address::B, a);
            self.reached.note("two databases are swapped");
        }
    }

    /// As a copy of the production database is made for tests.
    pub(crate) fn place_copy_of_its_own(&mut self, address: Address) {
        let original = self.files.at(address);
        if self.files.contents(original).identity.is_some() {
            let copy = self.files.copy(original);
            self.files.renew_identity(copy);
            self.trace(format!("copy {copy} of database {original} with an identity of its own is at {address:?}"));
            self.files.place(address, copy);
            self.reached.note("a copy of its own is at an address");
        }
    }

    pub(crate) fn place_empty(&mut self, address: Address) {
        let empty = self.files.make_empty();
        self.trace(format!("empty database {empty} is at {address:?}"));
        self.files.place(address, empty);
        self.reached.note("a database is replaced by an empty one");
    }

    /// As to another disk, while the application stands still; or the folder is put back as it was, once all that it holds came home.
    pub(crate) fn move_folder(&mut self) {
        if !self.living().is_empty() || !self.folder.exists() {
            return;
        }
        let fresh = self.files.root().join(format!("journal-{}", self.folders));
        self.folders += 1;
        match self.backup.take().filter(|_| self.is_all_settled()) {
            Some(backup) => {
                self.trace("the folder of the journals is put back as it was".to_owned());
                self.folder = folder::copy(&backup, &fresh);
                self.reached.note("the folder of the journals is put back");
            }
            None => {
                self.trace("the folder of the journals moves".to_owned());
                let moved = folder::copy(&self.folder, &fresh);
                self.backup = Some(std::mem::replace(&mut self.folder, moved));
                self.reached.note("the folder of the journals moves");
            }
        }
    }

    /// Whether nothing waits in the folder.
    fn is_all_settled(&self) -> bool {
        self.journals().iter().all(|journal| journal.operations == 0)
    }

    /// One that can tell, and for which nothing speaks against it, is in its normal state.
    pub(crate) fn look(&mut self) {
        self.note_met();
        let Some(slot) = self.draw_slot().filter(|_| self.murky || self.draw(3) == 0) else { return };
        let process = self.process(slot);
        let (address, is_moved, known) = (process.address, process.is_moved, process.known.clone());
        let there: BTreeSet<Number> = self.files.answering(address).into_iter().collect();
        let is_right = known == there && there.into_iter().all(|there| self.finds(slot, there));
        if is_right && !known.is_empty() && !is_moved && !self.murky {
            self.must_be_normal(slot);
        }
    }
}

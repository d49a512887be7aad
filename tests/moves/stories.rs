//! Orders of events that chance alone meets too seldom. What they meet is a matter of chance all the same.

use crate::files::Address;
use crate::schedule::Schedule;

impl Schedule {
    pub(crate) fn follow_a_story(&mut self) {
        let address = self.draw_address();
        match self.draw(4) {
            0 => self.restore_an_older_state(address),
            1 => self.start_two_beside_the_wrong_one(address),
            2 => self.change_the_address(address),
            _ => self.restart_all(address),
        }
    }

    /// A backup that is older than what is known for certain.
    fn restore_an_older_state(&mut self, address: Address) {
        self.bring_back(address);
        self.copy(address);
        if let Some(slot) = self.start(address) {
            self.call_of(slot);
            self.disconnect(slot);
        }
        if let Some(copy) = self.copies.last().copied() {
            self.restore(address, copy);
        }
        self.start(address);
        self.call_some(false);
    }

    /// Both are fenced off, and hear of an acceptance.
    fn start_two_beside_the_wrong_one(&mut self, address: Address) {
        if self.draw(2) == 0 {
            self.place_empty(address)
        } else {
            self.place_copy_of_its_own(address)
        }
        self.files.set_cut(address, false);
        for _ in 0..2 {
            if let Some(slot) = self.start(address) {
                self.call_of(slot);
            }
        }
        self.accept_somewhere();
    }

    /// What was owed to one address is found by a process at the other one.
    fn change_the_address(&mut self, address: Address) {
        self.trace(format!("{address:?} is cut off"));
        self.files.set_cut(address, true);
        if let Some(slot) = self.start(address) {
            self.call_of(slot);
            self.kill(slot);
        }
        if self.draw(2) == 0 {
            self.bring_back(address);
        }
        if let Some(slot) = self.start(address.other()) {
            self.call_of(slot);
        }
    }

    /// The application is started anew, with one address.
    fn restart_all(&mut self, address: Address) {
        for slot in self.living() {
            if self.draw(2) == 0 { self.kill(slot) } else { self.disconnect(slot) }
        }
        self.move_folder();
        self.start(address);
        self.call_some(false);
    }
}

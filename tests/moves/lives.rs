//! Processes start, end, and are told by an operator which database is right.

use std::collections::BTreeSet;

use crate::files::{Address, Number};
use crate::folder::Journal;
use crate::line::{Command, Reply, State};
use crate::process::Process;
use crate::schedule::Schedule;
use crate::verdict::{Debts, Verdict, is_remembered};

/// How long what the next probe shows may take, in milliseconds, on a machine that does much else.
pub(crate) const SOON: u64 = 10_000;

impl Schedule {
    /// Starts a process at an address, and checks what it makes of the database there. Says where it is.
    pub(crate) fn start(&mut self, address: Address) -> Option<usize> {
        let slot = self.processes.iter().position(Option::is_none)?;
        self.note_met();
        let journals = self.journals();
        let (verdict, debts) = (self.verdict(address, &journals), self.debts(address, &journals));
        self.started += 1;
        let (number, config) = (self.started, self.write_config(address));
        let there = self.files.at(address);
        self.trace(format!("process {number} starts at {address:?}, database {there}: {verdict:?}, debts {debts:?}"));
        self.trace_all(&journals);
        self.reached.note_times("several processes live", u64::from(!self.living().is_empty()));
        self.processes[slot] = Some(Process::start(number, address, &config));
        let state = match self.process(slot).hear() {
            Some(Reply::State(state)) => state,
            reply => self.fail(&format!("process {number} does not start: {reply:?}")),
        };
        self.trace(format!("  it is {state:?}"));
        self.note_inherited(address, &journals, &state);
        self.process(slot).is_moved = debts != Debts::None;
        if is_remembered(address, &journals) || verdict == Verdict::Right {
            self.process(slot).known = self.homes[address as usize].clone();
        } else {
            // Those that live may have been told.
            self.process(slot).maybe = self.accepted.clone();
        }
        if verdict != Verdict::Away {
            self.process(slot).opened = Some(there);
        }
        self.judge_start(slot, verdict, debts, &state);
        Some(slot)
    }

    fn write_config(&self, address: Address) -> std::path::PathBuf {
        let file = self.files.root().join(format!("agent{}.yml", self.started));
        let (path, journal) = (self.files.path(address), &self.folder);
        let text = format!(
            "storage:\n  cache: {{ type: in-memory }}\n  database:\n    type: sqlite\n    path: {path:?}\n    timeout: 5s\n    \
             fallback: [ {{ type: sqlite }} ]\n    journal: {{ path: {journal:?} }}\n    \
             breaker: {{ probeInterval: 50ms }}\n"
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    fn note_inherited(&mut self, address: Address, journals: &[Journal], state: &State) {
        let left = |journal: &&Journal| !journal.is_owned && journal.operations > 0;
        let own = journals.iter().filter(left).filter(|journal| journal.address == Some(address)).count();
        let other = journals.iter().filter(left).count() - own;
        self.reached.note_times("what a dead process owed is taken over", u64::from(own > 0));
        self.reached.note_times("something is owed to both addresses", u64::from(own > 0 && other > 0));
        self.reached.note_times("a process starts fenced", u64::from(state.fenced));
    }

    fn judge_start(&mut self, slot: usize, verdict: Verdict, debts: Debts, state: &State) {
        let (number, address) = (self.process(slot).number, self.process(slot).address);
        let there = BTreeSet::from([self.files.at(address)]);
        let is_wrong = verdict == Verdict::Wrong || debts == Debts::Other;
        if (verdict == Verdict::Away || is_wrong) && !state.is_degraded() {
            self.fail(&format!("process {number} uses a database that it must not use"));
        }
        match (verdict, debts) {
            (Verdict::Away, _) => self.reached.note("a process starts while its database is away"),
            (Verdict::Unclear, _) => self.note_unclear(slot, state),
            (Verdict::Wrong, _) => {
                self.must_be_fenced(slot);
                self.note_wrong(address);
            }
            (_, Debts::Other) => {
                self.must_be_fenced(slot);
                self.reached.note("another database is fenced off at a new address");
                if verdict == Verdict::New && self.knows(slot, address) {
                    self.process(slot).known.clone_from(&there);
                    self.note_home(address, &there);
                }
            }
            (_, Debts::Unclear) => self.note_unclear(slot, state),
            (Verdict::New | Verdict::Right, _) => {
                self.must_be_normal(slot);
                self.use_one_of(slot, &there, "its start was answered");
                self.reached
                    .note_times("the same database is recognised at a new address", u64::from(debts == Debts::Same));
            }
        }
    }

    /// Whether a process says that it knows the database at an address.
    fn knows(&mut self, slot: usize, address: Address) -> bool {
        let there = self.files.contents(self.files.at(address)).identity;
        let known = self.process(slot).settle(0).and_then(|state| state.known);
        known.is_some() && known == there
    }

    fn note_unclear(&mut self, slot: usize, state: &State) {
        let address = self.process(slot).address;
        let there = BTreeSet::from([self.files.at(address)]);
        if state.is_degraded() && state.known.is_none() {
            // It takes none for its own, until somebody decides.
            self.process(slot).maybe.extend(&there);
            return;
        }
        if state.is_degraded() {
            let known = &self.process(slot).known | &there;
            self.process(slot).known = known;
            self.homes[address as usize].extend(&there);
            return;
        }
        // What it takes for its own, it is.
        self.process(slot).known.clone_from(&there);
        self.use_one_of(slot, &there, "its start was answered");
        if state.left == 0 {
            self.homes[address as usize].clear();
        }
        // What was left alone may be owed to the one before.
        self.homes[address as usize].extend(there);
        self.backup = None;
        self.note_murky();
    }

    fn note_wrong(&mut self, address: Address) {
        let home = *self.homes[address as usize].first().unwrap();
        let (home, there) = (self.files.contents(home), self.files.contents(self.files.at(address)));
        let what = match there.identity {
            None => "an empty database is fenced off",
            id if id == home.identity => "an older state is fenced off",
            _ => "another database is fenced off",
        };
        self.reached.note(what);
    }

    /// A database is known at an address from now on, if none was.
    pub(crate) fn note_home(&mut self, address: Address, known: &BTreeSet<Number>) {
        self.history.settle_followers(address, known);
        if self.homes[address as usize].is_empty() {
            self.homes[address as usize].clone_from(known);
            self.note_murky();
        }
    }

    pub(crate) fn must_be_normal(&mut self, slot: usize) {
        let number = self.process(slot).number;
        match self.process(slot).settle(SOON) {
            Some(state) if state.is_normal() => {}
            state => self.fail(&format!("process {number} does not become normal: {state:?}")),
        }
    }

    fn must_be_fenced(&mut self, slot: usize) {
        let number = self.process(slot).number;
        for _ in 0..100 {
            match self.process(slot).settle(0) {
                Some(state) if state.fenced => return,
                Some(state) if state.is_degraded() => std::thread::sleep(std::time::Duration::from_millis(50)),
                state => self.fail(&format!("process {number} uses what it must not use: {state:?}")),
            }
        }
        self.fail(&format!("process {number} does not say that it is fenced"));
    }

    pub(crate) fn kill_one(&mut self) {
        if let Some(slot) = self.draw_slot() {
            self.kill(slot);
        }
    }

    pub(crate) fn kill(&mut self, slot: usize) {
        let number = self.process(slot).number;
        self.trace(format!("process {number} is killed"));
        self.process(slot).kill();
        self.note_killed(slot);
    }

    /// A process was killed.
    pub(crate) fn note_killed(&mut self, slot: usize) {
        self.reached.note("a process is killed");
        self.note_ended(slot);
    }

    fn note_ended(&mut self, slot: usize) {
        let process = self.processes[slot].take().expect("a process that ended");
        self.history.ended.insert(process.number);
    }

    pub(crate) fn disconnect_one(&mut self) {
        if let Some(slot) = self.draw_slot() {
            self.disconnect(slot);
        }
    }

    pub(crate) fn disconnect(&mut self, slot: usize) {
        let number = self.process(slot).number;
        self.trace(format!("process {number} ends in order"));
        let reply = self.process(slot).ask(&Command::Disconnect);
        if !matches!(reply, Some(Reply::Ended)) || !self.process(slot).ended() {
            self.fail(&format!("process {number} does not end in order: {reply:?}"));
        }
        self.reached.note("a process ends in order");
        self.note_ended(slot);
    }
}

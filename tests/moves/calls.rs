//! Calls: what they may be answered, and which database they are meant for.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::files::Number;
use crate::history::{Fate, Meant};
use crate::line::{Action, Answer, Call, Command, Reply};
use crate::reads::{self, Seen};
use crate::schedule::Schedule;
use crate::verdict::Debts;

/// How many values, deleted values, cleared values and lists there are.
const KEYS: u64 = 2;

/// The longest pause before something happens in the middle of calls, in milliseconds.
const PAUSE: u64 = 12;

impl Schedule {
    /// Has a process make some calls; with `disturbed`, something moves or ends in the middle.
    pub(crate) fn call_some(&mut self, disturbed: bool) {
        let Some(slot) = self.draw_slot() else { return };
        let count = 1 + self.choose(if disturbed { 12 } else { 6 });
        let calls: Vec<Call> = (0..count).map(|_| self.draw_call()).collect();
        if disturbed {
            return self.call_disturbed(slot, calls);
        }
        for call in calls {
            self.call(slot, call);
        }
    }

    /// Has a certain process make some calls.
    pub(crate) fn call_of(&mut self, slot: usize) {
        for _ in 0..1 + self.choose(4) {
            let call = self.draw_call();
            self.call(slot, call);
        }
    }

    fn draw_call(&mut self) -> Call {
        let (kind, number) = (self.draw(100), self.draw(KEYS));
        let (action, key) = match kind {
            0..22 => (Action::Set, format!("set{number}")),
            22..34 => (Action::Set, format!("deleted{number}")),
            34..44 => (Action::Delete, format!("deleted{number}")),
            44..62 => (Action::Append, format!("list{number}")),
            62..68 => (Action::Set, format!("cleared{number}")),
            68..71 => (Action::Clear, "cleared".to_owned()),
            71..80 => (Action::Get, format!("set{number}")),
            80..90 => (Action::Get, format!("deleted{number}")),
            90..94 => (Action::Get, format!("cleared{number}")),
            _ => (Action::Range, format!("list{number}")),
        };
        Call { action, key, value: self.history.fresh_value() }
    }

    /// One call while nothing else happens.
    pub(crate) fn call(&mut self, slot: usize, call: Call) {
        let address = self.process(slot).address;
        let place = self.files.answering(address);
        let before = place.map(|place| self.files.contents(place)).unwrap_or_default();
        let reply = self.process(slot).ask(&Command::Call(call.clone()));
        let Some(Reply::Called(answer)) = reply else { self.fail(&format!("{call:?} is answered with {reply:?}")) };
        let name = self.process(slot).number;
        self.trace(format!("  process {name} calls {call:?}: {answer:?}"));
        self.note_answer(slot, call.clone(), &answer, &place.into_iter().collect());
        let process = self.process(slot);
        let (process, known) = (process.number, process.known.clone());
        let after = place.map(|place| self.files.contents(place)).unwrap_or_default();
        let seen = Seen { process, known: &known, before: &before, after: &after };
        if let Some(why) = reads::wrong(&self.history, &call, &answer, &seen) {
            self.fail(&format!("{why}: {call:?} {answer:?}, there was {before:?} and is {after:?}"));
        }
    }

    /// Calls in the middle of which something moves, or their process is killed.
    fn call_disturbed(&mut self, slot: usize, calls: Vec<Call>) {
        let address = self.process(slot).address;
        let mut places: BTreeSet<Number> = self.files.answering(address).into_iter().collect();
        let name = self.process(slot).number;
        self.trace(format!("process {name} begins {calls:?}"));
        for call in &calls {
            self.process(slot).tell(&Command::Call(call.clone()));
        }
        std::thread::sleep(Duration::from_millis(self.random.below(PAUSE)));
        let is_killed = self.draw(3) == 0;
        if is_killed {
            self.process(slot).kill();
        } else {
            self.move_something();
        }
        places.extend(self.files.answering(address));
        let mut unanswered = 0;
        for call in calls {
            match self.process(slot).hear() {
                Some(Reply::Called(answer)) => {
                    self.trace(format!("  {call:?}: {answer:?}"));
                    self.note_answer(slot, call, &answer, &places);
                }
                None if is_killed => {
                    unanswered += 1;
                    self.note_unanswered(slot, call, &places);
                }
                reply => self.fail(&format!("{call:?} is answered with {reply:?}")),
            }
        }
        if is_killed {
            self.reached.note_times("a process is killed in the middle of a call", u64::from(unanswered > 0));
            self.note_killed(slot);
        } else {
            self.reached.note("a database moves in the middle of calls");
        }
    }

    /// Notes a call during which one of these databases answered.
    fn note_answer(&mut self, slot: usize, call: Call, answer: &Answer, places: &BTreeSet<Number>) {
        let is_write = !matches!(call.action, Action::Get | Action::Range);
        match answer {
            Answer::Written { local: false } => {
                let used = self.use_one_of(slot, places, &format!("{call:?} was acknowledged"));
                self.note_write(slot, call, Fate::Primary, Meant { databases: used, follows: None });
            }
            Answer::Written { local: true } => {
                self.reached.note("a write is owed");
                self.reached.note_times("a clear is owed", u64::from(call.action == Action::Clear));
                let meant = self.meant_by(slot);
                self.note_write(slot, call, Fate::Local, meant);
            }
            Answer::Read { pending: false, value } => {
                let what = format!("{call:?} was told {value:?}");
                self.use_one_of(slot, places, &what);
                self.reached.note_times("a read is told missing", u64::from(value.is_none()));
            }
            Answer::Items(_) => _ = self.use_one_of(slot, places, &format!("{call:?} was answered")),
            Answer::Read { pending: true, .. } => self.reached.note("a read sees what is owed"),
            Answer::Failed { kind, .. } if kind == "unavailable" && !is_write => {
                self.reached.note("a read is unavailable");
            }
            // Its outcome is not known, and it is not promised to be.
            Answer::Failed { kind, .. } if kind == "outcome_unknown" && is_write => {
                self.note_unanswered(slot, call, places);
            }
            Answer::Failed { kind, why } => self.fail(&format!("{call:?} fails as {kind}: {why}")),
        }
    }

    fn note_unanswered(&mut self, slot: usize, call: Call, places: &BTreeSet<Number>) {
        if matches!(call.action, Action::Get | Action::Range) {
            return;
        }
        let mut meant = self.meant_by(slot);
        if meant.follows.is_some() {
            meant.databases.extend(places);
        }
        self.note_write(slot, call, Fate::Unknown, meant);
    }

    /// For which database a process means what goes to its journal.
    fn meant_by(&mut self, slot: usize) -> Meant {
        let process = self.process(slot);
        let follows = process.known.is_empty().then_some(process.address);
        Meant { databases: &process.known | &process.maybe, follows }
    }

    fn note_write(&mut self, slot: usize, call: Call, fate: Fate, meant: Meant) {
        let number = self.process(slot).number;
        self.history.note(number, call, fate, meant);
    }

    /// Whether a process finds a database if that is at its address: not where it holds another file open.
    pub(crate) fn finds(&mut self, slot: usize, database: Number) -> bool {
        self.files.is_in_place() || self.process(slot).opened == Some(database)
    }

    /// One of these databases answered a process: it must be one that it may take for its own. Says which it may have been.
    pub(crate) fn use_one_of(&mut self, slot: usize, places: &BTreeSet<Number>, what: &str) -> BTreeSet<Number> {
        let process = self.process(slot);
        let (address, is_moved, known) = (process.address, process.is_moved, process.known.clone());
        let is_known = !known.is_empty();
        let known = &known | &process.maybe;
        let used = if is_known && !self.murky { &known & places } else { places.clone() };
        if used.is_empty() {
            self.fail(&format!("{what} by one of {places:?}, and only {known:?} may be used"));
        }
        if is_moved && !self.murky {
            let journals = self.journals();
            if self.debts(address, &journals) == Debts::Other {
                self.fail(&format!("{what} by a database though something is owed to another one"));
            }
            self.process(slot).is_moved = false;
        }
        let process = self.process(slot);
        process.known.clone_from(&used);
        if used.len() == 1 {
            process.opened = used.first().copied();
        }
        if !is_known {
            // Nobody had told it, so nobody may have known.
            self.homes[address as usize].extend(&used);
        }
        self.note_home(address, &used);
        used
    }
}

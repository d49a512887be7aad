//! A schedule: processes start, call and die while databases move, everything is brought back, and what is there is checked.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::check;
use crate::contents::Contents;
use crate::files::{Address, Files, Number};
use crate::folder::{self, Journal};
use crate::history::History;
use crate::process::Process;
use crate::random::Random;
use crate::support::schedules::Reached;

/// How many processes live at a time.
pub(crate) const SLOTS: usize = 3;

/// The processes of a schedule, the databases, and what is known of both.
pub(crate) struct Schedule {
    pub(crate) random: Random,
    // They end before what they use goes.
    pub(crate) processes: [Option<Process>; SLOTS],
    pub(crate) files: Files,
    /// The folder of the journals, and how many there were.
    pub(crate) folder: PathBuf,
    pub(crate) folders: usize,
    /// A copy of the folder, and whether all that it holds has come home.
    pub(crate) backup: Option<PathBuf>,
    pub(crate) started: usize,
    pub(crate) history: History,
    /// The databases that may be the known one at each address.
    pub(crate) homes: [BTreeSet<Number>; 2],
    /// The databases that somebody has accepted.
    pub(crate) accepted: BTreeSet<Number>,
    /// Copies that may be restored.
    pub(crate) copies: Vec<Number>,
    /// Whether nobody can say any more which copy is older than what is known.
    pub(crate) murky: bool,
    pub(crate) reached: Reached,
    traced: Vec<String>,
}

impl Schedule {
    /// Runs one.
    ///
    /// # Panics
    ///
    /// With all that was done, if something is not as promised.
    pub(crate) fn run(seed: u64) -> Reached {
        let mut schedule = Self::prepare(seed);
        schedule.begin();
        for _ in 0..16 + schedule.random.below(24) {
            schedule.step();
        }
        schedule.heal();
        schedule.allow_twins();
        let violations = check::violations(&schedule.history, &schedule.files, &mut schedule.reached);
        if !violations.is_empty() {
            schedule.fail(&violations.join("\n"));
        }
        std::mem::take(&mut schedule.reached)
    }

    fn prepare(seed: u64) -> Self {
        // Every other schedule changes the contents of files.
        let files = Files::new(seed % 2 == 1);
        let folder = files.root().join("journal-0");
        Self {
            random: Random::seeded(seed),
            files,
            folder,
            folders: 1,
            backup: None,
            processes: Default::default(),
            started: 0,
            history: History::default(),
            homes: Default::default(),
            accepted: BTreeSet::new(),
            copies: Vec::new(),
            murky: false,
            reached: Reached::default(),
            traced: Vec::new(),
        }
    }

    /// As an application is started: its database is there.
    fn begin(&mut self) {
        if self.files.is_in_place() {
            self.make_databases();
        } else if self.draw(3) == 0 {
            // Both addresses lead to the same database.
            let database = self.files.at(Address::A);
            self.files.place(Address::B, database);
            self.trace("both addresses lead to database 0".to_owned());
        }
        self.start(Address::A);
        self.call_some(false);
    }

    /// By processes that leave nothing behind: contents can change only where there are some.
    fn make_databases(&mut self) {
        let folder = self.files.root().join("journal-before");
        let folder = std::mem::replace(&mut self.folder, folder);
        for address in Address::ALL {
            let slot = self.start(address).expect("nothing runs yet");
            self.disconnect(slot);
        }
        self.folder = folder;
        self.homes = Default::default();
    }

    fn step(&mut self) {
        match self.draw(100) {
            0..32 => self.call_some(false),
            32..44 => self.call_some(true),
            44..56 => {
                let address = self.draw_address();
                self.start(address);
            }
            56..63 => self.kill_one(),
            63..67 => self.disconnect_one(),
            67..72 => self.accept_somewhere(),
            72..76 => self.move_folder(),
            76..94 => self.move_something(),
            _ => self.follow_a_story(),
        }
        self.look();
    }

    pub(crate) fn draw(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// One of so many.
    pub(crate) fn choose(&mut self, count: usize) -> usize {
        usize::try_from(self.draw(count as u64)).unwrap()
    }

    pub(crate) fn draw_address(&mut self) -> Address {
        if self.draw(3) == 0 { Address::B } else { Address::A }
    }

    /// A living process.
    pub(crate) fn draw_slot(&mut self) -> Option<usize> {
        let living = self.living();
        (!living.is_empty()).then(|| living[self.choose(living.len())])
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..SLOTS).filter(|slot| self.processes[*slot].is_some()).collect()
    }

    pub(crate) fn process(&mut self, slot: usize) -> &mut Process {
        self.processes[slot].as_mut().expect("a living process")
    }

    /// The journals of the folder. Whoever looks whether an owner lives holds the lock itself for a moment.
    pub(crate) fn journals(&self) -> Vec<Journal> {
        let living = self.processes.iter().flatten().count();
        let mut journals = folder::journals(&self.files, &self.folder);
        for _ in 0..100 {
            if journals.iter().filter(|journal| journal.is_owned).count() <= living {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            journals = folder::journals(&self.files, &self.folder);
        }
        journals
    }

    /// Remembers what was done, for whoever reads of a failure.
    pub(crate) fn trace(&mut self, what: String) {
        self.traced.push(what);
    }

    /// Remembers how the databases and the journals are.
    pub(crate) fn trace_all(&mut self, journals: &[Journal]) {
        let begin = |id: &str| id.chars().take(6).collect::<String>();
        let databases = (0..self.files.count()).map(|database| {
            let Contents { identity, canary, .. } = self.files.contents(database);
            identity.map_or(format!(" {database} empty"), |id| format!(" {database} is {} at {canary}", begin(&id)))
        });
        let journals = journals.iter().map(|journal| {
            let Journal { address, is_owned, operations, identity, .. } = journal;
            let known = identity.as_ref().map(|(id, canary)| format!("{} at {canary}", begin(id)));
            format!(" {address:?} owned {is_owned} holds {operations} knows {known:?}")
        });
        let (databases, journals): (Vec<_>, Vec<_>) = (databases.collect(), journals.collect());
        self.trace(format!("  databases:{}; journals:{}", databases.join(","), journals.join(",")));
    }

    pub(crate) fn fail(&self, why: &str) -> ! {
        let journals: Vec<String> = self.journals().iter().map(|journal| format!("{journal:?}")).collect();
        panic!("{}\n{}\n=> {why}", self.traced.join("\n"), journals.join("\n"))
    }
}

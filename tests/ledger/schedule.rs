//! A schedule: writers start, faults come and go, everything heals, and what is there is checked.

use std::io::Write as _;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agent_storage::chain::{ChainState, JournalFile};
use agent_storage::{Database, ErrorKind, Result, StorageManager};
use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::caller::BRIEF;
use crate::check;
use crate::history::{History, Life};
use crate::nemesis::Nemesis;
use crate::outcome::Outcome;
use crate::random::Random;
use crate::reached::wanted;
use crate::support::process::wait_until;
use crate::support::schedules::{self, Reached};
use crate::support::{Postgres, PostgresOptions};
use crate::writer::{Orders, now};
use crate::writers::Writer;

/// By how many milliseconds the clocks of the writers are ahead.
const CLOCKS: [u64; 3] = [0, 10_000, 0];

/// How long everything that is owed may take to be brought home once all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// The most violations that are printed of a schedule.
const MOST_PRINTED: usize = 10;

/// Runs the schedules of these seeds, as [`schedules::run_all`] says; each lane on a server of its own.
pub(crate) async fn run_all(seeds: Range<u64>, all: bool) {
    schedules::run_all(seeds, all, &wanted(), |next, end| tokio::spawn(lane(next, end))).await;
}

/// Runs schedules one after the other, until none is left. One that fails does not keep the others from running.
async fn lane(next: Arc<AtomicU64>, end: u64) -> (Reached, Vec<String>) {
    let (mut reached, mut failures, mut server) = (Reached::default(), Vec::new(), None);
    loop {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        if seed >= end {
            return (reached, failures);
        }
        let running = server.get_or_insert_with(|| block_in_place(|| Postgres::start(PostgresOptions::default())));
        match AssertUnwindSafe(Schedule::run(running, seed)).catch_unwind().await {
            Ok(met) => reached.join(met),
            Err(panic) => {
                let why = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
                let failure = format!("LEDGER_SEED={seed}: {why}");
                // Told at once, should the whole not come to its end.
                std::io::stderr().write_all(format!("{failure}\n").as_bytes()).unwrap();
                failures.push(failure);
                // Who knows how it was left.
                server = None;
            }
        }
    }
}

/// The writers of a schedule, and where they write.
struct Schedule<'a> {
    seed: u64,
    server: &'a Postgres,
    database: String,
    /// Of the lines to the server.
    ports: Vec<u16>,
    folder: TempDir,
    writers: [Option<Writer>; CLOCKS.len()],
    lives: Vec<Life>,
    processes: i64,
    random: Random,
    reached: Reached,
    /// When nothing stood between the writers and the database, in milliseconds; and since when nothing does.
    healthy: Vec<Range<u64>>,
    healed: Option<u64>,
}

impl<'a> Schedule<'a> {
    async fn run(server: &'a Postgres, seed: u64) -> Reached {
        let mut schedule = Self::prepare(server, seed);
        // One line for all, or a line for each.
        let lines = if schedule.random.below(2) == 0 { CLOCKS.len() } else { 1 };
        let mut nemesis = Nemesis::new(server, schedule.database.clone(), lines).await;
        schedule.ports = nemesis.ports();
        schedule.reached.note_times("processes are cut off apart", u64::from(schedule.is_apart()));
        schedule.begin().await;
        for number in 0..2 + schedule.random.below(3) {
            // Schedules that follow each other meet every fault.
            let fault = if number == 0 { seed } else { schedule.random.below(u64::MAX) };
            schedule.trouble(&mut nemesis, fault).await;
        }
        schedule.end(&mut nemesis).await;
        schedule.reconcile().await;
        schedule.judge()
    }

    fn prepare(server: &'a Postgres, seed: u64) -> Self {
        Self {
            seed,
            server,
            database: block_in_place(|| server.create_database()),
            ports: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            writers: Default::default(),
            lives: Vec::new(),
            processes: 0,
            random: Random::seeded(seed),
            reached: Reached::default(),
            healthy: Vec::new(),
            healed: Some(now()),
        }
    }

    fn is_apart(&self) -> bool {
        self.ports.len() > 1
    }

    /// The configuration of a writer, with no word of a fallback: it is the default.
    fn config(&self, slot: usize) -> String {
        let (port, journal) =
            (self.ports[slot % self.ports.len()], self.folder.path().join("journal").display().to_string());
        let (user, password, name) = (self.server.user(), self.server.password(), &self.database);
        format!(
            "storage:\n  cache: {{ type: in-memory }}\n  database:\n    type: postgres\n    host: 127.0.0.1\n    \
             port: {port}\n    database: {name}\n    username: {user}\n    password: {password}\n    timeout: 1500ms\n    \
             applicationName: writer {slot}\n    journal: {{ path: {journal:?} }}\n    \
             breaker: {{ probeInterval: 100ms, slowCall: 300ms }}\n"
        )
    }

    fn start_writer(&mut self, slot: usize) {
        let file = self.folder.path().join(format!("agent{slot}.yml"));
        std::fs::write(&file, self.config(slot)).unwrap();
        self.processes += 1;
        let (process, ahead) = (self.processes, CLOCKS[slot]);
        let orders = Orders { process, seed: self.seed, ahead, config: file.display().to_string() };
        self.writers[slot] = Some(Writer::start(&orders));
    }

    fn start_missing(&mut self) {
        for slot in 0..self.writers.len() {
            if self.writers[slot].is_none() {
                self.start_writer(slot);
            }
        }
    }

    fn kill_writer(&mut self) {
        let slot = self.random_slot();
        if let Some(writer) = self.writers[slot].take() {
            self.lives.push(block_in_place(|| writer.kill()));
        }
    }

    fn random_slot(&mut self) -> usize {
        usize::try_from(self.random.below(CLOCKS.len() as u64)).unwrap()
    }

    async fn pause(&mut self, least: u64, most: u64) {
        sleep(Duration::from_millis(least + self.random.below(most - least))).await;
    }

    async fn begin(&mut self) {
        self.start_missing();
        // As an application is started: while the database is there, if that machine is not too busy.
        for writer in self.writers.iter().flatten() {
            block_in_place(|| wait_until(|| writer.was_normal()));
        }
        self.pause(300, 700).await;
    }

    /// A fault, in the middle or after which a writer may die; one that died comes back before the fault is over, or after.
    async fn trouble(&mut self, nemesis: &mut Nemesis<'_>, fault: u64) {
        self.end_of_health();
        nemesis.strike(fault, &mut self.random, &mut self.reached).await;
        self.pause(100, 700).await;
        if self.random.below(2) == 0 {
            self.kill_writer();
        }
        // A process that finds debts to another address waits until it knows that it is the same database, and looks seldom.
        if !self.is_apart() && self.random.below(2) == 0 {
            self.start_missing();
            self.pause(100, 700).await;
        }
        let suspended = (self.random.below(3) == 0).then(|| self.random_slot());
        let suspended = suspended.and_then(|slot| self.writers[slot].take().map(|writer| (slot, writer)));
        if let Some((_, writer)) = &suspended {
            block_in_place(|| writer.freeze());
            self.reached.note("a writer is suspended");
        }
        nemesis.heal(&mut self.reached).await;
        self.healed = Some(now());
        self.pause(50, 400).await;
        if let Some((slot, writer)) = suspended {
            self.pause(100, 2000).await;
            writer.thaw();
            self.writers[slot] = Some(writer);
        }
        if self.random.below(4) == 0 {
            self.kill_writer();
            self.pause(1, 200).await;
        }
        self.start_missing();
        self.pause(100, 500).await;
    }

    /// The writers end: most in order, some as in a crash.
    async fn end(&mut self, nemesis: &mut Nemesis<'_>) {
        self.pause(200, 500).await;
        if self.random.below(2) == 0 {
            self.kill_writer();
        }
        self.writers.iter_mut().flatten().for_each(Writer::tell_to_finish);
        self.end_of_health();
        for slot in 0..self.writers.len() {
            if let Some(writer) = self.writers[slot].take() {
                self.lives.push(block_in_place(|| writer.finished()));
            }
        }
        nemesis.let_go().await;
        // What was sent and given up comes to its end, and so does what is brief.
        sleep(Duration::from_millis(BRIEF)).await;
        block_in_place(|| self.until_idle());
    }

    fn end_of_health(&mut self) {
        self.healthy.extend(self.healed.take().map(|healed| healed..now()));
    }

    fn until_idle(&self) {
        let busy = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND state <> 'idle' AND pid <> pg_backend_pid()",
            self.database
        );
        assert!(wait_until(|| self.server.query("postgres", &busy) == "0"), "a statement never ends");
    }

    /// Takes over what was left, and brings it home.
    async fn reconcile(&mut self) {
        // Whoever never saw the database cannot say that it is the same one, and what it left waits for its own address.
        for line in (0..self.ports.len()).cycle().take(2 * self.ports.len()) {
            if self.reconcile_over(line).await {
                break;
            }
        }
        for journal in JournalFile::list(self.folder.path().join("journal")).await.unwrap() {
            let contents = journal.contents.as_ref().expect("a journal that can be read");
            assert_eq!((contents.pending, contents.parked), (0, 0), "{journal:?}");
        }
    }

    /// Says whether nothing was left alone.
    async fn reconcile_over(&mut self, line: usize) -> bool {
        let manager = StorageManager::from_yaml(&self.config(line)).unwrap();
        let database = manager.database().await.unwrap();
        let owed = manager.database_chain().expect("a chain by default").pending;
        self.reached.note_times("what a dead process owed is taken over", u64::from(owed > 0));
        // Fenced at first, it may see soon that it is the same database.
        let mut patience = PATIENCE;
        while !is_settled(&manager) && !patience.is_zero() {
            sleep(GLANCE).await;
            let spent = if manager.database_chain().unwrap().fenced { GLANCE * 8 } else { GLANCE };
            patience = patience.saturating_sub(spent);
        }
        let settled = is_settled(&manager);
        let status = manager.database_chain().unwrap();
        assert!(settled || status.fenced, "what is owed does not come home: {status:?}");
        assert_eq!(status.parked, 0, "{status:?}");
        if settled {
            self.compare(&database).await;
        }
        manager.disconnect().await.unwrap();
        self.reached.note_times("an address must be named again", u64::from(!settled));
        settled
    }

    /// What the library answers is what stands in the tables.
    async fn compare(&self, database: &Database) {
        let outcome = block_in_place(|| Outcome::read(self.server, &self.database));
        for (key, row) in &outcome.values {
            let read = patiently(|| database.get_json::<i64>(key.as_str())).await;
            assert_eq!(read, row.value, "{key}");
        }
        for (key, items) in &outcome.items {
            let read = patiently(|| database.range_json::<i64>(key.as_str(), 0, -1)).await;
            let items: Vec<i64> = items.iter().map(|item| item.value).collect();
            assert_eq!(read, items, "{key}");
        }
        let conflicts = patiently(|| database.conflicts().collect()).await;
        assert_eq!(conflicts.len(), outcome.conflicts.len());
    }

    fn judge(mut self) -> Reached {
        let outcome = block_in_place(|| Outcome::read(self.server, &self.database));
        let history = History::of(std::mem::take(&mut self.lives), self.is_apart(), std::mem::take(&mut self.healthy));
        let violations = check::violations(&history, &outcome);
        let count = violations.len();
        let shown = violations.into_iter().take(MOST_PRINTED).collect::<Vec<_>>().join("\n\n");
        assert!(count == 0, "{count} violations\n{shown}");
        self.reached.note_history(&history, &outcome);
        self.reached
    }
}

/// Asks until there is an answer: a machine that does much else may be too slow for a while.
async fn patiently<T, F: Future<Output = Result<T>>>(mut ask: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < end => sleep(GLANCE).await,
            answer => return answer.unwrap(),
        }
    }
}

fn is_settled(manager: &StorageManager) -> bool {
    manager.database_chain().is_some_and(|status| status.state == ChainState::Normal && status.pending == 0)
}

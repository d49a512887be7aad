//! What is done to the server, to the lines that lead there, and to the writers.

use std::net::SocketAddr;
use std::time::Duration;

use agent_storage::testkit::{Direction, NetworkFault, Point};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::random::Random;
use crate::road::Road;
use crate::support::Postgres;
use crate::support::schedules::Reached;

/// A fault, and on which lines it is, where it is on lines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    KillServer,
    FreezeServer,
    /// The server's processes of one writer, while its new connections are served.
    FreezeSessions,
    Refuse,
    Reset,
    Swallow,
    Stall,
    /// Replies are cut off, one after the other.
    CutReplies,
    /// Connections fall silent until the end of the schedule, while new ones are served.
    StaySilent,
    /// As before, and what they carry arrives in the end.
    ArriveLast,
    /// Each way takes long.
    Slow,
    /// The server ends the sessions of one writer.
    Terminate,
    /// Somebody holds all tables for a while.
    Lock,
    /// The server takes no writes.
    ReadOnly,
    /// The line is cut, and when it is there again the acknowledgement of the first transaction is lost: most likely a replay's.
    CutCommit,
}

const FAULTS: [(Fault, &str); 15] = [
    (Fault::KillServer, "the server is killed"),
    (Fault::FreezeServer, "the server is frozen"),
    (Fault::FreezeSessions, "sessions are frozen"),
    (Fault::Refuse, "the line refuses"),
    (Fault::Reset, "the line is reset"),
    (Fault::Swallow, "the line swallows"),
    (Fault::Stall, "the line stalls"),
    (Fault::CutReplies, "replies are cut off"),
    (Fault::StaySilent, "connections stay silent"),
    (Fault::ArriveLast, "what was sent arrives last"),
    (Fault::Slow, "the line is slow"),
    (Fault::Terminate, "sessions are ended"),
    (Fault::Lock, "the tables are locked"),
    (Fault::ReadOnly, "the server takes no writes"),
    (Fault::CutCommit, "a replay's commit is cut off"),
];

/// The names of all faults, which must have been reached.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FAULTS.iter().map(|(_, name)| *name)
}

/// The server and the lines that lead there, and what was done to them last.
pub(crate) struct Nemesis<'a> {
    server: &'a Postgres,
    database: String,
    lines: Vec<Road>,
    frozen: Vec<u32>,
    faulty: Vec<usize>,
    fault: Fault,
}

impl<'a> Nemesis<'a> {
    /// Before a server and its database, with so many lines.
    pub(crate) async fn new(server: &'a Postgres, database: String, lines: usize) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
        let lines = futures_util::future::join_all((0..lines).map(|_| Road::build(address))).await;
        Self { server, database, lines, frozen: Vec::new(), faulty: Vec::new(), fault: Fault::Reset }
    }

    /// The ports of the lines.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.lines.iter().map(|line| line.front.address().port()).collect()
    }

    /// Begins a fault by its number.
    pub(crate) async fn strike(&mut self, number: u64, random: &mut Random, reached: &mut Reached) {
        let (fault, name) = FAULTS[usize::try_from(number % FAULTS.len() as u64).unwrap()];
        self.fault = fault;
        self.faulty = self.draw_lines(random);
        match fault {
            Fault::KillServer => block_in_place(|| self.server.kill()),
            Fault::FreezeServer => block_in_place(|| self.server.freeze()),
            Fault::FreezeSessions => {
                let slot = random.below(3);
                block_in_place(|| self.freeze_sessions(slot));
                if self.frozen.is_empty() {
                    return;
                }
            }
            Fault::Refuse | Fault::CutCommit => {
                self.on_lines(NetworkFault::Refuse).await;
                self.reset().await;
            }
            Fault::Reset => self.reset().await,
            Fault::Swallow => self.on_lines(NetworkFault::BlackHole).await,
            Fault::Stall => self.on_lines(NetworkFault::Stall).await,
            Fault::CutReplies => return self.cut_replies(random, reached).await,
            Fault::StaySilent => self.block(NetworkFault::BlackHole).await,
            Fault::ArriveLast => self.block(NetworkFault::Stall).await,
            Fault::Slow => {
                let delay = Duration::from_millis(20 + random.below(250));
                self.on_lines(NetworkFault::Latency(delay)).await;
            }
            Fault::Terminate => {
                let slot = random.below(3);
                let ended = self.sql(&format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'writer {slot}'"
                ));
                if ended.is_empty() {
                    return;
                }
            }
            Fault::Lock => {
                // A session that was left behind may hold a row.
                if !self.lock_tables(Duration::from_millis(200 + random.below(1500))) {
                    return;
                }
            }
            Fault::ReadOnly => self.take_no_writes(true),
        }
        if !matches!(fault, Fault::CutCommit) {
            reached.note(name);
        }
    }

    /// Has everything be as it should be again.
    pub(crate) async fn heal(&mut self, reached: &mut Reached) {
        match self.fault {
            Fault::KillServer => block_in_place(|| self.server.restart()),
            Fault::FreezeServer => block_in_place(|| self.server.thaw()),
            Fault::FreezeSessions => {
                block_in_place(|| self.frozen.drain(..).for_each(|pid| self.server.thaw_backend(pid)))
            }
            Fault::CutCommit => self.cut_commit(reached).await,
            Fault::StaySilent | Fault::ArriveLast => {
                for line in &self.faulty {
                    self.lines[*line].lead_past().await;
                }
            }
            Fault::ReadOnly => self.take_no_writes(false),
            _ => {}
        }
        self.on_lines(NetworkFault::Pass).await;
    }

    /// Lets go what was to stay away until the end.
    pub(crate) async fn let_go(&mut self) {
        for line in &mut self.lines {
            line.let_go().await;
        }
    }

    /// All lines, or one.
    fn draw_lines(&self, random: &mut Random) -> Vec<usize> {
        let count = self.lines.len();
        let one = usize::try_from(random.below(2 * count as u64)).unwrap();
        if one < count { vec![one] } else { (0..count).collect() }
    }

    async fn on_lines(&self, fault: NetworkFault) {
        for line in &self.faulty {
            self.lines[*line].front.set(fault.clone()).await.unwrap();
        }
    }

    async fn block(&self, fault: NetworkFault) {
        for line in &self.faulty {
            self.lines[*line].block(fault.clone()).await;
        }
    }

    async fn reset(&self) {
        for line in &self.faulty {
            self.lines[*line].front.reset().await;
        }
    }

    fn hits(&self) -> u64 {
        self.lines.iter().map(|line| line.front.hits()).sum()
    }

    async fn cut_replies(&self, random: &mut Random, reached: &mut Reached) {
        let before = self.hits();
        for _ in 0..1 + random.below(6) {
            for line in &self.faulty {
                let cut = match random.below(2) {
                    0 => NetworkFault::CutAt(Direction::ToClient, Point::Bytes(0)),
                    _ => NetworkFault::LoseFrom(Direction::ToClient, Point::Bytes(0)),
                };
                self.lines[*line].front.set_once(cut).await.unwrap();
            }
            sleep(Duration::from_millis(20 + random.below(60))).await;
        }
        reached.note_times("replies are cut off", self.hits() - before);
    }

    async fn cut_commit(&self, reached: &mut Reached) {
        let before = self.hits();
        for line in &self.faulty {
            self.lines[*line]
                .front
                .set_once(NetworkFault::CutAt(Direction::ToClient, Point::postgres_commit()))
                .await
                .unwrap();
        }
        for _ in 0..75 {
            if self.hits() > before {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        reached.note_times("a replay's commit is cut off", self.hits() - before);
    }

    fn sql(&self, sql: &str) -> String {
        block_in_place(|| self.server.query(&self.database, sql))
    }

    /// Holds the tables for so long, while this goes on; says whether it got them.
    fn lock_tables(&self, length: Duration) -> bool {
        let sql = format!(
            "SET lock_timeout = '2s'; BEGIN; \
             LOCK TABLE agent_storage.kv, agent_storage.list, agent_storage.item IN ACCESS EXCLUSIVE MODE; \
             SELECT pg_sleep({}); COMMIT",
            length.as_secs_f64()
        );
        block_in_place(|| self.server.try_query(&self.database, &sql)).is_ok()
    }

    /// Has every transaction from now on be one that only reads, or not.
    fn take_no_writes(&self, refused: bool) {
        let only_reads = if refused { "on" } else { "off" };
        self.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {only_reads}"));
        self.sql("SELECT pg_reload_conf()");
    }

    fn freeze_sessions(&mut self, slot: u64) {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE application_name = 'writer {slot}' ORDER BY pid");
        let pids = self.sql(&sql);
        self.frozen = pids.lines().map(|pid| pid.parse().unwrap()).collect();
        self.frozen.retain(|pid| {
            // It may have ended since.
            let there = crate::support::process::children_of(self.server.pid()).contains(pid);
            if there {
                self.server.freeze_backend(*pid);
            }
            there
        });
    }
}

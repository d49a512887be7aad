//! The application is stopped in the middle of its writes while the server is away, and started anew.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use agent_storage::contract::{Durability, Freshness};
use agent_storage::{Database, ErrorKind, StorageManager};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::rig::Rig;
use crate::support::{Server, Suite};

/// Makes this program such an application: its configuration, and what its keys begin with.
pub(crate) const APPLICATION: &str = "STORAGE_TEST_APPLICATION";
const PREFIX: &str = "STORAGE_TEST_APPLICATION_PREFIX";

const WRITERS: usize = 4;

/// How many writes must have been acknowledged so before something else happens.
const ENOUGH: usize = 40;

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        a_process_that_is_stopped_while_degraded_loses_nothing_that_it_acknowledged
    }
}

/// The application: it writes until it is told to stop, and then disconnects.
pub(crate) fn application(config: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
        let manager = StorageManager::from_file(config).unwrap();
        let (database, prefix) = (manager.database().await.unwrap(), std::env::var(PREFIX).unwrap());
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(write(database.clone(), format!("{prefix}:{writer}")))).collect();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        manager.disconnect().await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        say("closed");
    });
    ExitCode::SUCCESS
}

/// Writes numbers under a key, as its value and as items of its list, and says what was acknowledged.
async fn write(database: Database, key: String) {
    for number in 1_i64.. {
        for kind in ["value", "item"] {
            let durability = match kind {
                "value" => database.set_json(&key, &number).await.map(|ack| ack.durability),
                _ => database.append_json(&key, &number).await.map(|ack| ack.durability),
            };
            match durability {
                Ok(durability) => say(&format!("{kind} {key} {number} {}", durability.as_str())),
                Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::OutcomeUnknown) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn say(line: &str) {
    // Whoever listened may be gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The application in a process of its own, ended with the test.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The last number that was acknowledged, of each kind and key.
    acknowledged: BTreeMap<(String, String), i64>,
    closed: bool,
}

impl Running {
    fn start(rig: &Rig, prefix: &str) -> Self {
        let config = rig.folder_of("agent.yml");
        std::fs::write(&config, rig.yaml()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(APPLICATION, &config).env(PREFIX, prefix).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, acknowledged: BTreeMap::new(), closed: false }
    }

    /// Reads on until so much was acknowledged with a durability.
    fn read_until(&mut self, durability: Durability) {
        let mut left = ENOUGH;
        while left > 0 {
            let line = self.lines.next().expect("it ended by itself").unwrap();
            left -= usize::from(line.ends_with(durability.as_str()));
            self.note(&line);
        }
    }

    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [kind, key, number, _] => {
                self.acknowledged.insert((kind.to_owned(), key.to_owned()), number.parse().unwrap());
            }
            _ => self.closed |= line == "closed",
        }
    }

    /// Sends a signal and reads on to the end; says whether it ended in order.
    fn stop(&mut self, signal: Signal) -> bool {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        // The last line may be half of one.
        while let Some(Ok(line)) = self.lines.next() {
            self.note(&line);
        }
        self.child.wait().unwrap().success() && self.closed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn a_process_that_is_stopped_while_degraded_loses_nothing_that_it_acknowledged() {
    let mut rig = Rig::new().await;
    for (name, signal) in [("term", Signal::TERM), ("int", Signal::INT), ("kill", Signal::KILL)] {
        let mut running = Running::start(&rig, name);
        running.read_until(Durability::Primary);
        rig.server.kill();
        running.read_until(Durability::Local);
        assert_eq!(running.stop(signal), signal != Signal::KILL, "{name}");
        assert_eq!(running.acknowledged.len(), WRITERS * 2);
        // The next one knows what is owed before it can ask anybody.
        rig.start_anew().await;
        assert!(rig.chain.status().pending >= ENOUGH, "{:?}", rig.chain.status());
        for ((kind, key), last) in &running.acknowledged {
            if kind == "value" {
                let (found, freshness) = rig.read(key).await;
                assert!((*last..=last + 1).contains(&found.unwrap()), "{key}: {found:?} after {last}");
                assert_eq!(freshness, Freshness::LocalPending);
            }
        }
        rig.server.restart();
        rig.until_normal().await;
        rig.reconnect_others().await;
        for ((kind, key), last) in &running.acknowledged {
            if kind == "value" {
                let found = rig.others.get_json::<i64>(key).await.unwrap();
                assert!((*last..=last + 1).contains(&found.unwrap()), "{key}: {found:?} after {last}");
            } else {
                let items = rig.others.range_json::<i64>(key, 0, -1).await.unwrap();
                // The one that nobody was told of may be there too.
                assert!((*last..=last + 1).contains(items.last().unwrap()), "{key}: {items:?} after {last}");
                assert_eq!(items, (1..=*items.last().unwrap()).collect::<Vec<_>>(), "lost, doubled or out of order");
            }
        }
    }
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

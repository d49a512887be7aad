//! The address leads to another server, in the middle of everything, and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agent_storage::Database;
use agent_storage::chain::ChainState;
use agent_storage::contract::Durability;
use tokio::task::JoinHandle;

use crate::rig::{Rig, unavailable};
use crate::support::{Postgres, PostgresOptions, Server, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        a_server_that_the_address_leads_to_meanwhile_gets_nothing_and_nothing_is_lost
        a_replica_that_has_all_of_it_and_is_promoted_is_the_same_primary
    }
}

const WRITERS: usize = 4;

/// How many writes must have been acknowledged so before something else happens.
const ENOUGH: usize = 20;

/// Tasks that write without a pause, each a value and a list of its own; every write must be acknowledged.
struct Writers {
    seen: Arc<Seen>,
    tasks: Vec<JoinHandle<i64>>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    primary: AtomicUsize,
    local: AtomicUsize,
}

impl Writers {
    fn start(database: &Database, round: usize) -> Self {
        let seen = Arc::new(Seen::default());
        let tasks = (0..WRITERS).map(|writer| {
            let (database, seen) = (database.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut last = 0;
                while !seen.stop.load(Ordering::SeqCst) {
                    last += 1;
                    let set = database.set_json(format!("value:{round}:{writer}"), &last).await.unwrap();
                    let append = database.append_json(format!("list:{round}:{writer}"), &last).await.unwrap();
                    for durability in [set.durability, append.durability] {
                        let count = if durability == Durability::Primary { &seen.primary } else { &seen.local };
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                last
            })
        });
        let tasks = tasks.collect();
        Self { seen, tasks }
    }

    /// Waits for enough more acknowledgements of one kind.
    async fn wait_for(&self, durability: Durability) {
        let seen = Arc::clone(&self.seen);
        let count =
            move || if durability == Durability::Primary { &seen.primary } else { &seen.local }.load(Ordering::SeqCst);
        let goal = count() + ENOUGH;
        let reached = async {
            while count() < goal {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("writes are acknowledged so");
    }

    /// Ends them; answers the last number of each.
    async fn stop(self) -> Vec<i64> {
        self.seen.stop.store(true, Ordering::SeqCst);
        let mut last = Vec::new();
        for task in self.tasks {
            last.push(task.await.expect("every write was acknowledged"));
        }
        last
    }
}

/// A server that is not the right one, and what it holds.
struct Wrong<'a> {
    server: &'a Postgres,
    is_replica: bool,
    name: &'a str,
}

impl Wrong<'_> {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.server.port()))
    }

    /// All that it holds.
    fn contents(&self) -> String {
        let there = "SELECT count(*) FROM pg_namespace WHERE nspname = 'agent_storage'";
        if self.server.query(self.name, there) == "0" {
            return "nothing".to_owned();
        }
        let all = "SELECT (SELECT string_agg(kv::text, ' ' ORDER BY key) FROM agent_storage.kv),
            (SELECT string_agg(item::text, ' ' ORDER BY key, position) FROM agent_storage.item)";
        self.server.query(self.name, all)
    }
}

/// Leads the address to a wrong server and back while writers write.
async fn mislead(rig: &Rig, wrong: &Wrong<'_>, round: usize) {
    let before = wrong.contents();
    let writers = Writers::start(&rig.database, round);
    writers.wait_for(Durability::Primary).await;
    rig.proxy.lead_to(wrong.address()).await;
    rig.proxy.reset().await;
    rig.until(|status| status.state == ChainState::Degraded && status.fenced != wrong.is_replica).await;
    writers.wait_for(Durability::Local).await;
    unavailable(rig.database.get("never written").await);
    // Probes find it again and again, with operations owed.
    let accepted = rig.proxy.accepted();
    while rig.proxy.accepted() < accepted + 3 {
        let _ = rig.database.ping().await;
    }
    let status = rig.chain.status();
    assert!(status.state == ChainState::Degraded && status.pending > ENOUGH, "{status:?}");
    assert_eq!(wrong.contents(), before, "it was written to");
    rig.proxy.lead_to(SocketAddr::from(([127, 0, 0, 1], rig.server.port()))).await;
    rig.proxy.reset().await;
    writers.wait_for(Durability::Primary).await;
    let last = writers.stop().await;
    rig.until_normal().await;
    for (writer, last) in last.into_iter().enumerate() {
        assert_eq!(rig.others.get_json(format!("value:{round}:{writer}")).await.unwrap(), Some(last));
        let items = rig.others.range_json::<i64>(format!("list:{round}:{writer}"), 0, -1).await.unwrap();
        assert_eq!(items, (1..=last).collect::<Vec<_>>(), "lost, doubled or out of order");
    }
}

async fn a_server_that_the_address_leads_to_meanwhile_gets_nothing_and_nothing_is_lost() {
    let rig = Rig::new().await;
    rig.database.set_json("other", &1).await.unwrap();
    rig.keep("older");
    rig.reconnect().await;
    rig.until_normal().await;
    // The canary is raised by probes; one more than the copy has seen is enough.
    rig.database.ping().await.unwrap();
    let empty = Postgres::start(PostgresOptions::default());
    assert_eq!(empty.create_database(), rig.name);
    let name = rig.name.as_str();
    let wrong = |server| Wrong { server, is_replica: false, name };
    mislead(&rig, &wrong(&empty), 0).await;
    // The same server, once somebody else has made a database of theirs there.
    rig.others_on(&empty).await;
    assert_ne!(wrong(&empty).contents(), "nothing");
    mislead(&rig, &wrong(&empty), 1).await;
    let older = Postgres::start_with(&rig.folder_of("older"));
    mislead(&rig, &wrong(&older), 2).await;
    older.stop();
    std::fs::write(older.folder().join("data/standby.signal"), "").unwrap();
    older.restart();
    mislead(&rig, &Wrong { server: &older, is_replica: true, name }, 3).await;
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

async fn a_replica_that_has_all_of_it_and_is_promoted_is_the_same_primary() {
    let rig = Rig::new().await;
    rig.prepare().await;
    rig.server.stop();
    let promoted = Postgres::start_with(&rig.folder_of("data"));
    promoted.stop();
    std::fs::write(promoted.folder().join("data/standby.signal"), "").unwrap();
    promoted.restart();
    rig.owe().await;
    rig.until(|status| status.state == ChainState::Degraded).await;
    rig.proxy.lead_to(SocketAddr::from(([127, 0, 0, 1], promoted.port()))).await;
    assert_eq!(promoted.query(&rig.name, "SELECT pg_promote()"), "t");
    rig.until_normal().await;
    // The name of a file of the log begins with the timeline.
    let timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_eq!(promoted.query(&rig.name, timeline), "00000002");
    assert_eq!(promoted.query(&rig.name, "SELECT json FROM agent_storage.kv WHERE key = 'owed'"), "2");
    assert_eq!(rig.database.range_json::<i64>("list", 0, -1).await.unwrap(), [1, 2, 3]);
    assert_eq!(rig.database.get_json("other").await.unwrap(), Some(1));
}

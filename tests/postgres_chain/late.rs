//! Statements that land late: their server process is frozen while it holds them, they are given up, journaled and replayed, something
//! newer is written, and then the process thaws.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use agent_storage::backend::postgres::PostgresDatabase;
use agent_storage::chain::ChainState;
use agent_storage::contract::{Context, Durability, Store, Write};
use agent_storage::testkit::{Direction, NetworkFault, Point};
use agent_storage::{Clock, Database, ErrorKind, HybridClock, Key, SetOptions, Ttl, Value};
use tokio::task::JoinHandle;

use crate::rig::{Rig, TIMEOUT, direct};
use crate::support::process::wait_until;
use crate::support::{Server, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        a_set_that_lands_late_changes_nothing
        an_entry_that_lands_late_ends_when_it_was_to_end
        an_entry_that_landed_late_and_is_replayed_after_its_end_is_gone
        a_delete_that_lands_late_removes_nothing_newer
        a_delete_that_lost_where_the_primary_wins_takes_nothing_when_it_lands
        an_append_that_lands_late_is_there_once
        a_clear_that_lands_late_removes_nothing_newer
        a_replay_that_is_frozen_in_the_middle_has_effect_once
        what_is_never_sent_again_changes_nothing_newer_when_it_lands
        what_was_replayed_changes_nothing_of_others_when_it_lands
        a_replay_that_the_sweeper_overtakes_brings_nothing_back
        what_the_network_held_back_for_longer_than_its_time_replaces_nothing_unseen
        what_the_server_finds_late_and_is_not_is_sent_again
    }
}

/// A session that holds the lock of a row.
struct Holder<'a> {
    rig: &'a Rig,
    pid: u32,
}

impl<'a> Holder<'a> {
    fn of(rig: &'a Rig, table: &str, key: &str) -> Self {
        Self::of_all(rig, &[(table, key)])
    }

    /// One that holds several rows, each by its table and key.
    fn of_all(rig: &'a Rig, rows: &[(&str, &str)]) -> Self {
        let lock = |(table, key): &(&str, &str)| {
            format!("SELECT 1 FROM agent_storage.{table} WHERE key = '{key}' FOR UPDATE; ")
        };
        let lock = format!("BEGIN; {}SELECT pg_sleep(3600)", rows.iter().map(lock).collect::<String>());
        let (url, bin) = (rig.server.url(&rig.name), Server::Postgres.locate().unwrap().join("psql"));
        // It ends with its session, which is ended below or with the server.
        let mut psql = std::process::Command::new(bin);
        psql.args(["-X", "-q", "-c", &lock, &url])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut child = psql.spawn().unwrap();
        std::thread::spawn(move || child.wait());
        let sleeping = "wait_event = 'PgSleep'";
        assert!(wait_until(|| !rig.pids(sleeping).is_empty()), "the lock was not taken");
        Self { rig, pid: rig.pids(sleeping)[0] }
    }

    /// Freezes the process that waits for the row.
    fn freeze_waiting(&self) -> u32 {
        assert!(wait_until(|| !self.rig.pids("wait_event_type = 'Lock'").is_empty()), "the call is not held up");
        let held_up = self.rig.pids("wait_event_type = 'Lock'")[0];
        self.rig.server.freeze_backend(held_up);
        held_up
    }

    /// Waits until so many processes wait for rows.
    fn wait_for_waiting(&self, count: usize) {
        let waiting = || self.rig.pids("wait_event_type = 'Lock'").len();
        assert!(wait_until(|| waiting() == count), "{} calls are held up, and not {count}", waiting());
    }

    fn let_go(self) {
        self.rig.query(&format!("SELECT pg_terminate_backend({})", self.pid));
        assert!(wait_until(|| self.rig.pids(&format!("pid = {}", self.pid)).is_empty()));
    }
}

/// Has a call land late: after it was replayed, and after what is newer.
async fn land_late<C, N>(
    rig: &Rig,
    table: &str,
    key: &str,
    call: impl FnOnce(Database) -> C,
    newer: impl FnOnce() -> N,
) -> Durability
where
    C: Future<Output = Durability> + Send + 'static,
    N: Future<Output = ()>,
{
    let holder = Holder::of(rig, table, key);
    let call = tokio::spawn(call(rig.database.clone()));
    let held_up = holder.freeze_waiting();
    holder.let_go();
    let durability = call.await.unwrap();
    rig.until_normal().await;
    newer().await;
    rig.server.thaw_backend(held_up);
    assert!(wait_until(|| rig.pids(&format!("pid = {held_up}")).is_empty()), "the late statement never ended");
    durability
}

/// Calls whose statements the server has, and lands when it is told to.
struct Late<'a> {
    rig: &'a Rig,
    holder: Holder<'a>,
    calls: Vec<JoinHandle<agent_storage::Result<Durability>>>,
}

impl<'a> Late<'a> {
    /// Rows that are held, each by its table and key.
    fn behind(rig: &'a Rig, rows: &[(&str, &str)]) -> Self {
        Self { rig, holder: Holder::of_all(rig, rows), calls: Vec::new() }
    }

    /// Has a call wait for one of the rows. It is given up by nobody but the test.
    fn call<C>(&mut self, call: impl FnOnce(Database) -> C)
    where
        C: Future<Output = agent_storage::Result<Durability>> + Send + 'static,
    {
        self.calls.push(tokio::spawn(call(self.rig.database.clone().with_timeout(Duration::from_secs(50)))));
        self.holder.wait_for_waiting(self.calls.len());
    }

    /// Freezes all that wait, lets the rows go, and has the application cut off; answers what the callers were told.
    async fn freeze(self) -> (Frozen<'a>, Vec<agent_storage::Result<Durability>>) {
        let pids = self.rig.pids("wait_event_type = 'Lock'");
        assert_eq!(pids.len(), self.calls.len());
        pids.iter().for_each(|pid| self.rig.server.freeze_backend(*pid));
        self.holder.let_go();
        self.rig.cut_off().await;
        let mut told = Vec::new();
        for call in self.calls {
            told.push(call.await.unwrap());
        }
        (Frozen { rig: self.rig, pids }, told)
    }
}

/// Statements that are to land.
struct Frozen<'a> {
    rig: &'a Rig,
    pids: Vec<u32>,
}

impl Frozen<'_> {
    fn land(self) {
        for pid in self.pids {
            self.rig.server.thaw_backend(pid);
            let gone = || self.rig.pids(&format!("pid = {pid}")).is_empty();
            assert!(wait_until(gone), "the late statement never ended");
            // One that was ended has not landed.
            let ended = format!("[{pid}] ERROR:  cancel");
            assert!(!self.rig.server.log().contains(&ended), "{}", self.rig.server.log());
        }
    }
}

async fn a_set_that_lands_late_changes_nothing() {
    let rig = Rig::new().await;
    rig.prepare().await;
    let set = |database: Database| async move { database.set_json("other", &2).await.unwrap().durability };
    let newer = || async {
        assert_eq!(rig.database.get_json("other").await.unwrap(), Some(2));
        assert_eq!(rig.database.set_json("other", &3).await.unwrap().durability, Durability::Primary);
    };
    assert_eq!(land_late(&rig, "kv", "other", set, newer).await, Durability::Local);
    assert_eq!(rig.others.get_json("other").await.unwrap(), Some(3));
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

async fn an_entry_that_lands_late_ends_when_it_was_to_end() {
    let rig = Rig::new().await;
    rig.prepare().await;
    let set = |database: Database| async move {
        let options = SetOptions::new().with_ttl(Ttl::from_secs(600).unwrap());
        database.set_with("other", Value::from_integer(2), options).await.unwrap().durability
    };
    let expiry =
        || rig.query("SELECT expires_at FROM agent_storage.kv WHERE key = 'other'").trim().parse::<i64>().unwrap();
    let replayed = AtomicI64::new(0);
    let newer = || async { replayed.store(expiry(), Ordering::SeqCst) };
    assert_eq!(land_late(&rig, "kv", "other", set, newer).await, Durability::Local);
    assert_eq!(expiry(), replayed.load(Ordering::SeqCst));
    assert_eq!(rig.others.get_json("other").await.unwrap(), Some(2));
}

async fn an_entry_that_landed_late_and_is_replayed_after_its_end_is_gone() {
    let rig = Rig::new().await;
    rig.prepare().await;
    let mut late = Late::behind(&rig, &[("kv", "other")]);
    late.call(|database| async move {
        let options = SetOptions::new().with_ttl(Ttl::from_secs(3).unwrap());
        database.set_with("other", Value::from_integer(2), options).await.map(|ack| ack.durability)
    });
    let (frozen, told) = late.freeze().await;
    assert_eq!(told[0].as_ref().unwrap(), &Durability::Local);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    frozen.land();
    assert_eq!(rig.others.get_json::<i64>("other").await.unwrap(), Some(2), "it counts its time from when it landed");
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(rig.database.get_json::<i64>("other").await.unwrap(), None, "by what is owed it has ended");
    rig.connect().await;
    rig.until_normal().await;
    assert_eq!(rig.database.get_json::<i64>("other").await.unwrap(), None);
    assert_eq!(rig.others.get_json::<i64>("other").await.unwrap(), None);
}

async fn a_delete_that_lands_late_removes_nothing_newer() {
    let rig = Rig::new().await;
    rig.database.set_json("k", &1).await.unwrap();
    rig.database.append_json("k", &1).await.unwrap();
    let delete = |database: Database| async move { database.delete("k").await.unwrap().durability };
    let newer = || async {
        assert!(!rig.database.exists("k").await.unwrap());
        rig.database.set_json("k", &2).await.unwrap();
        rig.others.append_json("k", &3).await.unwrap();
    };
    assert_eq!(land_late(&rig, "kv", "k", delete, newer).await, Durability::Local);
    assert_eq!(rig.others.get_json("k").await.unwrap(), Some(2));
    assert_eq!(rig.others.range_json::<i64>("k", 0, -1).await.unwrap(), [3]);
}

async fn a_delete_that_lost_where_the_primary_wins_takes_nothing_when_it_lands() {
    let rig = Rig::with("conflicts: primary-wins").await;
    rig.database.set_json("k", &1).await.unwrap();
    rig.database.append_json("k", &1).await.unwrap();
    rig.others.append_json("k", &2).await.unwrap();
    let delete = |database: Database| async move { database.delete("k").await.unwrap().durability };
    let newer = || async {
        assert_eq!(rig.others.range_json::<i64>("k", 0, -1).await.unwrap(), [2]);
        assert_eq!(rig.others.conflicts().collect().await.unwrap().len(), 1, "the delete is kept");
    };
    assert_eq!(land_late(&rig, "kv", "k", delete, newer).await, Durability::Local);
    assert_eq!(rig.others.range_json::<i64>("k", 0, -1).await.unwrap(), [2]);
}

async fn an_append_that_lands_late_is_there_once() {
    let rig = Rig::new().await;
    rig.prepare().await;
    let append = |database: Database| async move { database.append_json("list", &2).await.unwrap().durability };
    let newer = || async {
        rig.database.append_json("list", &3).await.unwrap();
    };
    assert_eq!(land_late(&rig, "list", "list", append, newer).await, Durability::Local);
    assert_eq!(rig.others.range_json::<i64>("list", 0, -1).await.unwrap(), [1, 2, 3]);
    // Where it was deleted meanwhile, it does not come back either.
    let append = |database: Database| async move { database.append_json("list", &4).await.unwrap().durability };
    let newer = || async {
        rig.others.delete("list").await.unwrap();
    };
    land_late(&rig, "list", "list", append, newer).await;
    assert_eq!(rig.others.length("list").await.unwrap(), 0);
}

async fn a_clear_that_lands_late_removes_nothing_newer() {
    let rig = Rig::new().await;
    rig.prepare().await;
    // The first key of the prefix holds it up: frozen, it has no lock that the replay would wait for.
    let clear = |database: Database| async move {
        database.clear("o").await.unwrap();
        Durability::Local
    };
    let newer = || async {
        assert_eq!(rig.database.count("o").await.unwrap(), 0);
        rig.database.set_json("other", &2).await.unwrap();
        rig.others.append_json("our list", &2).await.unwrap();
    };
    land_late(&rig, "kv", "other", clear, newer).await;
    assert_eq!(rig.others.get_json("other").await.unwrap(), Some(2));
    assert_eq!(rig.others.range_json::<i64>("our list", 0, -1).await.unwrap(), [2]);
    assert_eq!(rig.others.count("o").await.unwrap(), 2);
}

async fn a_replay_that_is_frozen_in_the_middle_has_effect_once() {
    let rig = Rig::new().await;
    rig.prepare().await;
    rig.cut_off().await;
    rig.owe().await;
    let holder = Holder::of(&rig, "list", "list");
    rig.connect().await;
    // It has locked the values, and waits for the list.
    let held_up = holder.freeze_waiting();
    holder.let_go();
    rig.proxy.set(NetworkFault::CutAt(Direction::ToServer, Point::Bytes(0))).await.unwrap();
    rig.proxy.reset().await;
    rig.connect().await;
    rig.others.set_json("elsewhere", &1).await.unwrap();
    rig.server.thaw_backend(held_up);
    rig.until_normal().await;
    rig.assert_paid().await;
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

async fn what_is_never_sent_again_changes_nothing_newer_when_it_lands() {
    let rig = Rig::unbatched().await;
    for key in ["applied", "created", "updated"] {
        rig.database.set_json(key, &1).await.unwrap();
    }
    rig.database.delete("created").await.unwrap();
    for item in 1..=4 {
        rig.database.append_json("trimmed", &item).await.unwrap();
    }
    let revision = rig.database.lookup("updated").await.unwrap().into_entry().unwrap().revision;
    let held = [("kv", "applied"), ("kv", "created"), ("kv", "updated"), ("list", "trimmed")];
    let mut late = Late::behind(&rig, &held);
    late.call(|database| async move {
        let transaction = database.transaction().set_json("applied", &2)?.append_json("applied list", &2)?;
        transaction.commit().await.map(|_| Durability::Primary)
    });
    late.call(|database| async move {
        let options = SetOptions::new().if_absent();
        database.set_with("created", Value::from_integer(2), options).await.map(|ack| ack.durability)
    });
    late.call(move |database| async move {
        let options = SetOptions::new().if_revision(revision);
        database.set_with("updated", Value::from_integer(2), options).await.map(|ack| ack.durability)
    });
    late.call(|database| async move { database.trim("trimmed", 1).await.map(|_| Durability::Primary) });
    let (frozen, told) = late.freeze().await;
    let kinds: Vec<_> = told.iter().map(|told| told.as_ref().unwrap_err().kind()).collect();
    assert_eq!(kinds, [ErrorKind::OutcomeUnknown; 4]);
    for key in ["applied", "created", "updated"] {
        assert_eq!(rig.database.set_json(key, &3).await.unwrap().durability, Durability::Local);
    }
    rig.database.append_json("trimmed", &5).await.unwrap();
    rig.connect().await;
    rig.until_normal().await;
    assert_eq!(rig.others.clear("applied").await, 1);
    rig.others.delete("created").await.unwrap();
    rig.others.set_json("updated", &4).await.unwrap();
    rig.others.append_json("trimmed", &6).await.unwrap();
    assert_eq!(rig.others.trim("trimmed", 4).await.unwrap(), 2);
    frozen.land();
    for database in [&rig.database, &*rig.others] {
        assert_eq!(database.get_json::<i64>("applied").await.unwrap(), None);
        assert_eq!(database.length("applied list").await.unwrap(), 0);
        assert_eq!(database.get_json::<i64>("created").await.unwrap(), None);
        assert_eq!(database.get_json("updated").await.unwrap(), Some(4));
        let items = database.range_json::<i64>("trimmed", 0, -1).await.unwrap();
        // The late trim kept the last that there was when it was sent, or finds nothing left to take.
        assert!([&[3, 4, 5, 6][..], &[4, 5, 6]].contains(&&items[..]), "{items:?}");
    }
}

async fn what_was_replayed_changes_nothing_of_others_when_it_lands() {
    let rig = Rig::unbatched().await;
    for key in ["batch:1", "deleted"] {
        rig.database.set_json(key, &1).await.unwrap();
    }
    rig.database.append_json("list", &1).await.unwrap();
    // The first key of the batch holds it up: frozen, it has no lock that the replay would wait for.
    let mut late = Late::behind(&rig, &[("kv", "batch:1"), ("kv", "deleted"), ("list", "list")]);
    late.call(|database| async move {
        let batch = (1..=4).map(|number| (format!("batch:{number}"), Value::from_integer(2)));
        let acks = database.set_many(batch).await.into_iter().collect::<agent_storage::Result<Vec<_>>>()?;
        assert_eq!(acks.len(), 4);
        Ok(acks.iter().map(|ack| ack.durability).max().unwrap())
    });
    late.call(|database| async move { database.delete("deleted").await.map(|ack| ack.durability) });
    late.call(|database| async move { database.append_json("list", &2).await.map(|ack| ack.durability) });
    let (frozen, told) = late.freeze().await;
    assert!(told.iter().all(|told| matches!(told, Ok(Durability::Local))), "{told:?}");
    rig.database.append_json("list", &3).await.unwrap();
    rig.connect().await;
    rig.until_normal().await;
    assert_eq!(rig.others.range_json::<i64>("list", 0, -1).await.unwrap(), [1, 2, 3]);
    rig.others.set_json("batch:1", &3).await.unwrap();
    rig.others.delete("batch:2").await.unwrap();
    assert_eq!(rig.others.clear("batch:3").await, 1);
    rig.others.set_json("deleted", &3).await.unwrap();
    rig.others.append_json("list", &4).await.unwrap();
    assert_eq!(rig.others.trim("list", 2).await.unwrap(), 2);
    frozen.land();
    for database in [&rig.database, &*rig.others] {
        let batch = database.get_many(["batch:1", "batch:2", "batch:3", "batch:4"]).await;
        let batch: Vec<Option<i64>> =
            batch.into_iter().map(|found| found.unwrap().map(|it| it.decode().unwrap())).collect();
        assert_eq!(batch, [Some(3), None, None, Some(2)]);
        assert_eq!(database.get_json("deleted").await.unwrap(), Some(3));
        assert_eq!(database.range_json::<i64>("list", 0, -1).await.unwrap(), [3, 4]);
    }
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

async fn a_replay_that_the_sweeper_overtakes_brings_nothing_back() {
    let rig = Rig::new().await;
    rig.database.set_json("a", &1).await.unwrap();
    rig.cut_off().await;
    rig.database.set_json("a", &2).await.unwrap();
    rig.database.set_json("gone", &2).await.unwrap();
    rig.others.set_json("gone", &3).await.unwrap();
    rig.others.delete("gone").await.unwrap();
    // The replay is on its way, and has nothing looked at yet: it waits for the first of its rows.
    let holder = Holder::of(&rig, "kv", "a");
    rig.connect().await;
    holder.wait_for_waiting(1);
    // As the sweeper does it, were the retention over: it says which deletes are forgotten before it forgets them.
    rig.query(&format!("UPDATE agent_storage.meta SET gc_floor = decode('{}', 'hex')", rig.others.stamp()));
    let swept = "DELETE FROM agent_storage.kv WHERE key = 'gone' AND kind = 0 RETURNING 1";
    assert_eq!(rig.query(swept), "1", "the tombstone of the others' delete");
    holder.let_go();
    rig.until(|status| status.pending == 0 && status.parked == 2).await;
    assert_eq!(rig.chain.status().state, ChainState::Normal);
    assert_eq!(rig.others.get_json::<i64>("gone").await.unwrap(), None);
    assert_eq!(rig.others.get_json("a").await.unwrap(), Some(1));
    let aside = rig.chain.journaled(0).await.unwrap();
    assert!(
        aside.iter().all(|operation| operation.parked.as_ref().unwrap().contains("remembers deletes")),
        "{aside:?}"
    );
}

async fn what_the_network_held_back_for_longer_than_its_time_replaces_nothing_unseen() {
    let rig = Rig::new().await;
    rig.prepare().await;
    // A statement that finds no connection, because a probe has it, is never sent.
    for round in 1..=5 {
        let keys = [format!("round {round}:set"), format!("round {round}:cleared:key")];
        overtake_what_is_held_back(&rig, &keys).await;
        assert_eq!(rig.others.get_json(&keys[0]).await.unwrap(), Some(2));
        assert_eq!(rig.others.get_json::<i64>(&keys[1]).await.unwrap(), None);
        let lost = rig.others.conflicts().collect().await.unwrap();
        let lost = |key: &str| lost.iter().filter(|record| record.key.to_string() == key).count();
        assert_eq!([lost(&keys[0]), lost(&keys[1])], [1, 1], "{}", rig.server.log());
        if rig.server.log().contains("arrived too late") {
            return;
        }
    }
    panic!("nothing was held back: {}", rig.server.log());
}

/// Sets the first key, and clears around the second, while nothing passes; others, whose clock is behind, write both; then it passes.
async fn overtake_what_is_held_back(rig: &Rig, keys: &[String; 2]) {
    let slow = Arc::new(HybridClock::new(Clock::manual()));
    let theirs = PostgresDatabase::with_stamps(&direct(&rig.server, &rig.name), Arc::clone(&slow)).unwrap();
    rig.proxy.set(NetworkFault::Stall).await.unwrap();
    let began = Instant::now();
    let (database, key) = (rig.database.clone(), keys[0].clone());
    let set = tokio::spawn(async move { database.set_json(&key, &2).await.unwrap().durability });
    tokio::time::sleep(TIMEOUT / 10).await;
    let cleared = rig.database.clear(keys[1].trim_end_matches("key")).await.unwrap();
    assert_eq!((set.await.unwrap(), cleared), (Durability::Local, None));
    for key in keys {
        let write = Write::put(Key::parse(key).unwrap(), Value::from_integer(3), slow.issue());
        theirs.write(write, &Context::with_timeout(TIMEOUT)).await.unwrap();
    }
    tokio::time::sleep((TIMEOUT * 2).saturating_sub(began.elapsed())).await;
    rig.proxy.set(NetworkFault::Pass).await.unwrap();
    rig.until_normal().await;
}

async fn what_the_server_finds_late_and_is_not_is_sent_again() {
    let rig = Rig::new().await;
    // As after its clock was set: one statement is refused.
    rig.query(
        "CREATE SEQUENCE refused; GRANT ALL ON SEQUENCE refused TO PUBLIC;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('refused') = 1 THEN PERFORM agent_storage.refuse_late(); END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON agent_storage.kv FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    assert_eq!(rig.database.set_json("k", &1).await.unwrap().durability, Durability::Primary);
    assert_eq!(rig.query("SELECT last_value FROM refused"), "2");
    assert_eq!(rig.others.get_json("k").await.unwrap(), Some(1));
}

//! Statements that land late: their server process is frozen while it holds them, they are given up, journaled and replayed, something
//! newer is written, and then the process thaws.

use agent_storage::Database;
use agent_storage::contract::Durability;
use agent_storage::testkit::{Direction, NetworkFault, Point};

use crate::rig::Rig;
use crate::support::process::wait_until;
use crate::support::{Server, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        a_set_that_lands_late_changes_nothing
        a_delete_that_lands_late_removes_nothing_newer
        an_append_that_lands_late_is_there_once
        a_clear_that_lands_late_removes_nothing_newer
        a_replay_that_is_frozen_in_the_middle_has_effect_once
    }
}

/// A session that holds the lock of a row.
struct Holder<'a> {
    rig: &'a Rig,
    pid: u32,
}

impl<'a> Holder<'a> {
    fn of(rig: &'a Rig, table: &str, key: &str) -> Self {
        let lock =
            format!("BEGIN; SELECT 1 FROM agent_storage.{table} WHERE key = '{key}' FOR UPDATE; SELECT pg_sleep(3600)");
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

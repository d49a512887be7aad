//! The tables are migrated while a process owes them something.

use agent_storage::chain::{ChainState, ChainStatus};
use agent_storage::{ErrorKind, StorageManager};

use crate::rig::Rig;
use crate::support::{Server, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        a_newer_program_that_migrates_meanwhile_costs_nothing_that_is_owed
        tables_of_an_older_program_are_migrated_before_they_are_brought_what_is_owed
    }
}

/// What a newer program leaves: tables that this one may use, or may not.
fn migrate(rig: &Rig, schema: u32, min_compatible: u32) {
    rig.query(&format!("UPDATE agent_storage.meta SET schema = {schema}, min_compatible = {min_compatible}"));
}

async fn a_newer_program_that_migrates_meanwhile_costs_nothing_that_is_owed() {
    let rig = Rig::new().await;
    rig.prepare().await;
    let current = rig.query("SELECT schema FROM agent_storage.meta").parse().unwrap();
    rig.cut_off().await;
    rig.owe().await;
    // Tables that this program cannot use any more.
    migrate(&rig, 1000, 999);
    rig.query("ALTER TABLE agent_storage.kv RENAME COLUMN stamp TO revision");
    rig.connect().await;
    // It says why, and puts nothing aside that a newer program of ours would bring there.
    let why =
        |status: &ChainStatus| status.reason.as_ref().is_some_and(|it| it.message().contains("update this program"));
    rig.until(why).await;
    rig.assert_pending().await;
    let status = rig.chain.status();
    assert_eq!((status.pending, status.parked), (4, 0), "{status:?}");
    assert_ne!(status.state, ChainState::Normal);
    assert_eq!(rig.query("SELECT json FROM agent_storage.kv WHERE key = 'owed'"), "1");
    // Who starts now is told at once.
    let error = StorageManager::from_yaml(&rig.yaml()).unwrap().database().await.expect_err("it is refused");
    assert!(error.kind() == ErrorKind::Config && error.message().contains("newer version"), "{error}");
    // Tables of a newer program that lets this one in.
    rig.query("ALTER TABLE agent_storage.kv RENAME COLUMN revision TO stamp");
    migrate(&rig, 1000, current);
    rig.until_normal().await;
    rig.assert_paid().await;
}

async fn tables_of_an_older_program_are_migrated_before_they_are_brought_what_is_owed() {
    let mut rig = Rig::new().await;
    rig.prepare().await;
    rig.cut_off().await;
    rig.owe().await;
    // What the last two migrations did is undone, as if an older program had made the tables.
    let current: u32 = rig.query("SELECT schema FROM agent_storage.meta").parse().unwrap();
    rig.query(
        "DROP FUNCTION agent_storage.refuse_late; DROP FUNCTION agent_storage.refuse_identity; DROP TABLE agent_storage.conflict;
         CREATE TABLE agent_storage.conflict (stamp bytea PRIMARY KEY)",
    );
    migrate(&rig, current - 2, current - 2);
    rig.start_anew().await;
    rig.connect().await;
    rig.until_normal().await;
    assert_eq!(rig.query("SELECT schema FROM agent_storage.meta"), current.to_string());
    rig.assert_paid().await;
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

//! What comes back is not what went away.

use agent_storage::StorageManager;
use agent_storage::chain::ChainState;
use agent_storage::contract::Durability;

use crate::rig::{Rig, unavailable};
use crate::support::{Server, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        an_empty_server_is_fenced_off_and_stays_empty
        an_empty_server_that_is_accepted_gets_tables_and_what_is_owed
        a_process_that_started_fenced_off_hears_that_another_database_was_accepted
        an_older_state_is_fenced_off
        a_schema_that_was_dropped_is_fenced_off
        a_replica_is_not_taken_for_the_primary
    }
}

/// Nothing is read from what answers now, and nothing brought to it.
async fn assert_fenced(rig: &Rig) {
    rig.until(|status| status.fenced).await;
    rig.assert_owed().await;
    unavailable(rig.database.get("never written").await);
    unavailable(rig.database.conflicts().collect().await);
    let status = rig.chain.status();
    assert!(status.fenced && status.state == ChainState::Degraded && status.pending == 4, "{status:?}");
}

/// An empty server has taken the place of the known one.
async fn fenced_off_an_empty_server() -> Rig {
    let rig = Rig::from_empty().await;
    rig.prepare().await;
    rig.replace_by("empty");
    rig.owe().await;
    assert_fenced(&rig).await;
    rig
}

async fn an_empty_server_is_fenced_off_and_stays_empty() {
    let mut rig = fenced_off_an_empty_server().await;
    // A process that starts now knows what it must find.
    rig.start_anew().await;
    assert_fenced(&rig).await;
    assert_eq!(rig.query("SELECT count(*) FROM pg_namespace WHERE nspname = 'agent_storage'"), "0");
    rig.put_back();
    rig.until_normal().await;
    rig.assert_paid().await;
}

async fn an_empty_server_that_is_accepted_gets_tables_and_what_is_owed() {
    let rig = fenced_off_an_empty_server().await;
    // The process was connected to the one before.
    rig.chain.accept_primary().await.unwrap();
    rig.until_normal().await;
    assert_eq!(rig.others.get_json("owed").await.unwrap(), Some(2));
    assert_eq!(rig.database.set_json("k", &1).await.unwrap().durability, Durability::Primary);
}

async fn a_process_that_started_fenced_off_hears_that_another_database_was_accepted() {
    let mut rig = fenced_off_an_empty_server().await;
    rig.start_anew().await;
    assert_fenced(&rig).await;
    let other = StorageManager::from_yaml(&rig.yaml()).unwrap();
    other.open_database_chain().await.unwrap().unwrap().accept_primary().await.unwrap();
    rig.until_normal().await;
    assert_eq!(rig.others.get_json("owed").await.unwrap(), Some(2));
    other.disconnect().await.unwrap();
}

async fn an_older_state_is_fenced_off() {
    let mut rig = Rig::new().await;
    rig.keep("older");
    rig.reconnect().await;
    rig.until_normal().await;
    rig.prepare().await;
    // The canary is raised by probes; one more than the copy has seen is enough.
    rig.database.ping().await.unwrap();
    rig.replace_by("older");
    rig.owe().await;
    assert_fenced(&rig).await;
    rig.start_anew().await;
    assert_fenced(&rig).await;
    assert_eq!(rig.query("SELECT count(*) FROM agent_storage.kv"), "0", "nothing was brought to it");
    assert_eq!(rig.query("SELECT count(*) FROM agent_storage.item"), "0");
    rig.put_back();
    rig.until_normal().await;
    rig.assert_paid().await;
}

async fn a_schema_that_was_dropped_is_fenced_off() {
    let rig = Rig::new().await;
    rig.prepare().await;
    // Its connections stay: each statement must find out for itself.
    rig.query("ALTER SCHEMA agent_storage RENAME TO elsewhere");
    unavailable(rig.database.get("never written").await);
    rig.owe().await;
    assert_fenced(&rig).await;
    assert_eq!(rig.query("SELECT count(*) FROM pg_namespace WHERE nspname = 'agent_storage'"), "0");
    rig.query("ALTER SCHEMA elsewhere RENAME TO agent_storage");
    rig.until_normal().await;
    rig.assert_paid().await;
}

async fn a_replica_is_not_taken_for_the_primary() {
    let mut rig = Rig::new().await;
    rig.prepare().await;
    rig.be_replica(true);
    rig.owe().await;
    rig.until(|status| status.state == ChainState::Degraded).await;
    rig.assert_owed().await;
    unavailable(rig.database.get("never written").await);
    rig.start_anew().await;
    rig.assert_owed().await;
    assert_eq!(rig.chain.status().pending, 4);
    assert_eq!(rig.query("SELECT pg_is_in_recovery()"), "t");
    rig.be_replica(false);
    rig.until_normal().await;
    rig.assert_paid().await;
    assert_eq!(rig.database.set_json("k", &1).await.unwrap().durability, Durability::Primary);
}

//! A PgBouncer in transaction mode stands between, and stays there when what is behind it goes away.

use std::net::SocketAddr;

use agent_storage::chain::ChainState;
use agent_storage::contract::Durability;

use crate::rig::{Rig, unavailable};
use crate::support::process::wait_until;
use crate::support::{Postgres, PostgresOptions, Server, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres, Server::PgBouncer], $name);)* };
    }
    tests! {
        what_is_written_while_the_server_behind_a_pooler_is_away_is_there_when_it_is_back
        what_is_written_while_the_server_behind_a_pooler_is_frozen_is_not_undone_when_it_thaws
        a_server_that_a_pooler_leads_to_meanwhile_gets_nothing
    }
}

async fn what_is_written_while_the_server_behind_a_pooler_is_away_is_there_when_it_is_back() {
    Rig::behind_a_pooler().await.outlive_the_server().await;
}

async fn what_is_written_while_the_server_behind_a_pooler_is_frozen_is_not_undone_when_it_thaws() {
    let rig = Rig::behind_a_pooler().await;
    rig.prepare().await;
    rig.server.freeze();
    // The first one is sent, and lies with the frozen server; the next one is newer.
    assert_eq!(rig.database.set_json("k", &1).await.unwrap().durability, Durability::Local);
    assert_eq!(rig.database.set_json("k", &2).await.unwrap().durability, Durability::Local);
    rig.until(|status| status.state == ChainState::Degraded).await;
    unavailable(rig.database.get("other").await);
    rig.server.thaw();
    rig.until_normal().await;
    let busy = "state = 'active' AND backend_type = 'client backend'";
    assert!(wait_until(|| rig.pids(busy).is_empty()), "what was sent and given up never ended");
    assert_eq!(rig.others.get_json("k").await.unwrap(), Some(2));
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

async fn a_server_that_a_pooler_leads_to_meanwhile_gets_nothing() {
    let rig = Rig::behind_a_pooler().await;
    rig.prepare().await;
    let empty = Postgres::start(PostgresOptions::default());
    assert_eq!(empty.create_database(), rig.name);
    rig.proxy.lead_to(SocketAddr::from(([127, 0, 0, 1], empty.port()))).await;
    rig.proxy.reset().await;
    rig.owe().await;
    rig.until(|status| status.fenced).await;
    rig.assert_owed().await;
    assert_eq!(empty.query(&rig.name, "SELECT count(*) FROM pg_namespace WHERE nspname = 'agent_storage'"), "0");
    rig.proxy.lead_to(SocketAddr::from(([127, 0, 0, 1], rig.server.port()))).await;
    rig.proxy.reset().await;
    rig.until_normal().await;
    rig.assert_paid().await;
}

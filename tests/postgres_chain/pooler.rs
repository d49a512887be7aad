//! A PgBouncer in transaction mode stands between, and stays there when what is behind it goes away.

use std::net::SocketAddr;

use crate::rig::Rig;
use crate::support::{Postgres, PostgresOptions, Server, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres, Server::PgBouncer], $name);)* };
    }
    tests! {
        what_is_written_while_the_server_behind_a_pooler_is_away_is_there_when_it_is_back
        a_server_that_a_pooler_leads_to_meanwhile_gets_nothing
    }
}

async fn what_is_written_while_the_server_behind_a_pooler_is_away_is_there_when_it_is_back() {
    Rig::behind_a_pooler().await.outlive_the_server().await;
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

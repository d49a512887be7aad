//! What is said of a PostgreSQL server to which no connection can be made, and what is not taken for an outage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use agent_storage::backend::postgres::PostgresDatabase;
use agent_storage::config::{PostgresConfig, TlsFiles, TlsMode};
use agent_storage::contract::{Context, Store};
use agent_storage::{Error, ErrorKind, Result};
use support::{Certificates, PgBouncer, Postgres, PostgresOptions, Server, Suite};

fn main() -> ExitCode {
    let mut suite = Suite::new();
    suite.test("an_encrypted_connection_is_verified", &[Server::Postgres], an_encrypted_connection_is_verified);
    suite.test(
        "a_pooler_that_refuses_our_settings_is_no_outage",
        &[Server::Postgres, Server::PgBouncer],
        a_pooler_that_refuses_our_settings_is_no_outage,
    );
    suite.run()
}

async fn ping(config: &PostgresConfig) -> Result<()> {
    let cx = Context::with_timeout(Duration::from_secs(20));
    PostgresDatabase::new(config).unwrap().ping(&cx).await.map(drop)
}

fn config_for(server: &Postgres, host: &str, port: u16) -> PostgresConfig {
    let mut config = PostgresConfig::new(host, port);
    config.database = server.create_database();
    config.username = server.user().to_owned();
    config.password = Some(server.password().into());
    config
}

/// It is not the server that is away: nothing stands in for it, and nobody tries again.
fn assert_said(refused: &Error, word: &str) {
    assert!(refused.outage().is_none() && !refused.is_transient(), "{refused:?}");
    assert!(refused.message().contains(word), "{refused}");
}

async fn an_encrypted_connection_is_verified() {
    let server = Postgres::start(PostgresOptions::default());
    let certificates = Certificates::make();
    server.offer_tls(certificates.folder());
    let connect = async |host: &str, files: TlsFiles| {
        let mut config = config_for(&server, host, server.port());
        (config.tls.mode, config.tls.files) = (TlsMode::VerifyFull, files);
        ping(&config).await
    };
    let mut trusting = TlsFiles::default();
    trusting.ca_file = Some(certificates.file("ca.pem"));
    let mut complete = trusting.clone();
    complete.cert_file = Some(certificates.file("client.pem"));
    complete.key_file = Some(certificates.file("client.key"));
    connect("localhost", trusting.clone()).await.unwrap();
    connect("localhost", complete.clone()).await.unwrap();

    assert_said(&connect("127.0.0.1", trusting.clone()).await.unwrap_err(), "certificate");
    assert_said(&connect("localhost", TlsFiles::default()).await.unwrap_err(), "certificate");
    trusting.ca_file = Some(certificates.file("missing.pem"));
    let refused = connect("localhost", trusting).await.unwrap_err();
    assert_said(&refused, "missing.pem");
    assert_eq!(refused.kind(), ErrorKind::Config);
}

async fn a_pooler_that_refuses_our_settings_is_no_outage() {
    let server = Postgres::start(PostgresOptions::default());
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let pooler = PgBouncer::start(address, server.user(), server.password());
    let mut config = config_for(&server, "127.0.0.1", pooler.port());
    assert_said(&ping(&config).await.unwrap_err(), "transactionPooler");
    config.transaction_pooler = true;
    ping(&config).await.unwrap();
}

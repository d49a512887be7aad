//! The disk of the primary.

use std::path::Path;
use std::sync::Arc;

use agent_storage::chain::{ChainState, ChainStatus, DatabaseChain};
use agent_storage::contract::Durability;
use agent_storage::testkit::{FaultProxy, NetworkFault};
use agent_storage::{Database, Error, ErrorKind, StorageManager};

use crate::disk::Disk;
use crate::support::servers::give_to_user;
use crate::support::{Postgres, PostgresOptions, Server, Suite};
use crate::until;

pub(crate) fn tests(suite: &mut Suite) {
    suite.test(
        "a_sqlite_database_whose_disk_is_full_is_owed_what_it_does_not_take",
        &[Server::Mounts],
        a_sqlite_database_whose_disk_is_full_is_owed_what_it_does_not_take,
    );
    suite.test(
        "a_postgresql_server_whose_disk_is_full_says_so_and_is_brought_what_it_is_owed_later",
        &[Server::Mounts, Server::Postgres],
        a_postgresql_server_whose_disk_is_full_says_so_and_is_brought_what_it_is_owed_later,
    );
}

/// A value that a disk is soon full of.
const LARGE: usize = 100_000;

/// An application as its configuration says.
struct Application {
    chain: Arc<DatabaseChain>,
    database: Database,
    _manager: StorageManager,
}

impl Application {
    async fn start(database: &str, folder: &Path) -> Self {
        let journal = folder.join("journal").display().to_string();
        let yaml = format!(
            "storage:\n  database:\n{database}    fallback: [ {{ type: sqlite }} ]\n    timeout: 5s\n    journal: {{ path: \
             {journal:?} }}\n    breaker: {{ probeInterval: 200ms }}\n"
        );
        let manager = StorageManager::from_yaml(&yaml).unwrap();
        let database = manager.database().await.unwrap();
        let chain = manager.open_database_chain().await.unwrap().unwrap();
        Self { chain, database, _manager: manager }
    }

    async fn set(&self, number: usize) -> Result<Durability, Error> {
        self.database.set_bytes(format!("large:{number}"), vec![7; LARGE]).await.map(|ack| ack.durability)
    }

    async fn assert_stored(&self, count: usize) {
        for number in 0..count {
            assert!(self.database.exists(format!("large:{number}")).await.unwrap(), "{number} of {count} is lost");
        }
    }
}

async fn a_sqlite_database_whose_disk_is_full_is_owed_what_it_does_not_take() {
    let (disk, folder) = (Disk::of_mebibytes(64), tempfile::tempdir().unwrap());
    let path = disk.path().join("agent.db").display().to_string();
    let application = Application::start(&format!("    type: sqlite\n    path: {path:?}\n"), folder.path()).await;
    assert_eq!(application.set(0).await.unwrap(), Durability::Primary);
    disk.take_all_but(4 << 20);
    let mut written = 1;
    while application.set(written).await.unwrap() == Durability::Primary {
        written += 1;
    }
    assert!(written > 10 && disk.free() < 1 << 20, "{written} are written, {} bytes are free", disk.free());
    for number in written + 1..written + 20 {
        // It takes a small probe now and then, and is not used for long.
        assert!(matches!(application.set(number).await.unwrap(), Durability::Local | Durability::Primary));
    }
    assert!(application.chain.status().pending > 0);
    let reason = application.chain.status().reason.map(|reason| reason.to_string()).unwrap_or_default();
    assert!(reason.contains("disk is full"), "{reason}");
    disk.give_back();
    until(&application.chain, |status| status.state == ChainState::Normal).await;
    assert_eq!((application.chain.status().pending, application.chain.status().parked), (0, 0));
    application.assert_stored(written + 20).await;
    assert_eq!(application.set(0).await.unwrap(), Durability::Primary);
}

async fn a_postgresql_server_whose_disk_is_full_says_so_and_is_brought_what_it_is_owed_later() {
    let (disk, folder) = (Disk::of_mebibytes(64), tempfile::tempdir().unwrap());
    let server = Postgres::start(PostgresOptions::default());
    let tablespace = disk.path().join("tables");
    std::fs::create_dir(&tablespace).unwrap();
    give_to_user(&tablespace);
    server.query("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", tablespace.display()));
    let name = server.create_database();
    server.query("postgres", &format!("ALTER DATABASE {name} SET TABLESPACE small"));
    let proxy = FaultProxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let (port, user, password) = (proxy.address().port(), server.user(), server.password());
    let address = format!("    type: postgres\n    host: 127.0.0.1\n    port: {port}\n    database: {name}\n");
    let database = format!("{address}    username: {user}\n    password: {password}\n");
    let application = Application::start(&database, folder.path()).await;
    assert_eq!(application.set(0).await.unwrap(), Durability::Primary);

    disk.take_all_but(4 << 20);
    let mut written = 1;
    let error = loop {
        match application.set(written).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    // It answers, so it is not away: what it does not take is refused, and nothing that it took is lost.
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("53100"), "{error}");
    assert!(written > 1 && disk.free() < 1 << 20, "{written} are written, {} bytes are free", disk.free());
    assert_eq!(application.chain.status().state, ChainState::Normal);
    application.assert_stored(written).await;

    // What was journaled while it was away waits for room.
    proxy.set(NetworkFault::Refuse).await.unwrap();
    proxy.reset().await;
    for number in written..written + 20 {
        assert_eq!(application.set(number).await.unwrap(), Durability::Local);
    }
    proxy.set(NetworkFault::Pass).await.unwrap();
    let why = |status: &ChainStatus| status.reason.as_ref().is_some_and(|reason| reason.message().contains("53100"));
    until(&application.chain, |status| status.state == ChainState::Reconciling && why(status)).await;
    let status = application.chain.status();
    assert!(status.pending > 0 && status.parked == 0, "{status:?}");
    application.assert_stored(written + 20).await;
    disk.give_back();
    until(&application.chain, |status| status.state == ChainState::Normal).await;
    assert_eq!(application.chain.status().parked, 0);
    application.assert_stored(written + 20).await;
}

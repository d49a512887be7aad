//! A manager with a PostgreSQL behind a proxy, as an application has it, and somebody else who goes to the server itself.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::postgres::PostgresDatabase;
use agent_storage::chain::{ChainState, ChainStatus, DatabaseChain};
use agent_storage::config::PostgresConfig;
use agent_storage::contract::{
    Append, AppendAck, Context, DatabaseBackend, Durability, Freshness, Store, Write, WriteAck,
};
use agent_storage::testkit::{FaultProxy, NetworkFault};
use agent_storage::{Clock, Database, ErrorKind, HybridClock, Key, Result, StorageManager, Value};
use tempfile::TempDir;

use crate::support::{Postgres, PostgresOptions};

/// How long the calls of the application may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// How long a state may take to be reached.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) server: Postgres,
    pub(crate) name: String,
    pub(crate) proxy: FaultProxy,
    folder: TempDir,
    manager: StorageManager,
    pub(crate) chain: Arc<DatabaseChain>,
    /// The application's handle.
    pub(crate) database: Database,
    /// Somebody else's, without a chain and past the proxy.
    pub(crate) others: Others,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let server = Postgres::start(PostgresOptions::default());
        let name = server.create_database();
        Self::on(server, name).await
    }

    /// One whose server can be set back to the moment before it had tables.
    pub(crate) async fn from_empty() -> Self {
        let server = Postgres::start(PostgresOptions::default());
        let name = server.create_database();
        let rig = Self::set_aside(server, "empty");
        Self::on(rig, name).await
    }

    async fn on(server: Postgres, name: String) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
        let proxy = FaultProxy::start(address).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (manager, chain, database) = open(&server, &name, &proxy, &folder).await;
        let mut config = PostgresConfig::new(server.host(), server.port());
        config.database.clone_from(&name);
        config.username = server.user().to_owned();
        config.password = Some(server.password().into());
        let clock = Arc::new(HybridClock::new(Clock::system()));
        let backend = Arc::new(PostgresDatabase::with_stamps(&config, Arc::clone(&clock)).unwrap());
        let reader = Database::new(Arc::clone(&backend) as Arc<dyn DatabaseBackend>).with_timeout(PATIENCE);
        let others = Others { reader, backend, clock };
        Self { server, name, proxy, folder, manager, chain, database, others }
    }

    /// The application starts anew, on what it left behind.
    pub(crate) async fn start_anew(&mut self) {
        self.manager.disconnect().await.unwrap();
        let (manager, chain, database) = open(&self.server, &self.name, &self.proxy, &self.folder).await;
        (self.manager, self.chain, self.database) = (manager, chain, database);
    }

    /// Waits until the chain is as wanted.
    pub(crate) async fn until(&self, reached: impl Fn(&ChainStatus) -> bool + Send + Sync) {
        let mut watch = self.chain.watch();
        let wait = async { watch.wait_for(|status| reached(status)).await.map(drop) };
        let waited = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(waited, "still {:?}", self.chain.status());
    }

    pub(crate) async fn until_normal(&self) {
        self.until(|status| status.state == ChainState::Normal).await;
        assert_eq!((self.chain.status().pending, self.chain.status().parked), (0, 0));
    }

    /// Cuts the application off, and waits until it knows.
    pub(crate) async fn cut_off(&self) {
        self.proxy.set(NetworkFault::Refuse).await.unwrap();
        self.proxy.reset().await;
        let _ = self.database.get("cut off").await;
        self.until(|status| status.state == ChainState::Degraded).await;
    }

    pub(crate) async fn connect(&self) {
        self.proxy.set(NetworkFault::Pass).await.unwrap();
    }

    /// Writes what is read by [`Rig::assert_owed`] and [`Rig::assert_paid`], while the primary is away.
    pub(crate) async fn owe(&self) {
        let owed = [
            self.database.set_json("owed", &2).await.unwrap().durability,
            self.database.delete("deleted").await.unwrap().durability,
            self.database.append_json("list", &2).await.unwrap().durability,
            self.database.append_json("list", &3).await.unwrap().durability,
        ];
        assert_eq!(owed, [Durability::Local; 4]);
    }

    /// What [`Rig::owe`] goes on from.
    pub(crate) async fn prepare(&self) {
        self.database.set_json("owed", &1).await.unwrap();
        self.database.set_json("deleted", &1).await.unwrap();
        self.database.set_json("other", &1).await.unwrap();
        self.database.append_json("list", &1).await.unwrap();
    }

    pub(crate) async fn assert_owed(&self) {
        assert_eq!(self.read("owed").await, (Some(2), Freshness::LocalPending));
        assert_eq!(self.read("deleted").await, (None, Freshness::LocalPending));
        unavailable(self.database.get("other").await);
        unavailable(self.database.range("list", 0, -1).await);
        unavailable(self.database.count("").await);
    }

    pub(crate) async fn assert_paid(&self) {
        for database in [&self.database, &*self.others] {
            assert_eq!(database.get_json("owed").await.unwrap(), Some(2));
            assert_eq!(database.get_json::<i64>("deleted").await.unwrap(), None);
            assert_eq!(database.get_json("other").await.unwrap(), Some(1));
            assert_eq!(database.range_json::<i64>("list", 0, -1).await.unwrap(), [1, 2, 3]);
        }
        assert_eq!(self.database.set_json("after", &1).await.unwrap().durability, Durability::Primary);
    }

    /// The number under a key, and from where the answer is.
    pub(crate) async fn read(&self, key: &str) -> (Option<i64>, Freshness) {
        let lookup = self.database.lookup(key).await.unwrap();
        let freshness = lookup.freshness();
        (lookup.into_value().map(|value| value.decode().unwrap()), freshness)
    }

    pub(crate) fn query(&self, sql: &str) -> String {
        self.server.query(&self.name, sql)
    }

    /// The server's processes for which a condition on `pg_stat_activity` holds.
    pub(crate) fn pids(&self, condition: &str) -> Vec<u32> {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid() AND {condition}",
            self.name
        );
        self.server.query("postgres", &sql).lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Keeps a copy of what the server holds, which is stopped for it.
    pub(crate) fn keep(&self, copy: &str) {
        self.server.stop();
        copy_folder(&self.data(), &self.folder_of(copy));
        self.server.restart();
    }

    /// Stops the server and puts a copy in the place of its data, which is set aside.
    pub(crate) fn replace_by(&self, copy: &str) {
        self.server.stop();
        std::fs::rename(self.data(), self.folder_of("right")).unwrap();
        copy_folder(&self.folder_of(copy), &self.data());
        self.server.restart();
    }

    /// Puts the right data back.
    pub(crate) fn put_back(&self) {
        self.server.stop();
        std::fs::remove_dir_all(self.data()).unwrap();
        std::fs::rename(self.folder_of("right"), self.data()).unwrap();
        self.server.restart();
    }

    /// Makes the server a replica that waits for a primary for ever, or a primary again.
    pub(crate) fn be_replica(&self, replica: bool) {
        self.server.stop();
        let signal = self.data().join("standby.signal");
        if replica {
            std::fs::write(&signal, "").unwrap();
        } else {
            std::fs::remove_file(&signal).unwrap();
        }
        self.server.restart();
    }

    fn data(&self) -> PathBuf {
        self.folder_of("data")
    }

    fn folder_of(&self, name: &str) -> PathBuf {
        self.server.folder().join(name)
    }

    fn set_aside(server: Postgres, copy: &str) -> Postgres {
        server.stop();
        copy_folder(&server.folder().join("data"), &server.folder().join(copy));
        server.restart();
        server
    }
}

/// Another process: its handle reads, and what it writes has stamps of another writer.
pub(crate) struct Others {
    reader: Database,
    backend: Arc<PostgresDatabase>,
    clock: Arc<HybridClock>,
}

impl Others {
    pub(crate) async fn set_json(&self, key: &str, number: &i64) -> Result<WriteAck> {
        let write = Write::put(Key::parse(key)?, Value::from_integer(*number), self.clock.issue());
        self.backend.write(write, &Context::with_timeout(PATIENCE)).await
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<WriteAck> {
        let write = Write::delete(Key::parse(key)?, self.clock.issue());
        self.backend.write(write, &Context::with_timeout(PATIENCE)).await
    }

    pub(crate) async fn append_json(&self, key: &str, number: &i64) -> Result<AppendAck> {
        let append = Append::new(Key::parse(key)?, Value::from_integer(*number), self.clock.issue());
        self.backend.append_many(vec![append], &Context::with_timeout(PATIENCE)).await.remove(0)
    }
}

impl Deref for Others {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.reader
    }
}

async fn open(
    server: &Postgres,
    name: &str,
    proxy: &FaultProxy,
    folder: &TempDir,
) -> (StorageManager, Arc<DatabaseChain>, Database) {
    let (port, journal) = (proxy.address().port(), folder.path().join("journal").display().to_string());
    let (user, password, timeout) = (server.user(), server.password(), TIMEOUT.as_secs());
    // No word of a fallback: it is the default.
    let yaml = format!(
        "storage:\n  cache: {{ type: in-memory }}\n  database:\n    type: postgres\n    host: 127.0.0.1\n    \
         port: {port}\n    database: {name}\n    username: {user}\n    password: {password}\n    timeout: {timeout}s\n    \
         journal: {{ path: {journal:?} }}\n    breaker: {{ probeInterval: 200ms }}\n"
    );
    let manager = StorageManager::from_yaml(&yaml).unwrap();
    let database = manager.database().await.unwrap();
    let chain = manager.open_database_chain().await.unwrap().expect("a chain by default");
    (manager, chain, database)
}

/// With owners and modes: the server is particular about them.
fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[track_caller]
pub(crate) fn unavailable<T: std::fmt::Debug>(answer: Result<T>) {
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
}

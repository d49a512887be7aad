//! A manager with a PostgreSQL behind a proxy, as an application has it, and somebody else who goes to the server itself.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::postgres::PostgresDatabase;
use agent_storage::chain::{ChainState, ChainStatus, DatabaseChain};
use agent_storage::config::PostgresConfig;
use agent_storage::contract::{
    Append, AppendAck, Attempt, Context, DatabaseBackend, Durability, Freshness, Store, Write, WriteAck,
};
use agent_storage::testkit::{FaultProxy, NetworkFault};
use agent_storage::{Clock, Database, ErrorKind, HybridClock, Key, KeyPrefix, Result, Stamp, StorageManager, Value};
use tempfile::TempDir;

use crate::support::servers::copy_folder;
use crate::support::{PgBouncer, Postgres, PostgresOptions};

/// How long the calls of the application may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// What the configuration says of a pooler.
const POOLED: &str = "transactionPooler: true";

/// How long a state may take to be reached.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) server: Postgres,
    pub(crate) name: String,
    pub(crate) proxy: FaultProxy,
    /// What stands between the application and the proxy, if anything does.
    pooler: Option<PgBouncer>,
    /// What the configuration of the application's database says besides.
    keys: &'static str,
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
        Self::with("").await
    }

    /// One whose application sends each call alone.
    pub(crate) async fn unbatched() -> Self {
        Self::with("batching: { enabled: false }").await
    }

    /// One whose application uses a PgBouncer in transaction mode.
    pub(crate) async fn behind_a_pooler() -> Self {
        Self::with(POOLED).await
    }

    pub(crate) async fn with(keys: &'static str) -> Self {
        let server = Postgres::start(PostgresOptions::default());
        let name = server.create_database();
        Self::on(server, name, keys).await
    }

    /// One whose server can be set back to the moment before it had tables.
    pub(crate) async fn from_empty() -> Self {
        let server = Postgres::start(PostgresOptions::default());
        let name = server.create_database();
        let server = Self::set_aside(server, "empty");
        Self::on(server, name, "").await
    }

    async fn on(server: Postgres, name: String, keys: &'static str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
        let proxy = FaultProxy::start(address).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pooler = (keys == POOLED).then(|| PgBouncer::start(proxy.address(), server.user(), server.password()));
        let port = pooler.as_ref().map_or(proxy.address().port(), |pooler| pooler.port());
        let (manager, chain, database) = open(&yaml(&server, &name, port, keys, &folder)).await;
        let config = direct(&server, &name);
        let clock = Arc::new(HybridClock::new(Clock::system()));
        let backend = Arc::new(PostgresDatabase::with_stamps(&config, Arc::clone(&clock)).unwrap());
        let reader = Database::new(Arc::clone(&backend) as Arc<dyn DatabaseBackend>).with_timeout(PATIENCE);
        let others = Others { reader, backend, clock };
        Self { server, name, proxy, pooler, keys, folder, manager, chain, database, others }
    }

    /// The application starts anew, on what it left behind.
    pub(crate) async fn start_anew(&mut self) {
        self.manager.disconnect().await.unwrap();
        let (manager, chain, database) = open(&self.yaml()).await;
        (self.manager, self.chain, self.database) = (manager, chain, database);
    }

    /// The configuration of the application, for another process of it.
    pub(crate) fn yaml(&self) -> String {
        let port = self.pooler.as_ref().map_or(self.proxy.address().port(), |pooler| pooler.port());
        yaml(&self.server, &self.name, port, self.keys, &self.folder)
    }

    /// Waits until the chain is as wanted.
    pub(crate) async fn until(&self, reached: impl Fn(&ChainStatus) -> bool + Send + Sync) {
        let mut watch = self.chain.watch();
        let wait = async { watch.wait_for(|status| reached(status)).await.map(drop) };
        let waited = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        let pooler = self.pooler.as_ref().map(|pooler| pooler.log()).unwrap_or_default();
        assert!(waited, "still {:?}\nThe server:\n{}\nThe pooler:\n{pooler}", self.chain.status(), self.server.log());
    }

    pub(crate) async fn until_normal(&self) {
        self.until(|status| status.state == ChainState::Normal).await;
        assert_eq!((self.chain.status().pending, self.chain.status().parked), (0, 0));
    }

    /// Writes while the server is dead, and finds all of it when the server lives again.
    pub(crate) async fn outlive_the_server(&self) {
        self.prepare().await;
        self.server.kill();
        self.owe().await;
        self.until(|status| status.state == ChainState::Degraded).await;
        self.assert_owed().await;
        self.server.restart();
        self.until_normal().await;
        self.assert_paid().await;
        assert!(self.others.conflicts().collect().await.unwrap().is_empty());
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

    /// Lets the others, whom nobody retries for, find out which of their connections ended with the server.
    pub(crate) async fn reconnect_others(&self) {
        reconnect(&self.others.reader).await;
    }

    /// Lets the application find out which of its connections ended with the server.
    pub(crate) async fn reconnect(&self) {
        reconnect(&self.database).await;
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

    /// What is owed is read as it was written.
    pub(crate) async fn assert_pending(&self) {
        assert_eq!(self.read("owed").await, (Some(2), Freshness::LocalPending));
        assert_eq!(self.read("deleted").await, (None, Freshness::LocalPending));
    }

    pub(crate) async fn assert_owed(&self) {
        self.assert_pending().await;
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

    /// Has somebody make a database of their own on another server.
    pub(crate) async fn others_on(&self, server: &Postgres) {
        let theirs = PostgresDatabase::with_stamps(&direct(server, &self.name), HybridClock::process()).unwrap();
        let cx = Context::with_timeout(PATIENCE);
        theirs
            .write(Write::put(Key::parse("other").unwrap(), Value::from_integer(7), self.others.stamp()), &cx)
            .await
            .unwrap();
        theirs.close(&cx).await.unwrap();
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

    pub(crate) fn folder_of(&self, name: &str) -> PathBuf {
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
    /// A stamp newer than all of the application, and older than those that it gives from now on. Its clock may be ahead: tests that
    /// run in this process start applications anew.
    pub(crate) fn stamp(&self) -> Stamp {
        let ours = HybridClock::process();
        let stamp = self.clock.issue_after(ours.issue());
        ours.observe(stamp);
        stamp
    }

    pub(crate) async fn set_json(&self, key: &str, number: &i64) -> Result<WriteAck> {
        let write = Write::put(Key::parse(key)?, Value::from_integer(*number), self.stamp());
        self.backend.write(write, &Context::with_timeout(PATIENCE)).await
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<WriteAck> {
        let write = Write::delete(Key::parse(key)?, self.stamp());
        self.backend.write(write, &Context::with_timeout(PATIENCE)).await
    }

    pub(crate) async fn clear(&self, prefix: &str) -> u64 {
        let cx = Context::with_timeout(PATIENCE);
        let (prefix, stamp) = (KeyPrefix::parse(prefix).unwrap(), self.stamp());
        self.backend.clear(&prefix, stamp, Attempt::First, &cx).await.unwrap().expect("PostgreSQL counts")
    }

    pub(crate) async fn append_json(&self, key: &str, number: &i64) -> Result<AppendAck> {
        let append = Append::new(Key::parse(key)?, Value::from_integer(*number), self.stamp());
        self.backend.append_many(vec![append], &Context::with_timeout(PATIENCE)).await.remove(0)
    }
}

impl Deref for Others {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.reader
    }
}

/// Past the proxy.
pub(crate) fn direct(server: &Postgres, name: &str) -> PostgresConfig {
    let mut config = PostgresConfig::new(server.host(), server.port());
    name.clone_into(&mut config.database);
    config.username = server.user().to_owned();
    config.password = Some(server.password().into());
    config
}

/// The configuration of the application.
fn yaml(server: &Postgres, name: &str, port: u16, keys: &str, folder: &TempDir) -> String {
    let journal = folder.path().join("journal").display().to_string();
    let (user, password, timeout) = (server.user(), server.password(), TIMEOUT.as_secs());
    // No word of a fallback: it is the default. The server waits for locks for longer than any test holds them.
    format!(
        "storage:\n  cache: {{ type: in-memory }}\n  database:\n    type: postgres\n    host: 127.0.0.1\n    \
         port: {port}\n    database: {name}\n    username: {user}\n    password: {password}\n    timeout: {timeout}s\n    \
         lockTimeout: 60s\n    statementTimeout: 60s\n    journal: {{ path: {journal:?} }}\n    \
         breaker: {{ probeInterval: 200ms }}\n    {keys}\n"
    )
}

async fn open(yaml: &str) -> (StorageManager, Arc<DatabaseChain>, Database) {
    let manager = StorageManager::from_yaml(yaml).unwrap();
    let database = manager.database().await.unwrap();
    let chain = manager.open_database_chain().await.unwrap().expect("a chain by default");
    (manager, chain, database)
}

async fn reconnect(database: &Database) {
    let mut in_a_row = 0;
    let connected = async {
        while in_a_row < 20 {
            in_a_row = if database.ping().await.is_ok() { in_a_row + 1 } else { 0 };
        }
    };
    assert!(tokio::time::timeout(PATIENCE, connected).await.is_ok(), "no server is found");
}

#[track_caller]
pub(crate) fn unavailable<T: std::fmt::Debug>(answer: Result<T>) {
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
}

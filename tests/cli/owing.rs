//! An application whose database is away: it writes through the library, and what it could not bring there stays in its journal.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_storage::Database;
use agent_storage::backend::sqlite::SqliteDatabase;
use agent_storage::chain::{ChainOptions, ChainState, DatabaseChain, JournalFile};
use agent_storage::config::{DatabaseChainConfig, DatabaseFallback, SqliteConfig};
use agent_storage::contract::DatabaseBackend;
use agent_storage::testkit::{Fault, FaultBackend, Faults};

use crate::folder::Folder;

/// The configuration that [`Application`] has.
pub(crate) const CHAIN: &str =
    "storage:\n  database:\n    type: sqlite\n    path: agent.db\n    fallback:\n      - type: sqlite\n";

/// The folder of the journals beside it.
pub(crate) const JOURNAL: &str = ".agent-storage/journal";

/// A process of an application, within the test's own.
pub(crate) struct Application {
    pub(crate) faults: Faults,
    pub(crate) chain: Arc<DatabaseChain>,
    pub(crate) database: Database,
}

impl Application {
    /// Starts one that uses the configuration of a folder, over a database that can be made to fail.
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::over(folder, "agent.db").await
    }

    /// Starts one whose database is another file than the configuration says.
    pub(crate) async fn over(folder: &Folder, file: &str) -> Self {
        let path = std::path::absolute(folder.path()).unwrap();
        let faults = Faults::seeded(1);
        let sqlite = Arc::new(SqliteDatabase::new(&SqliteConfig::at(path.join(file))));
        let primary: Arc<dyn DatabaseBackend> = Arc::new(FaultBackend::new(sqlite, faults.clone()));
        let mut config = DatabaseChainConfig::default();
        config.journal.path = path.join(JOURNAL);
        config.breaker.probe_interval = Duration::from_millis(100);
        let mut options = ChainOptions::new(Duration::from_secs(5));
        options.fingerprint = Some(format!("sqlite {}", path.join(file).display()));
        let chain = DatabaseChain::open(primary, DatabaseFallback::Sqlite, &config, options).await.unwrap();
        let chain = Arc::new(chain);
        let through: Arc<dyn DatabaseBackend> = chain.clone();
        Self { faults, chain, database: Database::new(through) }
    }

    /// Makes the database refuse everything, and waits until that is known.
    pub(crate) async fn fall(&self) {
        self.faults.set(Fault::FailBefore);
        let mut watch = self.chain.watch();
        let _ = self.database.get("fall").await;
        drop(watch.wait_for(|status| status.state == ChainState::Degraded).await.unwrap());
    }

    /// Ends without a word, as a process that is killed, and waits until the system knows.
    pub(crate) async fn die(self, folder: &Folder) {
        drop(self);
        let began = Instant::now();
        while journals(folder.path()).await.iter().any(|journal| journal.is_owned) {
            assert!(began.elapsed() < Duration::from_secs(30), "the journal is still locked");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The journals of a folder.
pub(crate) async fn journals(folder: &Path) -> Vec<JournalFile> {
    JournalFile::list(folder.join(JOURNAL)).await.unwrap()
}

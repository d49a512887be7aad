//! The disk of the journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::{ChainOptions, ChainState, DatabaseChain, JournalFile};
use agent_storage::config::{DatabaseChainConfig, DatabaseFallback, MemoryDatabaseConfig};
use agent_storage::contract::{DatabaseBackend, Durability, Freshness};
use agent_storage::testkit::{Fault, FaultBackend, Faults};
use agent_storage::{Database, Error, ErrorKind, Result};

use crate::disk::{Disk, protect, unprotect};
use crate::support::{Server, Suite};
use crate::until;

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Mounts], $name);)* };
    }
    tests! {
        a_full_disk_refuses_what_is_new_and_lets_go_what_it_holds
        a_process_that_starts_on_a_full_disk_brings_the_primary_what_it_is_owed
        a_process_that_starts_on_a_full_disk_reads_and_writes_the_primary
        a_first_start_on_a_full_disk_is_refused_until_there_is_room
        a_folder_that_cannot_be_written_is_told_with_what_helps
        a_journal_that_cannot_be_written_is_left_and_told
    }
}

/// A value that a disk is soon full of.
const LARGE: usize = 100_000;

/// A primary, and the switch that makes it fail.
struct Primary {
    faults: Faults,
    backend: Arc<dyn DatabaseBackend>,
    stored: Database,
}

impl Primary {
    fn new() -> Self {
        let memory: Arc<dyn DatabaseBackend> = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
        let faults = Faults::seeded(1);
        let backend = Arc::new(FaultBackend::new(Arc::clone(&memory), faults.clone()));
        Self { faults, backend, stored: Database::new(memory) }
    }

    async fn try_start(&self, folder: &Path) -> Result<Process> {
        let mut config = DatabaseChainConfig::default();
        config.journal.path = folder.to_owned();
        config.breaker.probe_interval = Duration::from_millis(100);
        let options = ChainOptions::new(Duration::from_secs(5));
        let backend = Arc::clone(&self.backend);
        let chain = Arc::new(DatabaseChain::open(backend, DatabaseFallback::Sqlite, &config, options).await?);
        let through: Arc<dyn DatabaseBackend> = chain.clone();
        Ok(Process { chain, database: Database::new(through) })
    }

    async fn start(&self, folder: &Path) -> Process {
        self.try_start(folder).await.unwrap()
    }
}

struct Process {
    chain: Arc<DatabaseChain>,
    database: Database,
}

impl Process {
    /// Has the primary fall, and writes until nothing more is taken; says how much was, and why no more is.
    async fn write_until_refused(&self, primary: &Primary) -> (usize, Error) {
        primary.faults.set(Fault::FailBefore);
        let mut kept = 0;
        loop {
            match self.database.set_bytes(format!("large:{kept}"), vec![7; LARGE]).await {
                Ok(ack) => assert_eq!(ack.durability, Durability::Local),
                Err(error) => return (kept, error),
            }
            kept += 1;
        }
    }

    /// It ends without a word; waits until the system knows.
    async fn die(self, folder: &Path) {
        drop(self);
        while JournalFile::list(folder).await.unwrap().iter().any(|journal| journal.is_owned) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn assert_stored(primary: &Primary, count: usize) {
    for number in 0..count {
        assert!(primary.stored.exists(format!("large:{number}")).await.unwrap(), "{number} of {count} is lost");
    }
}

async fn a_full_disk_refuses_what_is_new_and_lets_go_what_it_holds() {
    let (disk, primary) = (Disk::of_mebibytes(128), Primary::new());
    let folder = disk.path().join("journal");
    let process = primary.start(&folder).await;
    disk.take_all_but(10 << 20);
    let (kept, error) = process.write_until_refused(&primary).await;
    assert!(kept > 10 && disk.free() < 1 << 20, "{kept} are kept, {} bytes are free", disk.free());
    for error in [error, process.database.set_json("small", &1).await.unwrap_err()] {
        assert!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
        assert!(error.message().contains("the disk of the journal is full"), "{error}");
    }
    until(&process.chain, |status| status.journal_full).await;
    for number in 0..kept {
        let lookup = process.database.lookup(format!("large:{number}")).await.unwrap();
        assert_eq!(lookup.freshness(), Freshness::LocalPending);
        assert_eq!(lookup.into_value().unwrap().as_bytes().len(), LARGE);
    }
    // What it holds goes to the primary though there is no room.
    primary.faults.heal();
    until(&process.chain, |status| status.state == ChainState::Normal).await;
    assert_stored(&primary, kept).await;
    assert_eq!(process.chain.status().pending, 0);
    // Room that is given back is used.
    disk.give_back();
    until(&process.chain, |status| !status.journal_full).await;
    let (again, _) = {
        disk.take_all_but(40 << 20);
        process.write_until_refused(&primary).await
    };
    assert!(again > kept, "{again}, and {kept} before");
    primary.faults.heal();
    until(&process.chain, |status| status.state == ChainState::Normal).await;
    assert_stored(&primary, again).await;
}

async fn a_process_that_starts_on_a_full_disk_brings_the_primary_what_it_is_owed() {
    let (disk, primary) = (Disk::of_mebibytes(64), Primary::new());
    let folder = disk.path().join("journal");
    let process = primary.start(&folder).await;
    disk.take_all_but(10 << 20);
    let (kept, _) = process.write_until_refused(&primary).await;
    process.die(&folder).await;
    disk.give_back();
    disk.take_all_but(0);
    assert!(disk.free() < 1 << 16, "{}", disk.free());
    let heir = primary.start(&folder).await;
    assert_eq!(heir.chain.status().pending, kept);
    assert!(heir.database.get("large:0").await.unwrap().is_some());
    primary.faults.heal();
    until(&heir.chain, |status| status.state == ChainState::Normal).await;
    assert_stored(&primary, kept).await;
}

async fn a_process_that_starts_on_a_full_disk_reads_and_writes_the_primary() {
    let (disk, primary) = (Disk::of_mebibytes(64), Primary::new());
    let folder = disk.path().join("journal");
    let process = primary.start(&folder).await;
    process.database.set_json("k", &1).await.unwrap();
    process.die(&folder).await;
    // As it is left by one that ends in order: without SQLite's other files.
    let journals = JournalFile::list(&folder).await.unwrap();
    rusqlite::Connection::open(journals[0].path.clone())
        .unwrap()
        .pragma_update(None, "wal_checkpoint", "TRUNCATE")
        .unwrap();
    assert!(!journals[0].path.with_extension("db-wal").exists());
    disk.take_all_but(0);
    let heir = primary.start(&folder).await;
    assert!(heir.chain.status().journal_full && heir.chain.status().left_journals.is_empty());
    assert_eq!(heir.database.get_json("k").await.unwrap(), Some(1));
    assert_eq!(heir.database.set_json("k", &2).await.unwrap().durability, Durability::Primary);
    disk.give_back();
    until(&heir.chain, |status| !status.journal_full).await;
}

async fn a_first_start_on_a_full_disk_is_refused_until_there_is_room() {
    let (disk, primary) = (Disk::of_mebibytes(64), Primary::new());
    let folder = disk.path().join("journal");
    disk.take_all_but(0);
    let error = primary.try_start(&folder).await.err().expect("it cannot begin");
    assert!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
    assert!(error.message().contains("the disk of the journal is full"), "{error}");
    disk.give_back();
    let process = primary.start(&folder).await;
    primary.faults.set(Fault::FailBefore);
    assert_eq!(process.database.set_json("k", &1).await.unwrap().durability, Durability::Local);
}

async fn a_folder_that_cannot_be_written_is_told_with_what_helps() {
    let (disk, primary) = (Disk::of_mebibytes(64), Primary::new());
    let folder = disk.path().join("journal");
    let process = primary.start(&folder).await;
    primary.faults.set(Fault::FailBefore);
    process.database.set_json("k", &1).await.unwrap();
    process.die(&folder).await;
    protect(&folder);
    let error = primary.try_start(&folder).await.err().expect("it cannot begin");
    assert!(error.kind() == ErrorKind::Unavailable && !error.is_transient(), "{error}");
    let helps = "name a folder that can be written to in `journal.path`, or set `fallback: none`";
    assert!(error.message().contains(helps) && error.message().contains("journal"), "{error}");
    unprotect(&folder);
    // All that was acknowledged is there.
    let heir = primary.start(&folder).await;
    assert_eq!(heir.database.get_json("k").await.unwrap(), Some(1));
}

async fn a_journal_that_cannot_be_written_is_left_and_told() {
    let (disk, primary) = (Disk::of_mebibytes(96), Primary::new());
    let folder = disk.path().join("journal");
    let process = primary.start(&folder).await;
    primary.faults.set(Fault::FailBefore);
    process.database.set_json("k", &1).await.unwrap();
    process.die(&folder).await;
    let journal = JournalFile::list(&folder).await.unwrap().remove(0).path;
    let protected: Vec<PathBuf> =
        [journal.clone(), journal.with_extension("db-wal")].into_iter().filter(|path| path.exists()).collect();
    protected.iter().for_each(|path| protect(path));
    let process = primary.start(&folder).await;
    let told = process.chain.status().left_journals.join("\n");
    assert!(told.contains(journal.to_str().unwrap()) && told.contains("cannot be written"), "{told}");
    assert_eq!(process.chain.status().pending, 0);
    process.database.set_json("other", &2).await.unwrap();
    process.die(&folder).await;
    protected.iter().for_each(|path| unprotect(path));
    primary.faults.heal();
    let heir = primary.start(&folder).await;
    until(&heir.chain, |status| status.state == ChainState::Normal).await;
    assert_eq!(primary.stored.get_json("k").await.unwrap(), Some(1));
    assert_eq!(primary.stored.get_json("other").await.unwrap(), Some(2));
}

//! A journal on this machine's disk: a SQLite file that one process owns.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::OnceCell;
use tokio::time::{timeout, timeout_at};

use crate::config::Synchronous;
use crate::contract::{Durability, Identity, Succession};
use crate::engine::sqlite::{Atomicity, Engine, Maintenance, Options, ReadKind, SqlResult};
use crate::error::{Error, Result};
use crate::stamp::Stamp;

use super::acceptance;
use super::episode;
use super::layout::LAYOUT;
use super::lock::OwnerLock;
use super::operation::{Episode, Exported, Header, Meta, Operation};
use super::shared::Shared;
use super::store::Journal;
use super::table;

/// How long a call without a deadline of its own may take. Its caller is a task, not a user.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait for a lock of another process: a tool that looks into the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the file is looked at, to make it smaller or to find that the disk has room again.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// How long a word beside the journal may take to read: whoever looks for it has a primary to watch.
const WORD_WITHIN: Duration = Duration::from_secs(1);

/// The deadline of such a call that begins now.
pub(super) fn patiently() -> Instant {
    Instant::now() + PATIENCE
}

type Slot = Arc<OnceCell<Arc<Engine>>>;

/// Operations in a file, each on the disk when it is acknowledged.
#[derive(Debug)]
pub(crate) struct DiskJournal {
    path: PathBuf,
    shared: Arc<Shared>,
    slot: Mutex<Slot>,
    closed: AtomicBool,
    /// Held while the word beside the file is looked at: of a disk that hangs no more is asked.
    word: Arc<tokio::sync::Mutex<()>>,
}

impl DiskJournal {
    /// Opens a file whose owner this process is, or makes it. It may hold about so many bytes.
    ///
    /// # Errors
    ///
    /// `Config` if the file is not a journal, or one of a newer program; `Corrupt` if it is damaged; `Unavailable` if it cannot be
    /// used now.
    pub(super) async fn open(path: PathBuf, lock: OwnerLock, max_bytes: u64) -> Result<Self> {
        let deadline = patiently();
        let shared = Arc::new(Shared::new(&path, lock, max_bytes));
        let slot = Slot::default();
        let journal =
            Self { path, shared, slot: Mutex::new(slot), closed: AtomicBool::new(false), word: Arc::default() };
        let shared = Arc::clone(&journal.shared);
        let begin = move |connection: &Connection| shared.begin(connection);
        let begin = async || {
            let engine = journal.engine(deadline).await?;
            engine.write_to_end(0, Atomicity::Statement, deadline, begin.clone()).await
        };
        let mut begun = begin().await;
        if begun.as_ref().is_err_and(is_disk_full) {
            journal.shared.give_way();
            begun = begin().await;
        }
        begun.map_err(named)?;
        Ok(journal)
    }

    /// The number of the newest operation.
    pub(super) fn last_seq(&self) -> u64 {
        self.shared.last_seq()
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does something with the word beside the file; None if the disk does not answer in time, or has not answered the one before.
    async fn with_word<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> T + Send + 'static) -> Option<T> {
        let (path, turn) = (self.path.clone(), Arc::clone(&self.word).try_lock_owned().ok()?);
        let working = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&path)
        });
        timeout(WORD_WITHIN, working).await.ok()?.ok()
    }

    /// Runs a job that does more than to add operations. The engine is opened anew if it failed: what was replayed must be
    /// removed all the same. A job that has not begun by the deadline never does; one that has is waited for.
    pub(super) async fn change<T, F>(&self, deadline: Instant, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Connection, &Shared) -> SqlResult<T> + Clone + Send + 'static,
    {
        let run = async |work: F| {
            let engine = self.engine(deadline).await?;
            let shared = Arc::clone(&self.shared);
            let outcome = engine
                .write_to_end(0, Atomicity::Savepoint, deadline, move |connection| work(connection, &shared))
                .await;
            outcome.inspect_err(|error| self.shared.note(&engine, error))
        };
        let outcome = run(work.clone()).await;
        if outcome.as_ref().is_err_and(is_disk_full) {
            self.shared.give_way();
            return run(work).await;
        }
        outcome
    }

    async fn look<T, F>(&self, kind: ReadKind, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> SqlResult<T> + Send + 'static,
    {
        let deadline = patiently();
        // The readers of an engine go on where its writer failed.
        self.engine_in(&self.slot(), deadline).await?.read(kind, deadline, work).await
    }

    /// The engine; one that failed is opened anew.
    async fn engine(&self, deadline: Instant) -> Result<Arc<Engine>> {
        let slot = self.slot();
        let engine = self.engine_in(&slot, deadline).await?;
        if !engine.has_failed() {
            return Ok(engine);
        }
        self.shared.set_failed();
        self.engine_in(&self.slot_after(&slot), deadline).await
    }

    async fn engine_in(&self, slot: &Slot, deadline: Instant) -> Result<Arc<Engine>> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::closed());
        }
        slot.get_or_try_init(|| self.open_engine(deadline)).await.map(Arc::clone)
    }

    async fn open_engine(&self, deadline: Instant) -> Result<Arc<Engine>> {
        let shared = Arc::clone(&self.shared);
        let options = Options {
            path: self.path.clone(),
            synchronous: Synchronous::Full,
            readers: 2,
            busy_timeout: BUSY_TIMEOUT,
            layout: LAYOUT,
            admission: None,
            // The writer holds on to what it is shown here, and so to the lock, until it has closed the file.
            maintenance: Some(Maintenance {
                every: TIDY_EVERY,
                portion: Box::new(move |connection| shared.tidy(connection)),
            }),
        };
        let engine = Arc::new(Engine::open(options, deadline).await?);
        // Whoever closed in the meantime found nothing to close.
        if self.closed.load(Ordering::SeqCst) { Err(Error::closed()) } else { Ok(engine) }
    }

    /// The slot that replaces a failed one, whoever comes first.
    fn slot_after(&self, failed: &Slot) -> Slot {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&slot, failed) {
            *slot = Slot::default();
        }
        Arc::clone(&slot)
    }

    fn slot(&self) -> Slot {
        Arc::clone(&self.slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Journal for DiskJournal {
    async fn append(&self, operations: Vec<Operation>, since: Stamp, deadline: Instant) -> Result<Vec<u64>> {
        let engine = self.engine_in(&self.slot(), deadline).await?;
        if engine.has_failed() {
            self.shared.set_failed();
        }
        self.shared.check()?;
        let weight = operations.iter().map(Operation::size).sum();
        let atomicity = if operations.len() == 1 { Atomicity::Statement } else { Atomicity::Savepoint };
        let shared = Arc::clone(&self.shared);
        let append = move |connection: &Connection| {
            shared.make_room(connection, weight)?;
            // Should the rest fail, this stays, and does no harm.
            episode::begin(connection, since)?;
            table::insert(connection, &operations, || shared.next_seq())
        };
        let outcome = engine.write_to_end(weight, atomicity, deadline, append).await;
        outcome.map_err(|error| {
            self.shared.note(&engine, &error);
            named(error)
        })
    }

    async fn read(&self, seq: u64) -> Result<Option<Operation>> {
        self.look(ReadKind::Point, move |connection| table::read(connection, seq)).await
    }

    async fn read_many(&self, seqs: Vec<u64>, max_bytes: usize) -> Result<Vec<(u64, Operation)>> {
        self.look(ReadKind::Scan, move |connection| table::read_many(connection, &seqs, max_bytes)).await
    }

    async fn settle(&self, done: Vec<u64>, parked: Vec<(u64, String)>) -> Result<()> {
        let work = Arc::new((done, parked));
        self.change(patiently(), move |connection, shared| {
            let (done, parked) = &*work;
            table::remove(connection, done)?;
            table::park(connection, parked)?;
            episode::end_if_settled(connection)?;
            shared.measure(connection)
        })
        .await
    }

    async fn unpark(&self, seqs: Vec<u64>) -> Result<()> {
        let seqs = Arc::new(seqs);
        self.change(patiently(), move |connection, _| episode::unpark(connection, &seqs)).await
    }

    async fn drop_parked(&self, seq: u64) -> Result<bool> {
        self.change(patiently(), move |connection, shared| {
            let was_there = table::drop_parked(connection, seq)?;
            episode::end_if_settled(connection)?;
            shared.measure(connection)?;
            Ok(was_there)
        })
        .await
    }

    async fn episode(&self) -> Result<Episode> {
        self.look(ReadKind::Point, episode::read).await
    }

    async fn add_succession(&self, added: Succession) -> Result<()> {
        self.change(patiently(), move |connection, _| episode::add_succession(connection, &added)).await
    }

    async fn headers(&self, after: u64, limit: usize) -> Result<Vec<Header>> {
        self.look(ReadKind::Scan, move |connection| table::headers(connection, after, limit)).await
    }

    async fn export(&self, after: u64, limit: usize, max_bytes: usize) -> Result<Vec<Exported>> {
        self.look(ReadKind::Scan, move |connection| table::export(connection, after, limit, max_bytes)).await
    }

    async fn meta(&self) -> Result<Meta> {
        self.look(ReadKind::Point, table::meta).await
    }

    async fn set_meta(&self, meta: Meta) -> Result<()> {
        let deadline = patiently();
        let written = self.change(deadline, move |connection, _| table::set_meta(connection, &meta));
        // Nothing depends on whether it came through, and its caller has a primary to watch.
        let late =
            |_| Error::outcome_unknown("the journal did not answer in time; what is known may have been written");
        timeout_at(deadline.into(), written).await.map_err(late)?
    }

    async fn accepted(&self) -> Option<Identity> {
        self.with_word(acceptance::announced).await?.map(|word| word.identity)
    }

    async fn forget_accepted(&self) {
        // Should it not be removed now, the next probe does.
        let _: Option<()> = self.with_word(acceptance::forget).await;
    }

    fn durability(&self) -> Durability {
        Durability::Local
    }

    fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    fn is_full(&self) -> bool {
        self.shared.is_full()
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        let (slot, shared) = (self.slot(), Arc::clone(&self.shared));
        // It goes on though nobody waits any more: whoever comes next is let in as soon as the file is closed.
        let ending = tokio::spawn(async move {
            if let Some(engine) = slot.get() {
                engine.end().await;
            }
            shared.close();
        });
        let ended = timeout_at(deadline.into(), ending).await;
        ended.map(drop).map_err(|_| Error::unavailable("the journal is still ending what was queued"))
    }
}

/// What the caller of an operation is told for which the disk has no room.
pub(super) fn disk_full() -> Error {
    Error::unavailable("the disk of the journal is full; nothing was written. It is used again as soon as it has room")
}

/// The error of a disk without room says which disk it is.
fn named(error: Error) -> Error {
    if is_disk_full(&error) { disk_full().with_source(error) } else { error }
}

/// Whether SQLite found no room on the disk, be it for the memory that it shares by a file.
pub(super) fn is_disk_full(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<rusqlite::Error>());
    source.and_then(rusqlite::Error::sqlite_error).is_some_and(|error| {
        error.code == rusqlite::ErrorCode::DiskFull || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
    })
}

//! The [`Engine`]: an open file, its threads, and the async calls that hand them work.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use crate::error::{Error, Outage, Result};

use super::error::{SqlError, SqlResult, locked};
use super::job::{Atomicity, Terms, Waiter, job};
use super::open::{Opened, Options, open_all};
use super::queue::Queue;
use super::reader::{Reader, late};
use super::state::EngineState;
use super::writer::Writer;

/// Payload that may wait for the writer, and as much for the readers.
const QUEUE_BYTES: usize = 64 << 20;

/// How long a read may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadKind {
    /// A few rows: it shares a snapshot with others.
    Point,
    /// Possibly many rows: no other read waits behind it.
    Scan,
}

/// An open SQLite file. Its threads end when it is closed or dropped, after what was queued.
pub(crate) struct Engine {
    writes: Arc<Queue>,
    reads: Arc<Queue>,
    state: Arc<EngineState>,
    /// Each thread holds a receiver.
    threads: watch::Sender<()>,
}

impl Engine {
    /// Opens a file on its own thread.
    ///
    /// # Errors
    ///
    /// `Config` if the file is not ours to use; `Unavailable` if it cannot be used now, `permanent` where waiting does not
    /// help; whatever the layout answers.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it ends, it opens the file to the end and closes it again.
    pub(crate) async fn open(mut options: Options, deadline: Instant) -> Result<Self> {
        let (writes, reads) = (Arc::new(Queue::new(QUEUE_BYTES)), Arc::new(Queue::new(QUEUE_BYTES)));
        let state = Arc::new(EngineState::default());
        let (threads, alive) = watch::channel(());
        let (ready, opened) = oneshot::channel();
        let (reading, readers_done) = mpsc::channel();
        let busy_timeout = options.busy_timeout;
        let (writer_queue, writer_state, writer_alive) = (Arc::clone(&writes), Arc::clone(&state), alive.clone());
        spawn("sqlite-writer", move || {
            let _alive = writer_alive;
            let Opened { file, writer: connection, readers } = match open_all(&options, deadline) {
                Ok(opened) => opened,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let writer = Writer {
                connection,
                file: file.clone(),
                queue: writer_queue,
                state: writer_state,
                busy_timeout,
                maintenance: options.maintenance.take(),
                readers: readers_done,
            };
            if ready.send(Ok((file, readers))).is_ok() {
                writer.run();
            }
        })?;
        let engine = Self { writes, reads, state, threads };
        let (file, readers) = match timeout_at(deadline.into(), opened).await {
            Ok(Ok(opened)) => opened?,
            Ok(Err(_)) => return Err(Error::internal("opening the SQLite database panicked")),
            Err(_) => return Err(Error::unavailable("the SQLite database could not be opened before the deadline")),
        };
        for connection in readers {
            let (file, queue, state) = (file.clone(), Arc::clone(&engine.reads), Arc::clone(&engine.state));
            let reader = Reader::new(connection, file, queue, state, busy_timeout).map_err(SqlError::into_error)?;
            let alive = (alive.clone(), reading.clone());
            spawn("sqlite-reader", move || {
                let _alive = alive;
                reader.run();
            })?;
        }
        Ok(engine)
    }

    /// Runs a job on the writer, in one transaction with others, and answers after the commit.
    ///
    /// `weight` is the payload in bytes. A job that failed leaves nothing behind. If another of the transaction fails, all of
    /// it may be undone and the job run again; so it may change nothing but the database.
    ///
    /// # Errors
    ///
    /// What the job failed with; `Unavailable` if it was not applied, by lack of time, room, disk or a lock;
    /// `OutcomeUnknown` if the deadline passed, or the disk failed, while it was applied; `Closed` after [`Engine::close`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before the job begins, it never runs; one that has begun runs to its end.
    pub(crate) async fn write<T, F>(&self, weight: usize, atomicity: Atomicity, deadline: Instant, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> SqlResult<T> + Send + 'static,
    {
        let waiter = self.push(Terms { deadline, weight, atomicity, alone: false }, work).await?;
        let begun = || {
            let why = "the write had begun when its deadline passed; it may have been applied";
            Error::outcome_unknown(why).with_outage(Outage::Silent)
        };
        waiter.wait(|| self.not_begun(), begun).await
    }

    /// Does as [`Engine::write`], but for a job that began in time it waits as long as it takes, so that its caller knows whether it
    /// was applied.
    ///
    /// # Errors
    ///
    /// As [`Engine::write`]; `OutcomeUnknown` only if the disk failed.
    ///
    /// # Cancel safety
    ///
    /// As [`Engine::write`].
    pub(crate) async fn write_to_end<T, F>(
        &self,
        weight: usize,
        atomicity: Atomicity,
        deadline: Instant,
        work: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> SqlResult<T> + Send + 'static,
    {
        let waiter = self.push(Terms { deadline, weight, atomicity, alone: false }, work).await?;
        let died = || {
            let why = "the SQLite writer ended in the middle of a write; it may have been applied";
            Error::outcome_unknown(why).with_outage(Outage::Down)
        };
        waiter.wait_to_end(|| self.not_begun(), died).await
    }

    async fn push<T, F>(&self, terms: Terms, work: F) -> Result<Waiter<T>>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> SqlResult<T> + Send + 'static,
    {
        let (job, waiter) = job(terms, work);
        self.writes.push(job).await?;
        Ok(waiter)
    }

    /// The error of a write that never began.
    fn not_begun(&self) -> Error {
        if self.state.locking.load(Ordering::Acquire) {
            return locked();
        }
        Error::unavailable("the write waited in the queue until its deadline; nothing was written")
    }

    /// Runs a job on a reader, in a snapshot that holds every write acknowledged before.
    ///
    /// # Errors
    ///
    /// What the job failed with; `Unavailable` if it did not end in time; `Closed` after [`Engine::close`].
    ///
    /// # Cancel safety
    ///
    /// It changes nothing and may be dropped at any point.
    pub(crate) async fn read<T, F>(&self, kind: ReadKind, deadline: Instant, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> SqlResult<T> + Send + 'static,
    {
        let alone = kind == ReadKind::Scan;
        let (job, waiter) = job(Terms { deadline, weight: 0, atomicity: Atomicity::Statement, alone }, work);
        self.reads.push(job).await?;
        waiter.wait(late, late).await
    }

    /// Whether a commit left open what is on the disk, or a thread panicked. The file must be opened anew then.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.failed.load(Ordering::Acquire)
    }

    /// Lets no more jobs in, and waits until those that are queued have ended and the file is closed.
    ///
    /// # Errors
    ///
    /// `Unavailable` if that takes longer than the deadline; it goes on by itself.
    ///
    /// # Cancel safety
    ///
    /// The engine is closed from the first poll on; dropping it only ends the waiting.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<()> {
        timeout_at(deadline.into(), self.end())
            .await
            .map_err(|_| Error::unavailable("the SQLite database is still ending what was queued"))
    }

    /// Closes it as [`Engine::close`] does, however long that takes.
    ///
    /// # Cancel safety
    ///
    /// As [`Engine::close`].
    pub(crate) async fn end(&self) {
        self.stop();
        self.threads.closed().await;
    }

    fn stop(&self) {
        self.reads.close(Error::closed());
        self.writes.close(Error::closed());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("state", &self.state).finish_non_exhaustive()
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| Error::unavailable("no thread could be started for SQLite").with_source(error))
}

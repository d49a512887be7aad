//! The writer thread: takes all that is queued, runs it in one transaction, commits, and only then answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{Error, Outage, Result};

use super::connection::{execute, roll_back};
use super::error::{SqlResult, locked};
use super::file::DatabaseFile;
use super::job::{Atomicity, Job, refuse};
use super::log::Log;
use super::queue::{Limits, Queue, Taken};
use super::state::EngineState;

/// A group's bounds: what one transaction may hold up the callers behind it.
const GROUP: Limits = Limits { jobs: 4096, bytes: 16 << 20 };

/// Work that the writer does from time to time between groups, each portion in a transaction of its own.
pub(crate) struct Maintenance {
    /// How long to rest once there is nothing left to do.
    pub(crate) every: Duration,
    /// Does one portion, small enough that callers can wait for it.
    pub(crate) portion: Portion,
}

/// One portion of maintenance, run within a transaction.
pub(crate) type Portion = Box<dyn FnMut(&Connection) -> SqlResult<Progress> + Send>;

/// Whether a portion of maintenance was the last one for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There may be more to do.
    More,
    /// Nothing is left to do.
    Done,
}

/// What is done lest a job that fails takes others along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// Nothing: a job that fails in the middle spoils the transaction.
    None,
    /// A savepoint for each job of several statements.
    Savepoints,
}

/// What a job leaves of the transaction it ran in.
enum Left {
    /// All that ran before, and all of the job or nothing.
    Whole,
    /// A part of the job's changes.
    Torn,
    /// Nothing that can be trusted, for this reason.
    Lost(Error),
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) file: DatabaseFile,
    pub(super) queue: Arc<Queue>,
    pub(super) state: Arc<EngineState>,
    pub(super) busy_timeout: Duration,
    pub(super) maintenance: Option<Maintenance>,
    /// Nothing is ever sent: it ends when the last reader has closed its connection.
    pub(super) readers: mpsc::Receiver<()>,
}

impl Writer {
    /// Serves the queue until it is closed and empty, or a commit failed badly.
    pub(super) fn run(mut self) {
        let exit = Exit { queue: Arc::clone(&self.queue), state: Arc::clone(&self.state) };
        let mut log = Log::new(&self.file, &self.connection);
        let mut maintenance_due = self.maintenance.as_ref().map(|work| Instant::now() + work.every);
        let mut waiting = VecDeque::new();
        loop {
            let until = [maintenance_due, log.due()].into_iter().flatten().min();
            match self.queue.take(GROUP, until, &mut waiting) {
                Taken::Jobs => {
                    while !waiting.is_empty() {
                        self.group(&mut waiting);
                    }
                    log.written(&self.connection);
                }
                Taken::Nothing => log.rest(&self.connection),
                Taken::Closed => {
                    // Of connections that close at the same time each may see the other, so that none moves the log into the file.
                    let _ = self.readers.recv();
                    break;
                }
            }
            if self.state.failed.load(Ordering::Acquire) {
                break;
            }
            if maintenance_due.is_some_and(|due| due <= Instant::now()) {
                maintenance_due = self.maintain();
                log.written(&self.connection);
            }
        }
        // The connection goes first, so that whoever waits for the end finds the file closed.
        drop(self.connection);
        drop(exit);
    }

    /// Runs jobs in one transaction, until all ran or SQLite gave the transaction up.
    ///
    /// Each runs as if none could fail. If one does in the middle of its changes, all are undone and run again, each so that
    /// it can be undone alone.
    fn group(&self, waiting: &mut VecDeque<Box<dyn Job>>) {
        if !self.transaction(waiting, Care::None) {
            self.transaction(waiting, Care::Savepoints);
        }
    }

    /// One attempt at a group. `false` if all was undone because of one job; the jobs wait again then.
    fn transaction(&self, waiting: &mut VecDeque<Box<dyn Job>>, care: Care) -> bool {
        if let Err(error) = self.file.check().and_then(|()| self.begin(waiting)) {
            waiting.drain(..).for_each(|job| refuse(job, &error));
            return true;
        }
        let mut ran = VecDeque::with_capacity(waiting.len());
        while let Some(mut job) = waiting.pop_front() {
            if job.deadline() <= Instant::now() {
                let why = "the write waited in the queue until its deadline; nothing was written";
                refuse(job, &Error::unavailable(why));
                continue;
            }
            if !job.start() {
                continue;
            }
            let left = self.run_job(&mut *job, care);
            ran.push_back(job);
            match left {
                Left::Whole => {}
                Left::Torn => {
                    roll_back(&self.connection);
                    if ran.len() > 1 || !waiting.is_empty() {
                        ran.append(waiting);
                        *waiting = ran;
                        return false;
                    }
                }
                Left::Lost(error) => {
                    roll_back(&self.connection);
                    ran.into_iter().for_each(|job| job.finish(Err(error.clone())));
                    return true;
                }
            }
        }
        let outcome = if self.connection.is_autocommit() { Ok(()) } else { self.commit() };
        ran.into_iter().for_each(|job| job.finish(outcome.clone()));
        true
    }

    fn run_job(&self, job: &mut dyn Job, care: Care) -> Left {
        let several = job.atomicity() == Atomicity::Savepoint;
        if several && care == Care::Savepoints {
            return self.run_in_savepoint(job).map_or_else(|error| Left::Lost(error.into_error()), |()| self.whole());
        }
        let before = self.connection.total_changes();
        let torn = !job.run(&self.connection) && several && self.connection.total_changes() != before;
        if torn && !self.connection.is_autocommit() { Left::Torn } else { self.whole() }
    }

    /// What is left if nothing but SQLite itself can have undone something.
    fn whole(&self) -> Left {
        if self.connection.is_autocommit() { Left::Lost(rolled_back()) } else { Left::Whole }
    }

    /// Takes the write lock, waiting for other processes; answers those whose time is up meanwhile.
    fn begin(&self, waiting: &mut VecDeque<Box<dyn Job>>) -> Result<()> {
        let patience = Instant::now() + self.busy_timeout;
        self.state.locking.store(true, Ordering::Release);
        let outcome = loop {
            match execute(&self.connection, "BEGIN IMMEDIATE") {
                Ok(()) => break Ok(()),
                Err(error) if error.is_busy() => {}
                Err(error) => break Err(error.into_error()),
            }
            let now = Instant::now();
            for job in std::mem::take(waiting) {
                if job.deadline().min(patience) <= now {
                    refuse(job, &locked());
                } else {
                    waiting.push_back(job);
                }
            }
            if waiting.is_empty() {
                break Err(locked());
            }
        };
        self.state.locking.store(false, Ordering::Release);
        outcome
    }

    /// Runs a job so that nothing of it stays if it fails. An error means that the transaction cannot be trusted.
    fn run_in_savepoint(&self, job: &mut dyn Job) -> SqlResult<()> {
        execute(&self.connection, "SAVEPOINT job")?;
        if !job.run(&self.connection) {
            if self.connection.is_autocommit() {
                return Ok(());
            }
            execute(&self.connection, "ROLLBACK TO job")?;
        }
        execute(&self.connection, "RELEASE job")
    }

    fn commit(&self) -> Result<()> {
        let Err(error) = execute(&self.connection, "COMMIT") else { return Ok(()) };
        let unknown = error.is_io_failure();
        roll_back(&self.connection);
        if !unknown {
            return Err(error.into_error());
        }
        // The frames may have reached the disk without the call that forces them: after a crash they might count. And a
        // disk that failed to force data once may drop it silently the next time, so this connection ends here.
        tracing::error!(%error, "a commit to the SQLite database failed");
        self.state.failed.store(true, Ordering::Release);
        let why = "the disk failed while the write was committed; it may have been applied";
        Err(Error::outcome_unknown(why).with_outage(Outage::Down))
    }

    /// Does one portion of maintenance and says when the next is due. Callers never fail by it.
    fn maintain(&mut self) -> Option<Instant> {
        let Self { connection, maintenance, file, queue, .. } = self;
        let work = maintenance.as_mut()?;
        let rest = Instant::now() + work.every;
        if file.check().is_err() {
            return Some(rest);
        }
        let outcome = execute(connection, "BEGIN IMMEDIATE").and_then(|()| {
            let progress = (work.portion)(connection)?;
            execute(connection, "COMMIT")?;
            Ok(progress)
        });
        match outcome {
            Ok(Progress::More) if queue.is_closed() => None,
            Ok(Progress::More) => Some(Instant::now()),
            Ok(Progress::Done) => Some(rest),
            Err(error) => {
                roll_back(connection);
                if !error.is_busy() {
                    tracing::warn!(%error, "the maintenance of the SQLite database failed and will be tried again");
                }
                Some(rest)
            }
        }
    }
}

/// Lets nobody wait for a thread that has ended, even by a panic.
struct Exit {
    queue: Arc<Queue>,
    state: Arc<EngineState>,
}

impl Drop for Exit {
    fn drop(&mut self) {
        self.state.note_panic();
        let reason = Error::unavailable("the SQLite writer has stopped after a failure; nothing was written");
        let reason = reason.with_outage(Outage::Down);
        self.queue.close(reason.clone());
        let mut left = VecDeque::new();
        while matches!(self.queue.take(GROUP, Some(Instant::now()), &mut left), Taken::Jobs) {
            left.drain(..).for_each(|job| refuse(job, &reason));
        }
    }
}

fn rolled_back() -> Error {
    let why = "SQLite undid a group of writes because one of them failed badly; nothing was written";
    // It does so by itself only where disk or memory gave out.
    Error::unavailable(why).with_outage(Outage::Down)
}

//! A reader thread: several queued reads in one snapshot, each under its own deadline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{Error, Result};

use super::connection::{execute, roll_back};
use super::error::{SqlResult, locked};
use super::file::DatabaseFile;
use super::job::{Job, refuse};
use super::queue::{Limits, Queue, Taken};
use super::state::EngineState;

/// Reads in one snapshot. Few, so that the other readers find some too.
const GROUP: Limits = Limits { jobs: 64, bytes: usize::MAX };

/// Steps of SQLite's virtual machine between two looks at the clock: well below a millisecond.
const STEPS: i32 = 5000;

pub(super) struct Reader {
    connection: Connection,
    file: DatabaseFile,
    queue: Arc<Queue>,
    state: Arc<EngineState>,
    busy_timeout: Duration,
    deadline: Arc<Deadline>,
}

impl Reader {
    pub(super) fn new(
        connection: Connection,
        file: DatabaseFile,
        queue: Arc<Queue>,
        state: Arc<EngineState>,
        busy_timeout: Duration,
    ) -> SqlResult<Self> {
        let deadline = Arc::new(Deadline::new());
        let watch = Arc::clone(&deadline);
        connection.progress_handler(STEPS, Some(move || watch.has_passed()))?;
        Ok(Self { connection, file, queue, state, busy_timeout, deadline })
    }

    /// Serves the queue until it is closed and empty.
    pub(super) fn run(self) {
        let mut waiting = VecDeque::new();
        while matches!(self.queue.take(GROUP, None, &mut waiting), Taken::Jobs) {
            self.group(&mut waiting);
        }
    }

    fn group(&self, waiting: &mut VecDeque<Box<dyn Job>>) {
        if let Err(error) = self.file.check().and_then(|()| self.begin(waiting)) {
            waiting.drain(..).for_each(|job| refuse(job, &error));
            roll_back(&self.connection);
            return;
        }
        for mut job in waiting.drain(..) {
            if job.deadline() <= Instant::now() {
                refuse(job, &late());
                continue;
            }
            if !job.start() {
                continue;
            }
            self.deadline.set(Some(job.deadline()));
            job.run(&self.connection);
            job.finish(Ok(()));
        }
        self.deadline.set(None);
        roll_back(&self.connection);
    }

    /// Takes the snapshot, waiting for a lock if need be; once it is taken, no read is locked out any more.
    fn begin(&self, waiting: &VecDeque<Box<dyn Job>>) -> Result<()> {
        let patience = Instant::now() + self.busy_timeout;
        let latest = waiting.iter().map(|job| job.deadline()).max().map_or(patience, |latest| latest.min(patience));
        loop {
            match self.snapshot() {
                Ok(()) => return Ok(()),
                Err(error) if error.is_busy() && Instant::now() < latest => {}
                Err(error) if error.is_busy() => return Err(locked()),
                Err(error) => return Err(error.into_error()),
            }
        }
    }

    fn snapshot(&self) -> SqlResult<()> {
        if self.connection.is_autocommit() {
            execute(&self.connection, "BEGIN")?;
        }
        self.connection.prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 1")?.exists([])?;
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.state.note_panic();
    }
}

/// The error of a read that was not answered in time.
pub(super) fn late() -> Error {
    Error::unavailable("the read did not end before its deadline")
}

/// The moment by which the running read must end, as SQLite's progress handler looks at it.
struct Deadline {
    origin: Instant,
    nanos: AtomicU64,
}

impl Deadline {
    fn new() -> Self {
        Self { origin: Instant::now(), nanos: AtomicU64::new(u64::MAX) }
    }

    fn set(&self, moment: Option<Instant>) {
        let nanos = moment.map_or(u64::MAX, |moment| nanos(moment.saturating_duration_since(self.origin)));
        self.nanos.store(nanos, Ordering::Relaxed);
    }

    fn has_passed(&self) -> bool {
        nanos(self.origin.elapsed()) > self.nanos.load(Ordering::Relaxed)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

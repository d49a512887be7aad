//! The bounded queue between async callers and a thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{hint, thread};

use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::error::{Error, Result};

use super::job::Job;

/// What a queued job takes of a queue's room beside its payload, so that many small jobs are bounded too.
const OVERHEAD_BYTES: usize = 1024;

/// How long a thread that found nothing looks again before it sleeps: about what a caller takes to come back with its next
/// job, and less than what it costs to wake a thread.
const PATIENCE: Duration = Duration::from_micros(50);

/// How much a thread takes at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) jobs: usize,
    pub(super) bytes: usize,
}

/// What a thread finds in its queue.
pub(super) enum Taken {
    /// Jobs, in the order they came.
    Jobs,
    /// Nothing until the given moment.
    Nothing,
    /// Nothing, and there never will be.
    Closed,
}

/// A queue of jobs, bounded by bytes. Callers wait for room without blocking; threads block for jobs.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    /// Whether there are jobs, for a thread that looks without the lock.
    has_jobs: AtomicBool,
    room: Semaphore,
    capacity: usize,
    /// Whether a caller can go on while a thread looks for jobs.
    may_look: bool,
}

struct State {
    jobs: VecDeque<Box<dyn Job>>,
    /// Whether a thread looks for jobs. It needs no waking, and one is enough.
    looking: bool,
    sleepers: usize,
    closed: Option<Error>,
}

impl Queue {
    /// Makes a queue with room for so many bytes of payload and overhead.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(OVERHEAD_BYTES, u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self {
            state: Mutex::new(State { jobs: VecDeque::new(), looking: false, sleepers: 0, closed: None }),
            filled: Condvar::new(),
            has_jobs: AtomicBool::new(false),
            room: Semaphore::new(capacity),
            capacity,
            may_look: thread::available_parallelism().is_ok_and(|threads| threads.get() > 1),
        }
    }

    /// Puts a job at the end, waiting for room until its deadline.
    pub(super) async fn push(&self, job: Box<dyn Job>) -> Result<()> {
        let cost = self.cost(&*job);
        let permits = u32::try_from(cost).unwrap_or(u32::MAX);
        let room = match self.room.try_acquire_many(permits) {
            Ok(room) => room,
            Err(_) => timeout_at(job.deadline().into(), self.room.acquire_many(permits))
                .await
                .map_err(|_| Error::unavailable("the queue of the database was full until the deadline"))?
                .map_err(|_| self.reason())?,
        };
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        // The thread that takes the job gives its room back.
        room.forget();
        state.jobs.push_back(job);
        self.has_jobs.store(true, Ordering::Release);
        self.wake_one(state);
        Ok(())
    }

    /// Moves what is queued into `batch`, up to the limits; blocks until there is something or the moment has come.
    ///
    /// A job that wants to be alone is never taken with others.
    pub(super) fn take(&self, limits: Limits, until: Option<Instant>, batch: &mut VecDeque<Box<dyn Job>>) -> Taken {
        let mut state = self.lock();
        if self.may_look && state.jobs.is_empty() && !state.looking && state.closed.is_none() {
            state = self.look(state);
        }
        while state.jobs.is_empty() {
            if state.closed.is_some() {
                return Taken::Closed;
            }
            let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
            if wait.is_some_and(|wait| wait.is_zero()) {
                return Taken::Nothing;
            }
            state.sleepers += 1;
            state = match wait {
                Some(wait) => self.filled.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.sleepers -= 1;
        }
        let (mut bytes, mut cost) = (0, 0);
        while let Some(next) = state.jobs.front() {
            let full = batch.len() >= limits.jobs || bytes >= limits.bytes || next.is_alone();
            if full && !batch.is_empty() {
                break;
            }
            let Some(job) = state.jobs.pop_front() else { break };
            bytes += job.weight();
            cost += self.cost(&*job);
            let alone = job.is_alone();
            batch.push_back(job);
            if alone {
                break;
            }
        }
        self.has_jobs.store(!state.jobs.is_empty(), Ordering::Release);
        self.wake_one(state);
        self.room.add_permits(cost);
        Taken::Jobs
    }

    /// Wakes a thread if there is a job that none of those awake will find by itself.
    fn wake_one(&self, state: MutexGuard<'_, State>) {
        let wake = state.sleepers > 0 && state.jobs.len() > usize::from(state.looking);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Looks for jobs for a moment, and lets others have the processor.
    fn look<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.looking = true;
        drop(state);
        let began = Instant::now();
        while !self.has_jobs.load(Ordering::Acquire) && began.elapsed() < PATIENCE {
            for _ in 0..16 {
                hint::spin_loop();
            }
            thread::yield_now();
        }
        let mut state = self.lock();
        state.looking = false;
        state
    }

    /// Lets no more jobs in; those that are queued are still taken. The first reason given stays.
    pub(super) fn close(&self, reason: Error) {
        self.lock().closed.get_or_insert(reason);
        self.room.close();
        self.filled.notify_all();
    }

    /// Whether no more jobs are let in.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    fn cost(&self, job: &dyn Job) -> usize {
        job.weight().saturating_add(OVERHEAD_BYTES).min(self.capacity)
    }

    fn reason(&self) -> Error {
        self.lock().closed.clone().unwrap_or_else(Error::closed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

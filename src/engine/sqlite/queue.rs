//! The bounded queue between async callers and a thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::error::{Error, Result};

use super::job::Job;

/// What a queued job takes of a queue's room beside its payload, so that many small jobs are bounded too.
const OVERHEAD_BYTES: usize = 1024;

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
    room: Semaphore,
    capacity: usize,
}

struct State {
    jobs: VecDeque<Box<dyn Job>>,
    sleepers: usize,
    closed: Option<Error>,
}

impl Queue {
    /// Makes a queue with room for so many bytes of payload and overhead.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(OVERHEAD_BYTES, u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self {
            state: Mutex::new(State { jobs: VecDeque::new(), sleepers: 0, closed: None }),
            filled: Condvar::new(),
            room: Semaphore::new(capacity),
            capacity,
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
        if state.sleepers > 0 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Moves what is queued into `batch`, up to the limits; blocks until there is something or the moment has come.
    ///
    /// A job that wants to be alone is never taken with others.
    pub(super) fn take(&self, limits: Limits, until: Option<Instant>, batch: &mut VecDeque<Box<dyn Job>>) -> Taken {
        let mut state = self.lock();
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
        let more = !state.jobs.is_empty() && state.sleepers > 0;
        drop(state);
        if more {
            self.filled.notify_one();
        }
        self.room.add_permits(cost);
        Taken::Jobs
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

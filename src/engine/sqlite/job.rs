//! A job: a caller's closure on its way to a thread, and the answer on its way back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::error::{Error, Result};

use super::error::SqlResult;

const QUEUED: u8 = 0;
const STARTED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// What a failed job must not leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Atomicity {
    /// The job changes the database with at most one statement, which SQLite undoes by itself if it fails.
    Statement,
    /// The job runs several statements, all of them `SELECT`, `INSERT`, `UPDATE` or `DELETE`; they are undone together.
    Savepoint,
}

/// How a job runs and how it is told from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) deadline: Instant,
    /// Bytes of payload, for the bounds of queue and group.
    pub(super) weight: usize,
    pub(super) atomicity: Atomicity,
    /// Whether it may take long, so that no other should wait in one group with it.
    pub(super) alone: bool,
}

/// What a thread sees of a job.
pub(super) trait Job: Send {
    fn deadline(&self) -> Instant;
    fn weight(&self) -> usize;
    fn atomicity(&self) -> Atomicity;
    fn is_alone(&self) -> bool;
    /// Claims the job, if that was not done before. `false` if its caller went away or gave up: it must not run then.
    fn start(&mut self) -> bool;
    /// Runs the closure and keeps its answer, in the place of an earlier one; says whether it succeeded.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Sends the answer, or this error in the place of a success.
    fn finish(self: Box<Self>, outcome: Result<()>);
}

/// Makes a job of a closure, and the other end that waits for it.
pub(super) fn job<T, F>(terms: Terms, work: F) -> (Box<dyn Job>, Waiter<T>)
where
    T: Send + 'static,
    F: FnMut(&Connection) -> SqlResult<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let claim = Arc::new(AtomicU8::new(QUEUED));
    let task = Task { terms, claim: Arc::clone(&claim), claimed: false, work, answer: None, reply };
    (Box::new(task), Waiter { deadline: terms.deadline, claim, answer })
}

struct Task<T, F> {
    terms: Terms,
    claim: Arc<AtomicU8>,
    claimed: bool,
    work: F,
    answer: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send + 'static,
    F: FnMut(&Connection) -> SqlResult<T> + Send + 'static,
{
    fn deadline(&self) -> Instant {
        self.terms.deadline
    }

    fn weight(&self) -> usize {
        self.terms.weight
    }

    fn atomicity(&self) -> Atomicity {
        self.terms.atomicity
    }

    fn is_alone(&self) -> bool {
        self.terms.alone
    }

    fn start(&mut self) -> bool {
        self.claimed = self.claimed
            || !self.reply.is_closed()
                && self.claim.compare_exchange(QUEUED, STARTED, Ordering::AcqRel, Ordering::Acquire).is_ok();
        // What an earlier run answered was undone with it.
        self.answer = None;
        self.claimed
    }

    fn run(&mut self, connection: &Connection) -> bool {
        let answer = match catch_unwind(AssertUnwindSafe(|| (self.work)(connection))) {
            Ok(answer) => answer.map_err(super::SqlError::into_error),
            Err(_) => Err(Error::internal("an operation on the SQLite database panicked")),
        };
        let succeeded = answer.is_ok();
        self.answer = Some(answer);
        succeeded
    }

    fn finish(self: Box<Self>, outcome: Result<()>) {
        let answer = match (outcome, self.answer) {
            (_, Some(Err(error))) | (Err(error), _) => Err(error),
            (Ok(()), Some(Ok(answer))) => Ok(answer),
            (Ok(()), None) => Err(Error::internal("a SQLite job was answered before it ran")),
        };
        // A caller that went away needs no answer.
        let _ = self.reply.send(answer);
    }
}

/// Answers a job of which nothing was applied, and which will not run any more.
pub(super) fn refuse(mut job: Box<dyn Job>, error: &Error) {
    if job.start() {
        job.finish(Err(error.clone()));
    }
}

/// The caller's end of a job.
pub(super) struct Waiter<T> {
    deadline: Instant,
    claim: Arc<AtomicU8>,
    answer: oneshot::Receiver<Result<T>>,
}

impl<T> Waiter<T> {
    /// Waits for the answer until the deadline. A job that had not begun by then never will, and answers `not_begun`;
    /// one that had runs to its end, and answers `begun`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it before the job begins means that it never runs.
    pub(super) async fn wait(self, not_begun: impl FnOnce() -> Error, begun: impl FnOnce() -> Error) -> Result<T> {
        let Self { deadline, claim, mut answer } = self;
        // The other outcomes are a deadline that passed, and a thread that died with the job in its hands.
        if let Ok(Ok(answer)) = timeout_at(deadline.into(), &mut answer).await {
            return answer;
        }
        if give_up(&claim) {
            return Err(not_begun());
        }
        // The answer may have come between the two steps.
        answer.try_recv().unwrap_or_else(|_| Err(begun()))
    }

    /// Waits for the answer of a job that has begun for as long as it takes. One that had not begun by the deadline never will, and
    /// answers `not_begun`; `died` is for one whose thread died.
    ///
    /// # Cancel safety
    ///
    /// Dropping it before the job begins means that it never runs.
    pub(super) async fn wait_to_end(
        self,
        not_begun: impl FnOnce() -> Error,
        died: impl FnOnce() -> Error,
    ) -> Result<T> {
        let Self { deadline, claim, mut answer } = self;
        let answer = match timeout_at(deadline.into(), &mut answer).await {
            Ok(answer) => answer,
            Err(_) if give_up(&claim) => return Err(not_begun()),
            Err(_) => answer.await,
        };
        answer.unwrap_or_else(|_| Err(died()))
    }
}

/// Sees to it that a job which has not begun never does; `false` if it has begun.
fn give_up(claim: &AtomicU8) -> bool {
    claim.compare_exchange(QUEUED, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

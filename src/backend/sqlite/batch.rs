//! Writes that take several jobs: cut up, so that others get their turn in between, and run to their end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::contract::{AppendOrder, Refused, ReplayOptions, ReplayOutcome, Step};
use crate::engine::sqlite::{Atomicity, Engine, SqlResult};
use crate::error::{Behind, Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::error::{during, for_all};
use super::scan::{self, KeyRange};
use super::session::{Session, Shared};
use super::write::Stamped;
use super::{apply, replay};

/// Items that one job writes.
const BATCH_ITEMS: usize = 1000;

/// Payload that one job writes, if it is more than one item.
const BATCH_BYTES: usize = 8 << 20;

/// A call that is under way; closing waits until all are dropped.
pub(super) type InFlight = watch::Receiver<()>;

/// What writes in a task of its own.
pub(super) struct Batch {
    pub(super) engine: Arc<Engine>,
    pub(super) shared: Shared,
    pub(super) deadline: Instant,
    /// Dropped with the task, which is what closing waits for.
    pub(super) _call: InFlight,
}

/// Writes items in order, each with its own answer; what was refused before is refused on.
type WriteEach<T, A> = fn(&Session<'_>, &[T], &mut Refused) -> SqlResult<Vec<Result<A>>>;

/// How to write items.
pub(super) struct Each<T, A> {
    pub(super) operation: &'static str,
    pub(super) weigh: fn(&T) -> usize,
    pub(super) write: WriteEach<T, A>,
}

impl Batch {
    /// Writes items in order, in as few jobs as their number and size allow; each answers for itself.
    ///
    /// # Cancel safety
    ///
    /// One job never runs if this is dropped before it begins. Several run to their end from the first poll on, whether
    /// the caller waits or not.
    pub(super) async fn write_each<T, A>(self, items: Vec<T>, each: Each<T, A>) -> Vec<Result<A>>
    where
        T: Send + 'static,
        A: Send + 'static,
    {
        let (count, Each { operation, weigh, write }) = (items.len(), each);
        let refused = Arc::default();
        let mut portions = portions(items, weigh);
        let answers = match (portions.next(), portions.next()) {
            (None, _) => return Vec::new(),
            // The engine runs one job to its end without help of a task.
            (Some(only), None) => self.write_portion(only, write, &refused).await,
            (Some(first), Some(second)) => {
                let task = tokio::spawn(async move {
                    let mut answers = Vec::with_capacity(count);
                    for portion in [first, second].into_iter().chain(portions) {
                        answers.extend(self.write_portion(portion, write, &refused).await);
                    }
                    answers
                });
                let cut_off =
                    |_| Error::outcome_unknown("the batch was cut off in the middle; some of it may be applied");
                for_all(task.await.map_err(cut_off), count)
            }
        };
        answers.into_iter().map(|answer| during(operation, answer)).collect()
    }

    async fn write_portion<T, A>(
        &self,
        (weight, items): (usize, Vec<T>),
        write: WriteEach<T, A>,
        refused: &Arc<Mutex<Refused>>,
    ) -> Vec<Result<A>>
    where
        T: Send + 'static,
        A: Send + 'static,
    {
        let count = items.len();
        let refused = Arc::clone(refused);
        let work = move |session: &Session<'_>| {
            write(session, &items, &mut refused.lock().unwrap_or_else(PoisonError::into_inner))
        };
        for_all(self.job(weight, work).await, count)
    }

    /// Removes all keys of a prefix, and says how many went; where it may not be stamped anew, only what is older.
    ///
    /// # Errors
    ///
    /// As a job's; `OutcomeUnknown` once some keys are gone; a refusal if something newer stayed.
    ///
    /// # Cancel safety
    ///
    /// From the first poll on it runs to its end, whether its caller waits or not.
    pub(super) async fn clear(self, prefix: &KeyPrefix, stamped: Stamped) -> Result<u64> {
        let mut range = KeyRange::new(prefix, None);
        let prefix = prefix.clone();
        let task = tokio::spawn(async move {
            let (mut removed, mut refused, mut newest) = (0, false, None);
            loop {
                let work = move |session: &Session<'_>| scan::clear(session, &range, stamped);
                let page = self.job(0, work).await.map_err(|failure| broken_off(failure, removed > 0))?;
                removed += page.removed;
                refused |= page.refused;
                newest = newest.max(page.newest);
                match page.last {
                    Some(last) => range = KeyRange::new(&prefix, Some(last.as_str())),
                    None if refused => {
                        return Err(stamped.attempt.refusal(Behind::after_removing(removed).with_standing(newest)));
                    }
                    None => return Ok(removed),
                }
            }
        });
        let cut_off = |_| Error::outcome_unknown("clearing was cut off in the middle; some keys may be gone");
        during("clear", task.await.map_err(cut_off).flatten())
    }

    /// Replays steps in order, in one job but for the clears among them; each answers for itself.
    ///
    /// # Cancel safety
    ///
    /// From the first poll on it runs to its end, whether its caller waits or not.
    pub(super) async fn replay(self, steps: Vec<Step>, options: ReplayOptions) -> Vec<Result<ReplayOutcome>> {
        let count = steps.len();
        let task = tokio::spawn(async move {
            let mut answers = Vec::with_capacity(count);
            let mut order = AppendOrder::default();
            for part in parts(steps) {
                let answered = match part {
                    Part::Steps(steps) => self.replay_steps(steps.into(), &options, &mut order).await,
                    Part::Clear(prefix, stamp) => {
                        self.replay_clear(&prefix, stamp, &options).await.map(|one| vec![one])
                    }
                };
                // What came before is in the database already, whatever becomes of the rest.
                answers.extend(answered.map_err(|failure| broken_off(failure, !answers.is_empty()))?);
            }
            Ok(answers)
        });
        let cut_off = |_| Error::outcome_unknown("the replay was cut off in the middle; some of it may be applied");
        let answers = for_all(task.await.map_err(cut_off).flatten(), count);
        answers.into_iter().map(|answer| during("replay", answer)).collect()
    }

    /// Replays steps in one job. If that fails by something other than time, lock or disk, each gets a job of its own, so that
    /// the one to blame is found.
    async fn replay_steps(
        &self,
        steps: Arc<[Step]>,
        options: &ReplayOptions,
        order: &mut AppendOrder,
    ) -> Result<Vec<Result<ReplayOutcome>>> {
        match self.replay_part(Arc::clone(&steps), options, order).await {
            Err(failure) if is_of_all(&failure) => return Err(failure),
            Err(failure) if steps.len() == 1 => return Ok(vec![Err(failure)]),
            Err(_) => {}
            answered => return answered,
        }
        let mut answers = Vec::with_capacity(steps.len());
        for step in steps.iter() {
            match self.replay_part(Arc::new([step.clone()]), options, order).await {
                Err(failure) if is_of_all(&failure) => return Err(broken_off(failure, !answers.is_empty())),
                answered => answers.extend(for_all(answered, 1)),
            }
        }
        Ok(answers)
    }

    /// Replays steps in one job, and notes which lists take no more appends.
    async fn replay_part(
        &self,
        steps: Arc<[Step]>,
        options: &ReplayOptions,
        order: &mut AppendOrder,
    ) -> Result<Vec<Result<ReplayOutcome>>> {
        let (weight, options, known, shown) =
            (apply::weight(&steps), options.clone(), order.clone(), Arc::clone(&steps));
        let work = move |session: &Session<'_>| replay::replay(session, &shown, &options, known.clone());
        let answered = self.job(weight, work).await;
        match &answered {
            Ok(answers) => steps.iter().zip(answers).for_each(|(step, answer)| order.note(step, answer)),
            Err(failure) if steps.len() == 1 => steps.iter().for_each(|step| order.note(step, &Err(failure.clone()))),
            Err(_) => {}
        }
        answered
    }

    async fn replay_clear(
        &self,
        prefix: &KeyPrefix,
        stamp: Stamp,
        options: &ReplayOptions,
    ) -> Result<Result<ReplayOutcome>> {
        let mut last: Option<Key> = None;
        loop {
            let range = KeyRange::new(prefix, last.as_ref().map(Key::as_str));
            let options = options.clone();
            match self.job(0, move |session| replay::clear(session, &range, stamp, &options)).await {
                Ok((_, Some(next))) => last = Some(next),
                Ok((outcome, None)) => return Ok(Ok(outcome)),
                Err(failure) if is_of_all(&failure) => return Err(broken_off(failure, last.is_some())),
                Err(failure) => return Ok(Err(failure)),
            }
        }
    }

    async fn job<T, F>(&self, weight: usize, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Session<'_>) -> SqlResult<T> + Send + 'static,
    {
        let Self { engine, shared, deadline, _call: _ } = self;
        let shared = shared.clone();
        let work = move |connection: &rusqlite::Connection| work(&shared.session(connection)?);
        engine.write(weight, Atomicity::Savepoint, *deadline, work).await
    }
}

/// Cuts items up, each portion with its weight.
fn portions<T>(items: Vec<T>, weigh: fn(&T) -> usize) -> impl Iterator<Item = (usize, Vec<T>)> {
    let mut items = items.into_iter().peekable();
    std::iter::from_fn(move || {
        let (mut weight, mut portion) = (0, Vec::new());
        while let Some(item) = items
            .next_if(|item| portion.is_empty() || portion.len() < BATCH_ITEMS && weight + weigh(item) <= BATCH_BYTES)
        {
            weight += weigh(&item);
            portion.push(item);
        }
        (!portion.is_empty()).then_some((weight, portion))
    })
}

/// Steps of a replay that are applied together.
enum Part {
    Steps(Vec<Step>),
    Clear(KeyPrefix, Stamp),
}

/// Cuts a replay up at its clears.
fn parts(steps: Vec<Step>) -> Vec<Part> {
    let mut parts = Vec::new();
    for step in steps {
        match (step, parts.last_mut()) {
            (Step::Clear { prefix, stamp }, _) => parts.push(Part::Clear(prefix, stamp)),
            (step, Some(Part::Steps(steps))) => steps.push(step),
            (step, _) => parts.push(Part::Steps(vec![step])),
        }
    }
    parts
}

/// Whether a job failed for a reason that is not in one of its steps.
fn is_of_all(failure: &Error) -> bool {
    matches!(failure.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::Closed)
}

/// A failure after a part was applied is not one of a write that was not applied.
fn broken_off(failure: Error, applied: bool) -> Error {
    if !applied || !matches!(failure.kind(), ErrorKind::Unavailable | ErrorKind::Closed) {
        return failure;
    }
    let unknown = Error::outcome_unknown("it broke off in the middle; a part of it was applied");
    let unknown = match failure.outage() {
        Some(outage) => unknown.with_outage(outage),
        None => unknown,
    };
    unknown.with_source(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(weights: Vec<usize>) -> Vec<usize> {
        portions(weights, |weight| *weight).map(|(_, portion)| portion.len()).collect()
    }

    #[test]
    fn a_portion_is_bounded_by_items_and_by_bytes() {
        assert!(sizes(Vec::new()).is_empty());
        assert_eq!(sizes(vec![1; 2 * BATCH_ITEMS + 1]), [BATCH_ITEMS, BATCH_ITEMS, 1]);
        assert_eq!(sizes(vec![BATCH_BYTES / 2; 5]), [2, 2, 1]);
        assert_eq!(sizes(vec![BATCH_BYTES * 2, 1, BATCH_BYTES]), [1, 1, 1]);
    }

    #[test]
    fn a_portion_knows_its_weight() {
        let weights: Vec<usize> =
            portions(vec![BATCH_BYTES, 1, 2], |weight| *weight).map(|(weight, _)| weight).collect();
        assert_eq!(weights, [BATCH_BYTES, 3]);
    }

    #[test]
    fn a_clear_that_fails_is_unknown_only_once_keys_are_gone() {
        for kind in [ErrorKind::Unavailable, ErrorKind::Closed] {
            assert_eq!(broken_off(Error::new(kind, ""), false).kind(), kind);
            assert_eq!(broken_off(Error::new(kind, ""), true).kind(), ErrorKind::OutcomeUnknown);
        }
    }
}

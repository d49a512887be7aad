//! The reconciliation: what is dirty is deleted at the primary, and from then on read and written there again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chain::gate::{Answer, Attempt, Call, away};
use crate::chain::in_flight::{Entered, Scope};
use crate::contract::{self, Context, Write};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};

use super::core::{Core, answered};
use super::dirty::Debt;
use super::fallback;

/// The most keys of one round: their writes wait for it.
const BATCH: usize = 256;

/// How long a round may wait for its keys.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long its deletes may take. If the breaker opens meanwhile, nothing else is deleted for so long.
const DELETE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the clearing of a prefix may take at first, so that one whose reply is lost is soon repeated, and at most, for a store that
/// has much to go through.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_CLEAR_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause after a round that failed for a reason that passes.
const PAUSE: Duration = Duration::from_millis(200);

/// How long it is waited for that the disk takes the mark back, and when it is tried again where it did not.
const UNMARK_WITHIN: Duration = Duration::from_secs(1);
const UNMARK_AGAIN: Duration = Duration::from_secs(5);

/// How much a round dares: after a failure fewer keys, for of many one may be written to all the time, and more time for a clear that used
/// up what it had.
#[derive(Clone, Copy, Debug)]
struct Pace {
    most_keys: usize,
    clear_timeout: Duration,
}

impl Pace {
    const FIRST: Self = Self { most_keys: BATCH, clear_timeout: CLEAR_TIMEOUT };

    fn after_failure(self, took: Duration) -> Self {
        let longer = if took < self.clear_timeout { self.clear_timeout } else { self.clear_timeout * 2 };
        Self { most_keys: 1, clear_timeout: longer.min(LONGEST_CLEAR_TIMEOUT) }
    }
}

/// What came of a round.
#[derive(Debug)]
pub(super) enum Round {
    /// Something was done.
    Done,
    /// There is nothing to do.
    Clean,
    /// Something may still come late, until then.
    NotBefore(Instant),
}

/// Reconciles whenever something is dirty and the primary is there, for ever.
pub(super) async fn run(core: Arc<Core>) {
    let (mut pace, mut is_mark_left) = (Pace::FIRST, false);
    loop {
        while core.gate.is_open() || !core.owes_anything() {
            let again = Context::with_timeout(if is_mark_left { UNMARK_AGAIN } else { Context::MAX_TIMEOUT });
            if again.limit(core.debts.notified()).await.is_none() {
                is_mark_left = !settle_marker(&core).await;
            }
        }
        let began = Instant::now();
        match round(&core, pace).await {
            Ok(Round::Done | Round::Clean) => {
                pace = Pace::FIRST;
                core.board().hinder(None);
            }
            Ok(Round::NotBefore(moment)) => {
                // Others may become due before.
                let soon = Instant::now() + PAUSE;
                tokio::time::sleep_until(moment.min(soon).into()).await;
            }
            Err(error) => {
                pace = pace.after_failure(began.elapsed());
                core.board().hinder(Some(&error));
                tracing::debug!(%error, "what was written meanwhile could not be deleted yet; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        is_mark_left = !settle_marker(&core).await;
    }
}

/// Reconciles until nothing is dirty any more, or something fails, or time is over.
pub(super) async fn finish(core: &Core, cx: &Context) {
    let work = async { while !core.gate.is_open() && matches!(round(core, Pace::FIRST).await, Ok(Round::Done)) {} };
    let _: Option<()> = cx.limit(work).await;
    let _: Option<bool> = cx.limit(settle_marker(core)).await;
}

/// Takes the mark back if nothing is dirty, and says whether that need not be tried again. A disk that hangs holds nobody up.
async fn settle_marker(core: &Core) -> bool {
    if core.owes_anything() {
        return true;
    }
    core.announce(None);
    let Some(marker) = &core.marker else { return true };
    Context::with_timeout(UNMARK_WITHIN).limit(marker.unmark(|| !core.owes_anything())).await.is_some()
}

/// Does what is to be done next.
async fn round(core: &Core, pace: Pace) -> Result<Round> {
    let is_due = |prefix: &KeyPrefix| core.late.until_under(prefix).is_none();
    let Some(debt) = core.change_dirty(|dirty| dirty.next(pace.most_keys, is_due)) else { return Ok(Round::Clean) };
    match debt {
        Debt::Keys(keys) => delete(core, keys).await,
        Debt::Prefix(prefix) => clear(core, &Debt::Prefix(prefix.clone()), &prefix, pace).await,
        Debt::Everything => everything(core, pace).await,
    }
}

/// Deletes keys. Nobody writes to them meanwhile, so that no delete lands on what is acknowledged after it.
///
/// If the breaker opens, the keys are let go and stay dirty, but no other round begins before the delete has ended: a backend may carry
/// it on until its deadline.
async fn delete(core: &Core, keys: Vec<Key>) -> Result<Round> {
    let entered: Entered = core.in_flight.enter(Scope::Keys(keys.clone()), &Context::with_timeout(TIMEOUT)).await?;
    let mut not_before: Option<Instant> = None;
    let mut due = Vec::with_capacity(keys.len());
    for key in keys {
        match core.late.until(&key) {
            Some(moment) => not_before = Some(not_before.map_or(moment, |earliest| earliest.min(moment))),
            None => due.push(key),
        }
    }
    if let (true, Some(moment)) = (due.is_empty(), not_before) {
        return Ok(Round::NotBefore(moment));
    }
    let cx = Context::with_timeout(DELETE_TIMEOUT);
    come_behind(core, &cx).await?;
    let deletes = due.iter().map(|key| Write::delete(key.clone(), core.stamps.issue())).collect();
    let mut sent = core.primary.write_many(deletes, &cx);
    let attempt = core.attempt(Call::Write, &mut sent).await;
    if matches!(attempt, Attempt::BrokenOff) {
        // What is written from now on is written here. Whatever the delete is answered, that is not for it to settle.
        drop(entered);
        cx.limit(sent).await;
        return Err(away());
    }
    let answers = reach(attempt)?;
    let mut failure = None;
    for (key, answer) in due.into_iter().zip(answers) {
        match answer {
            Ok(_) => {
                fallback::forget(core, &key).await?;
                core.change_dirty(|dirty| dirty.settle(&Debt::Keys(vec![key])));
            }
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(Round::Done), Err)
}

/// Clears everything, once all writes that began before are settled: each of them has made its key dirty, or is at the primary.
async fn everything(core: &Core, pace: Pace) -> Result<Round> {
    let all = KeyPrefix::empty();
    let entered = core.in_flight.enter(Scope::Prefix(all.clone()), &Context::with_timeout(TIMEOUT)).await?;
    if let Some(moment) = core.late.until_under(&all) {
        return Ok(Round::NotBefore(moment));
    }
    core.change_dirty(|dirty| dirty.begin(&Debt::Everything));
    drop(entered);
    clear(core, &Debt::Everything, &core.scope, pace).await
}

/// Clears a prefix. Its keys are written to meanwhile, but here: they are dirty by themselves.
///
/// If the breaker opens, the clear is waited for all the same, as in [`delete`]. That ends with its connection, and at the latest with
/// the time that it was given; a primary that is still at it would only be given the same work twice.
async fn clear(core: &Core, debt: &Debt, prefix: &KeyPrefix, pace: Pace) -> Result<Round> {
    if let Some(moment) = core.late.until_under(prefix) {
        return Ok(Round::NotBefore(moment));
    }
    core.change_dirty(|dirty| dirty.begin(debt));
    let cleared = async {
        let cx = Context::with_timeout(pace.clear_timeout);
        come_behind(core, &cx).await?;
        let mut sent = core.primary.clear(prefix, core.stamps.issue(), contract::Attempt::First, &cx);
        match core.attempt(Call::Write, &mut sent).await {
            Attempt::Answered(answer) => answer,
            Attempt::NotSent => Err(away()),
            Attempt::BrokenOff => cx.limit(sent).await.unwrap_or_else(|| Err(away())),
        }
    };
    if let Err(error) = cleared.await {
        core.change_dirty(|dirty| dirty.fail(debt));
        return Err(error);
    }
    if *debt == Debt::Everything {
        // What was written meanwhile goes with it, which a cache may; its keys stay dirty.
        fallback::clear(core, &KeyPrefix::empty()).await?;
    }
    core.change_dirty(|dirty| dirty.settle(debt));
    Ok(Round::Done)
}

/// Has the primary answer something that was sent now: whatever was given up before and still lay on the connection was applied
/// before it, or never will be.
async fn come_behind(core: &Core, cx: &Context) -> Result<()> {
    answered(reach(core.attempt(Call::Write, core.primary.ping(cx)).await)?)
}

fn reach<T: Answer>(attempt: Attempt<T>) -> Result<T> {
    match attempt {
        Attempt::Answered(answer) => Ok(answer),
        Attempt::NotSent | Attempt::BrokenOff => Err(away()),
    }
}

/// What is still dirty, for whoever closes the chain.
pub(super) fn warn_of_debts(core: &Core) {
    if core.owes_anything() {
        let keys = core.dirty().len();
        let error = Error::unavailable("the primary was not there to have them deleted");
        tracing::warn!(keys, %error, "closed while the primary may hold older values than were acknowledged");
    }
}

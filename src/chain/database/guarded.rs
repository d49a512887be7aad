//! What only the primary can do: conditions, transactions, trims. And clears, which can be owed.

use std::sync::Arc;

use crate::chain::core::Core;
use crate::chain::gate::{Answer, Attempt, Call, away, is_of_the_primary, unsettled};
use crate::chain::in_flight::{Entered, Scope};
use crate::chain::journal::{Action, Operation};
use crate::contract::{self, Context, Step, StepAck};
use crate::error::{Behind, Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::keep::keep;
use super::look_up;
use super::stamping::{MOST_ATTEMPTS, Stamped, broken_off, outrun, stamp_in_turn};

pub(super) async fn trim(core: &Arc<Core>, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
    let _entered = enter(core, vec![key.clone()], cx).await?;
    ask(core, core.primary.trim(key, keep_last, cx)).await
}

/// Applies steps, which get their stamps when all their keys are held, and new ones while something newer stands there.
pub(super) async fn apply(core: &Arc<Core>, mut steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
    let mut keys: Vec<Key> = steps.iter().filter_map(Step::key).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    let _entered = enter(core, keys, cx).await?;
    stamp_in_turn(core, &mut steps);
    let shortened = core.keeping_reserve(cx);
    for _ in 0..MOST_ATTEMPTS {
        let sent = steps.iter().map(Stamped::fixed).collect();
        match ask(core, core.primary.apply(sent, &shortened)).await {
            Err(error) if core.learn_behind(&error).is_some() => {
                if !steps.iter_mut().all(|step| step.stamp_anew(core)) {
                    return Err(error);
                }
            }
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                return look_up::of_steps(core, &steps, cx).await.ok_or(error);
            }
            answer => return answer,
        }
    }
    Err(outrun())
}

/// Holds keys for a change that needs the answer of the primary: unavailable while it is owed something under one of them.
async fn enter(core: &Arc<Core>, keys: Vec<Key>, cx: &Context) -> Result<Entered> {
    core.admit(cx)?;
    let entered = core.in_flight.enter(Scope::Keys(keys.clone()), cx).await?;
    if core.owes_anything() {
        let owed = keys.iter().find(|key| core.owed().owes(key));
        if let Some(key) = owed {
            return Err(core.still_owed(key, cx).await);
        }
    }
    Ok(entered)
}

/// Asks the primary for a change: unavailable while it is away.
pub(super) async fn ask<T>(core: &Core, call: impl Future<Output = Result<T>>) -> Result<T>
where
    Result<T>: Answer,
{
    match core.attempt(Call::Write, call).await {
        Attempt::Answered(answer) => answer,
        Attempt::NotSent => Err(away()),
        Attempt::BrokenOff => Err(unsettled()),
    }
}

/// Clears a prefix: at the primary if nothing is owed under it, else as one operation that covers the whole prefix.
pub(super) async fn clear(
    core: &Arc<Core>,
    prefix: &KeyPrefix,
    stamp: Stamp,
    attempt: contract::Attempt,
    cx: &Context,
) -> Result<Option<u64>> {
    core.admit(cx)?;
    let entered = core.in_flight.enter(Scope::Prefix(prefix.clone()), cx).await?;
    let mut stamped = (stamp, attempt);
    stamp_in_turn(core, std::slice::from_mut(&mut stamped));
    let mut in_doubt = away();
    if !(core.owes_anything() && core.owed().owes_under(prefix)) {
        match clear_primary(core, prefix, &mut stamped, cx).await {
            Cleared::Answered(answer) => return answer,
            Cleared::InDoubt(error) => in_doubt = error,
        }
    }
    if !core.can_journal() {
        return Err(in_doubt);
    }
    let operation = Operation { stamp: stamped.0, action: Action::Clear { prefix: prefix.clone() } };
    match keep(core, vec![operation], cx, entered, |_, _, _| ()).await {
        Ok(_) => Ok(None),
        // What was sent may have been applied, whatever the journal says.
        Err(_) if in_doubt.kind() == ErrorKind::OutcomeUnknown => Err(in_doubt),
        Err(error) => Err(error),
    }
}

/// What came of a clear at the primary.
enum Cleared {
    Answered(Result<Option<u64>>),
    /// It was not taken, for a reason that lies in the primary, or its outcome is open.
    InDoubt(Error),
}

/// Clears a prefix at the primary, again with a newer stamp while something newer is there.
async fn clear_primary(
    core: &Core,
    prefix: &KeyPrefix,
    stamped: &mut (Stamp, contract::Attempt),
    cx: &Context,
) -> Cleared {
    let cx = core.keeping_reserve(cx);
    let mut part = Behind::NOT_BEGUN;
    for _ in 0..MOST_ATTEMPTS {
        let (stamp, attempt) = stamped.fixed();
        let error = match core.attempt(Call::Write, core.primary.clear(prefix, stamp, attempt, &cx)).await {
            Attempt::Answered(Ok(removed)) => {
                return Cleared::Answered(Ok(removed.map(|removed| part.removed.saturating_add(removed))));
            }
            Attempt::Answered(Err(error)) => error,
            Attempt::NotSent => away(),
            Attempt::BrokenOff => unsettled(),
        };
        match core.learn_behind(&error) {
            Some(behind) => part = part.and(behind),
            None if is_of_the_primary(&error) => return Cleared::InDoubt(broken_off(error, part)),
            None => return Cleared::Answered(Err(broken_off(error, part))),
        }
        if !stamped.stamp_anew(core) {
            return Cleared::Answered(Err(error));
        }
    }
    Cleared::Answered(Err(broken_off(outrun(), part)))
}

//! What only the primary can do: conditions, transactions, trims. And clears, which can be owed.

use std::sync::Arc;

use crate::chain::core::Core;
use crate::chain::gate::{Answer, Attempt, away, is_of_the_primary, unsettled};
use crate::chain::in_flight::Scope;
use crate::chain::journal::{Action, Operation};
use crate::contract::{self, Context, Step, StepAck};
use crate::error::Result;
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::keep::keep;
use super::read::still_owed;

pub(super) async fn trim(core: &Arc<Core>, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
    guarded(core, vec![key.clone()], cx, core.primary.trim(key, keep_last, cx)).await
}

pub(super) async fn apply(core: &Arc<Core>, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
    let mut keys: Vec<Key> = steps.iter().filter_map(Step::key).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    guarded(core, keys, cx, core.primary.apply(steps, cx)).await
}

/// Asks the primary for a change that needs its answer: unavailable while it is away, or owed something under one of the keys.
async fn guarded<T>(core: &Arc<Core>, keys: Vec<Key>, cx: &Context, call: impl Future<Output = Result<T>>) -> Result<T>
where
    Result<T>: Answer,
{
    core.admit(cx)?;
    let _entered = core.in_flight.enter(Scope::Keys(keys.clone()), cx).await?;
    if core.owes_anything() && keys.iter().any(|key| core.owed().owes(key)) {
        return Err(still_owed());
    }
    match core.attempt(call).await {
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
    let mut in_doubt = away();
    if !(core.owes_anything() && core.owed().owes_under(prefix)) {
        let shortened = core.keeping_reserve(cx);
        match core.attempt(core.primary.clear(prefix, stamp, attempt, &shortened)).await {
            Attempt::Answered(Err(error)) if is_of_the_primary(&error) => in_doubt = error,
            Attempt::Answered(answer) => return answer,
            Attempt::NotSent => {}
            Attempt::BrokenOff => in_doubt = unsettled(),
        }
    }
    if !core.can_journal() {
        return Err(in_doubt);
    }
    let operation = Operation { stamp, action: Action::Clear { prefix: prefix.clone() } };
    keep(core, vec![operation], cx, entered, |_, _, _| ()).await.map(|_| None)
}

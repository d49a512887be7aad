//! What only the primary can do: counters, listings, counts.

use std::sync::Arc;

use crate::chain::gate::{Attempt, Call, away, unsettled};
use crate::chain::in_flight::Scope;
use crate::contract::{Context, IncrementOptions, KeyPage, ListOptions, ToEnd};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};

use super::core::Core;

/// Adds to a counter: a counter in two memories is none. Its key is held until the primary has answered, though the caller goes away.
pub(super) async fn increment(
    core: &Arc<Core>,
    key: &Key,
    by: i64,
    options: &IncrementOptions,
    cx: &Context,
) -> Result<i64> {
    core.admit(cx)?;
    let entered = core.in_flight.enter(Scope::Keys(vec![key.clone()]), cx).await?;
    core.admit(cx)?;
    if core.stands_in_for(key) {
        return Err(if core.gate.is_open() { away() } else { still_dirty() });
    }
    let (core, key, options, cx) = (Arc::clone(core), key.clone(), *options, *cx);
    let work = async move {
        let _entered = entered;
        let given_up = core.late.watch_one(&key, cx.deadline);
        let attempt = core.attempt(Call::Write, core.primary.increment(&key, by, &options, &cx)).await;
        if !matches!(attempt, Attempt::BrokenOff) {
            given_up.answered();
        }
        settled(attempt, unsettled)
    };
    ToEnd::new(work).await
}

pub(super) async fn list(core: &Core, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
    nothing_dirty_under(core, prefix, cx)?;
    settled(core.attempt(Call::Read, core.primary.list(prefix, options, cx)).await, away)
}

pub(super) async fn count(core: &Core, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
    nothing_dirty_under(core, prefix, cx)?;
    settled(core.attempt(Call::Read, core.primary.count(prefix, cx)).await, away)
}

fn settled<T>(attempt: Attempt<Result<T>>, broken_off: impl FnOnce() -> Error) -> Result<T> {
    match attempt {
        Attempt::Answered(answer) => answer,
        Attempt::NotSent => Err(away()),
        Attempt::BrokenOff => Err(broken_off()),
    }
}

fn nothing_dirty_under(core: &Core, prefix: &KeyPrefix, cx: &Context) -> Result<()> {
    core.admit(cx)?;
    if core.owes_anything() && core.dirty().touches(prefix) { Err(still_dirty()) } else { Ok(()) }
}

/// What a call is told that only the primary could answer, once it holds nothing old any more.
pub(super) fn still_dirty() -> Error {
    Error::unavailable(
        "what was written while the primary was away is still to be deleted there; this will be answered once that is done",
    )
}

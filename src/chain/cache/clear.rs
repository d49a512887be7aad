//! Clearing a prefix: at the primary, or here, and then the whole prefix is dirty.

use crate::chain::gate::{Attempt, Call, is_of_the_primary};
use crate::chain::in_flight::Scope;
use crate::contract::{self, Context};
use crate::error::Result;
use crate::key::KeyPrefix;
use crate::stamp::Stamp;

use super::core::Core;
use super::fallback;

pub(super) async fn clear(
    core: &Core,
    prefix: &KeyPrefix,
    (stamp, attempt): (Stamp, contract::Attempt),
    cx: &Context,
) -> Result<Option<u64>> {
    core.admit(cx)?;
    let _entered = core.in_flight.enter(Scope::Prefix(prefix.clone()), cx).await?;
    core.admit(cx)?;
    let is_dirty = core.owes_anything() && core.dirty().touches(prefix);
    if !is_dirty {
        let shortened = core.keeping_reserve(cx);
        // One that is given up and comes late removes what a cache may forget.
        match core.attempt(Call::Write, core.primary.clear(prefix, stamp, attempt, &shortened)).await {
            Attempt::Answered(Err(error)) if is_of_the_primary(&error) => {}
            Attempt::Answered(answer) => return answer,
            Attempt::NotSent | Attempt::BrokenOff => {}
        }
    }
    core.make_dirty(|dirty| dirty.add_prefix(prefix)).await?;
    fallback::clear(core, prefix).await.map(|()| None)
}

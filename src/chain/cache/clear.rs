//! Clearing a prefix: at the primary, or here, and then the whole prefix is dirty.

use std::sync::Arc;

use crate::chain::gate::{Attempt, Call, is_of_the_primary, unsettled};
use crate::chain::in_flight::Scope;
use crate::contract::{self, Context, ToEnd};
use crate::error::{ErrorKind, Result};
use crate::key::KeyPrefix;
use crate::stamp::Stamp;

use super::core::Core;
use super::fallback;
use super::write::late;

/// Clears a prefix. It is held until the primary has answered, though the caller goes away: a primary may go on, and take what was
/// written since.
pub(super) async fn clear(
    core: &Arc<Core>,
    prefix: &KeyPrefix,
    stamped: (Stamp, contract::Attempt),
    cx: &Context,
) -> Result<Option<u64>> {
    core.admit(cx)?;
    let entered = core.in_flight.enter(Scope::Prefix(prefix.clone()), cx).await?;
    core.admit(cx)?;
    let (core, prefix, deadline) = (Arc::clone(core), prefix.clone(), *cx);
    let work = async move {
        let _entered = entered;
        clear_held(&core, &prefix, stamped, &deadline).await
    };
    cx.limit(ToEnd::new(work)).await.unwrap_or_else(|| Err(late()))
}

async fn clear_held(
    core: &Core,
    prefix: &KeyPrefix,
    (stamp, attempt): (Stamp, contract::Attempt),
    cx: &Context,
) -> Result<Option<u64>> {
    let mut in_doubt = None;
    let is_dirty = core.owes_anything() && core.dirty().touches(prefix);
    if !is_dirty {
        let shortened = core.keeping_reserve(cx);
        let given_up = core.late.watch_prefix(prefix, shortened.deadline);
        let attempt = core.attempt(Call::Write, core.primary.clear(prefix, stamp, attempt, &shortened)).await;
        if !matches!(attempt, Attempt::BrokenOff) {
            given_up.answered();
        }
        match attempt {
            Attempt::Answered(Err(error)) if is_of_the_primary(&error) => in_doubt = Some(error),
            Attempt::Answered(answer) => return answer,
            Attempt::NotSent => {}
            Attempt::BrokenOff => in_doubt = Some(unsettled()),
        }
    }
    let here = async {
        core.make_dirty(|dirty| dirty.add_prefix(prefix)).await?;
        fallback::clear(core, prefix).await
    };
    match (here.await, in_doubt) {
        (Ok(()), _) => Ok(None),
        // What was sent may have been applied, whatever became of it here.
        (Err(_), Some(error)) if error.kind() == ErrorKind::OutcomeUnknown => Err(error),
        (Err(error), _) => Err(error),
    }
}

//! Closing: what is owed stays in the journal, and the journal is given to whoever comes next.

use std::sync::Arc;

use crate::chain::core::Core;
use crate::chain::in_flight::Scope;
use crate::chain::watch;
use crate::contract::{Context, Durability};
use crate::error::Result;
use crate::key::KeyPrefix;

/// Closes the journal once nothing more comes to it: what is on its way to the primary may, for half of the time.
pub(super) async fn close_journal(core: &Arc<Core>, is_first: bool, cx: &Context) -> Result<()> {
    let Some(journal) = &core.journal else { return Ok(()) };
    if is_first {
        let all = Scope::Prefix(KeyPrefix::empty());
        let is_quiet = core.in_flight.enter(all, &Context::with_timeout(cx.remaining() / 2)).await.is_ok();
        // What is on its way all the same may yet use newer stamps.
        let kept = if is_quiet { cx.limit(watch::keep_last(core)).await } else { cx.limit(watch::keep(core)).await };
        if kept.is_none() {
            tracing::warn!("what is known of the primary could not be written down in time");
        }
        match (core.owed().len(), journal.durability()) {
            (0, _) => {}
            (owed, Durability::Volatile) => {
                tracing::error!(owed, "closed while the primary is owed operations; they were in memory, and are lost");
            }
            (owed, _) => {
                tracing::warn!(owed, "closed while the primary is owed operations; they stay in the journal");
            }
        }
    }
    journal.close(cx.deadline).await
}

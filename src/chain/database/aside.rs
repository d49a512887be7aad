//! What becomes of operations that were put aside: they are tried again, or given up.
//!
//! A task of its own does it, so that it goes on though the caller goes away: what the journal says must be known here too.

use std::sync::Arc;

use crate::chain::core::Core;
use crate::error::{Error, Result};

pub(super) async fn retry(core: &Arc<Core>, only: Option<u64>) -> Result<usize> {
    let core = Arc::clone(core);
    whole(async move {
        let Some(journal) = &core.journal else { return Ok(0) };
        let mut seqs = core.owed().put_aside();
        seqs.retain(|seq| only.is_none_or(|only| only == *seq));
        if !seqs.is_empty() {
            journal.unpark(seqs.clone()).await?;
            core.change_owed(|owed| seqs.iter().for_each(|seq| owed.unpark(*seq)));
            core.journaled();
        }
        Ok(seqs.len())
    })
    .await
}

pub(super) async fn give_up(core: &Arc<Core>, seq: u64) -> Result<bool> {
    let core = Arc::clone(core);
    whole(async move {
        let Some(journal) = &core.journal else { return Ok(false) };
        let dropped = journal.drop_parked(seq).await?;
        if dropped {
            core.change_owed(|owed| owed.give_up(&[seq]));
            core.journaled();
            tracing::warn!(seq, "an operation that was put aside was given up");
        }
        Ok(dropped)
    })
    .await
}

async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let ended = |_| Error::outcome_unknown("the runtime ended while the journal was being changed");
    tokio::spawn(work).await.map_err(ended)?
}

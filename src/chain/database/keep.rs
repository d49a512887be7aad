//! Keeping operations in the journal.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::chain::core::Core;
use crate::chain::gate::away;
use crate::chain::in_flight::Entered;
use crate::chain::journal::{Header, Operation};
use crate::chain::meters;
use crate::chain::owed::Owed;
use crate::contract::{Context, Durability};
use crate::error::{Error, Result};
use crate::stamp::Stamp;

/// Keeps operations in the journal and counts them as owed; only then they are acknowledged, by `acknowledge`, which is shown each
/// operation's place and what was owed before it.
///
/// A task of its own does it, so that it goes on though the caller goes away, or its deadline passes: what is in the journal must be
/// known to be owed. It holds the keys until then. Where it ends with its runtime, the replay finds out what was written.
///
/// # Errors
///
/// `OutcomeUnknown` if the deadline passed while the journal was being written, or the disk failed.
pub(super) async fn keep<A: Send + 'static>(
    core: &Arc<Core>,
    operations: Vec<Operation>,
    cx: &Context,
    entered: Entered,
    acknowledge: impl Fn(usize, &Owed, Durability) -> A + Send + 'static,
) -> Result<Vec<A>> {
    let (core, deadline) = (Arc::clone(core), cx.deadline);
    let (reply, answer) = oneshot::channel();
    tokio::spawn(async move {
        let _entered = entered;
        let mut keeping = pin!(keep_to_end(&core, operations, deadline, acknowledge));
        // What has not begun by the deadline says so itself, and is asked first.
        match timeout_at(deadline.into(), &mut keeping).await {
            Ok(kept) => _ = reply.send(kept),
            Err(_) => {
                let _ = reply.send(Err(late()));
                if let Err(error) = keeping.await {
                    tracing::debug!(%error, "an operation whose caller no longer waits was not kept");
                }
            }
        }
    });
    answer.await.unwrap_or_else(|_| Err(Error::outcome_unknown("the runtime ended while a write was being journaled")))
}

async fn keep_to_end<A>(
    core: &Core,
    operations: Vec<Operation>,
    deadline: Instant,
    acknowledge: impl Fn(usize, &Owed, Durability) -> A,
) -> Result<Vec<A>> {
    let Some(journal) = &core.journal else { return Err(away()) };
    core.cover_stamps().await;
    let headers: Vec<_> = operations.iter().map(|operation| (operation.stamp, operation.action.effect())).collect();
    let oldest = operations.iter().map(|operation| operation.stamp).min();
    let since = core.outage_began(oldest.unwrap_or(Stamp::MIN));
    let mut unheard = Unheard(Some(core));
    let appended = journal.append(operations, since, deadline).await;
    unheard.0 = None;
    let seqs = appended?;
    meters::count_journaled(seqs.len());
    let durability = journal.durability();
    let acks = core.change_owed(|owed| {
        let mut acks = Vec::with_capacity(headers.len());
        for (index, (seq, (stamp, effect))) in seqs.into_iter().zip(headers).enumerate() {
            acks.push(acknowledge(index, owed, durability));
            owed.add(Header::new(seq, stamp, effect, None));
        }
        acks
    });
    core.journaled();
    Ok(acks)
}

/// Dropped before anybody heard what became of a write to the journal, it has the replay look what is there.
struct Unheard<'a>(Option<&'a Core>);

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.has_unknown.store(true, Ordering::Release);
            core.debts.notify_one();
        }
    }
}

fn late() -> Error {
    Error::outcome_unknown("the write was being journaled when its deadline passed; it may have been kept")
}

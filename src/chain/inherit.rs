//! What a process takes over from dead ones, it knows from then on.

use std::collections::BTreeSet;

use crate::contract::Succession;
use crate::error::Result;
use crate::stamp::HybridClock;

use super::journal::Journal;

/// Writes down that this process knows what the writers of a journal wrote, and what these had taken over before. What it owes
/// itself must be known by then: reads show it, and so later writes replace it on purpose.
pub(super) async fn inherit(journal: &dyn Journal, mut writers: BTreeSet<u64>, stamps: &HybridClock) -> Result<()> {
    let heir = stamps.writer();
    if writers.iter().all(|writer| *writer == heir) {
        return Ok(());
    }
    // Whom one of them succeeded is known by way of that one: so it is a link a start, and not one for each start before.
    let known = journal.episode().await?.succession;
    writers.extend(known.iter().map(|(heir, ..)| heir));
    known.iter().for_each(|(_, succeeded, _)| _ = writers.remove(&succeeded));
    let from = stamps.issue();
    let mut added = Succession::default();
    writers.into_iter().for_each(|writer| added.add(heir, writer, from));
    journal.add_succession(added).await
}

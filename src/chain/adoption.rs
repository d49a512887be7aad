//! Taking over the journals of processes that died.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use super::journal::{DiskJournal, Journal as _, JournalFolder};

/// How often the folder is looked at.
const EVERY: Duration = Duration::from_secs(30);

/// How long opening a journal, and taking over those of others, may take.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// How many operations are read at once.
const HEADERS: usize = 10_000;

/// Looks for journals of processes that died, for ever.
pub(super) async fn run(core: Arc<Core>, folder: JournalFolder, journal: Arc<DiskJournal>) {
    loop {
        tokio::time::sleep(EVERY).await;
        match folder.adopt(&journal, Instant::now() + WITHIN).await {
            Ok(found) => {
                core.note_left_journals(found.left.iter().map(ToString::to_string).collect());
                if found.imported > 0 {
                    take_in(&core, &journal).await;
                }
            }
            Err(error) => tracing::warn!(%error, "the folder of the journals cannot be read"),
        }
    }
}

/// Counts as owed what was taken over.
async fn take_in(core: &Core, journal: &DiskJournal) {
    let mut after = 0;
    loop {
        match journal.headers(after, HEADERS).await {
            Ok(headers) => {
                let Some(last) = headers.last() else { break };
                after = last.seq;
                core.change_owed(|owed| {
                    for header in headers {
                        core.stamps.observe(header.stamp);
                        owed.add(header);
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a journal that was taken over cannot be read yet");
                break;
            }
        }
    }
    core.journaled();
}

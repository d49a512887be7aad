//! Taking over the journals of processes that died.

use std::sync::Arc;
use std::time::Duration;

use crate::contract::Identity;
use crate::error::Result;
use crate::stamp::{HybridClock, Stamp};
use crate::time::Timestamp;

use super::core::Core;
use super::inherit::inherit;
use super::journal::{DiskJournal, Found, Header, Journal as _, JournalFolder, each_header};
use super::owed::Owed;
use super::watch::{CLOCK_RESERVE, ahead, note_canary, probe};

/// How often the folder is looked at.
const EVERY: Duration = Duration::from_secs(30);

/// Whether somebody may have read through the chain already when a journal is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Nobody: the process is starting, and all that it reads shows what it took over.
    NotYet,
    /// What was read, and written, may be newer than what is taken over, and knew nothing of it.
    Already,
}

/// Looks for journals of processes that died, for ever.
pub(super) async fn run(core: Arc<Core>, folder: Arc<JournalFolder>, journal: Arc<DiskJournal>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            // What was left alone may be owed to the same database at another address.
            () = core.recognised.notified() => if core.owed_elsewhere().is_none() { continue },
        }
        if core.owed_elsewhere().is_some() {
            // Nobody has read through the chain: it was fenced from its start.
            look_again(&core, &folder, &journal, Readers::NotYet).await;
            continue;
        }
        // It could not be replayed now, nor read, and would take room from what is written.
        if core.is_open() || journal.is_full() {
            continue;
        }
        let _turn = folder.turn().await;
        match folder.adopt(&journal).await {
            Ok(found) => {
                follow(&core, &found);
                core.set_left_journals(folder.left());
                take_in(&core, &folder, &journal, Readers::Already).await;
            }
            Err(error) => tracing::warn!(%error, "the folder of the journals cannot be read"),
        }
    }
}

/// Looks whether what was owed to another address still is: it may turn out to be the same database, or be settled by somebody
/// else. The primary may be used then.
pub(super) async fn look_again(core: &Core, folder: &JournalFolder, journal: &DiskJournal, readers: Readers) {
    if let Err(error) = look_once_more(core, folder, journal, readers).await {
        tracing::warn!(%error, "it cannot be seen whether something is still owed to another database");
    }
    if core.owed_elsewhere().is_none() {
        probe(core).await;
    }
}

async fn look_once_more(core: &Core, folder: &JournalFolder, journal: &DiskJournal, readers: Readers) -> Result<()> {
    let _turn = folder.turn().await;
    let found = folder.look_again(journal, core.answered()).await?;
    follow(core, &found);
    core.set_left_journals(folder.left());
    if take_in(core, folder, journal, readers).await {
        core.set_owed_elsewhere(found.owed_elsewhere())?;
    }
    Ok(())
}

/// What became of the other journals of the folder when another database was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) taken_over: u64,
    pub(super) told: usize,
}

/// Takes over what dead processes have left, whichever database it is owed to, and tells the living ones what was accepted.
pub(super) async fn spread(
    core: &Core,
    folder: &JournalFolder,
    journal: &DiskJournal,
    accepted: Identity,
) -> Result<Spread> {
    let found = folder.adopt_all(journal).await?;
    follow(core, &found);
    core.set_left_journals(folder.left());
    take_in(core, folder, journal, Readers::Already).await;
    let told = folder.announce(journal, accepted).await?;
    Ok(Spread { taken_over: found.imported, told })
}

/// Gives newer stamps than what others in the folder owe, and than what they gave by a clock that is ahead: than a reserve of theirs that
/// is further ahead than one is where clocks agree.
pub(super) fn follow_others(stamps: &HybridClock, now: Timestamp, found: &Found) {
    let reserve = found.reserve_of_others.filter(|reserve| *reserve > ahead(now, CLOCK_RESERVE)).map(Stamp::earliest);
    found.newest_of_others.max(reserve).into_iter().for_each(|newest| stamps.observe(newest));
}

/// Gives no older stamps than a dead process whose journal was taken over may have given, and takes no older state of the database for
/// the known one than it knew. Before what it owed is replayed: at another address a copy may answer, as of a backup.
fn follow(core: &Core, found: &Found) {
    if let Some(reserve) = found.reserve_of_others {
        core.stamps.observe(Stamp::earliest(reserve));
    }
    found.known.into_iter().for_each(|known| note_canary(core, known));
}

/// Counts as owed what was taken over since the last time. What cannot be read now is read the next time: it answers whether all is known.
async fn take_in(core: &Core, folder: &JournalFolder, journal: &DiskJournal, readers: Readers) -> bool {
    let Some(after) = folder.take_news() else { return true };
    let added = add_all(core, journal, after, readers).await;
    if let Err(error) = &added {
        folder.put_news_back(after);
        tracing::warn!(%error, "a journal that was taken over cannot be read yet");
    }
    if readers == Readers::NotYet {
        know(core, journal).await;
    }
    core.journaled();
    added.is_ok()
}

/// Writes down that this process knows what it took over.
async fn know(core: &Core, journal: &DiskJournal) {
    let writers = core.owed().writers();
    if let Err(error) = inherit(journal, writers, &core.stamps).await {
        tracing::warn!(%error, "it could not be written down what this process took over; more may be kept as conflicts");
    }
}

/// Counts as owed what the journal holds after an operation. What was there before is known, and may be settled while this reads.
async fn add_all(core: &Core, journal: &DiskJournal, after: u64, readers: Readers) -> Result<()> {
    let add = |owed: &mut Owed, header: Header| {
        core.stamps.observe(header.stamp);
        match readers {
            Readers::NotYet => owed.add(header),
            Readers::Already => owed.add_hidden(header),
        }
    };
    let add_page = |headers: Vec<Header>| {
        core.change_owed(|owed| headers.into_iter().for_each(|header| add(owed, header)));
    };
    each_header(journal, after, add_page).await
}

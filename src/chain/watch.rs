//! The task that watches the primary: it probes, remembers which database answers, and keeps the clock's reserve.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::contract::{Context, Identity};
use crate::error::{Error, Outage, Result};
use crate::time::Timestamp;

use super::core::Core;
use super::elsewhere::OwedElsewhere;
use super::journal::Meta;
use super::owed::Owed;

/// How often what is known of the primary is written down.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// How often the clock's reserve is written down while there are writes, which need not wait for it then.
const EXTEND_EVERY: Duration = Duration::from_secs(4);

/// How far ahead of the wall clock stamps may be given without being written down. A process that starts anew begins after this
/// moment, so that neither a wall clock which stepped back meanwhile gives older stamps, nor one that is behind others'.
pub(super) const CLOCK_RESERVE: Duration = Duration::from_secs(10);

/// How long a write waits at most for the reserve to be written down: a disk that hangs must not keep writes from the primary.
const EXTEND_WITHIN: Duration = Duration::from_millis(250);

/// How long probes wait at most for what is known to be written down: a disk that hangs must not keep a primary that is back from being
/// used.
const KEEP_WITHIN: Duration = Duration::from_secs(1);

/// How far ahead of the newest stamp the reserve stays, where stamps run before the wall clock. A millisecond has room for 65,536, so
/// where the clock stands still it is more than a process gives in between; and each start may bring them that much further ahead.
const STAMP_RESERVE: Duration = Duration::from_millis(500);

/// How far ahead of it the reserve is extended where it did not do: stamps follow a clock there that runs before ours.
const EXTENDED_BY: Duration = Duration::from_secs(4);

/// Probes for ever: from time to time, and at once where a call waits too long or the breaker opened.
pub(super) async fn run(core: Arc<Core>) {
    let mut kept = tokio::time::Instant::now();
    // What was recognised before this task began need not be written down yet.
    let mut is_written = false;
    loop {
        core.gate.until_due(core.stamps.issue()).await;
        probe(&core).await;
        if !is_written && knows(&core) {
            is_written = keep_in_time(&core).await;
            core.recognised.notify_one();
        }
        core.show();
        core.gate.breathe().await;
        let is_due = kept.elapsed() >= EXTEND_EVERY && core.clock_reserve.take_used();
        if is_due || kept.elapsed() >= KEEP_EVERY {
            kept = tokio::time::Instant::now();
            keep_in_time(&core).await;
        }
    }
}

/// Writes down what is known, unless the disk hangs. Says whether that was done.
async fn keep_in_time(core: &Core) -> bool {
    tokio::time::timeout(KEEP_WITHIN, keep(core)).await.unwrap_or(false)
}

/// Whether it is known which database the primary is.
fn knows(core: &Core) -> bool {
    core.known.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Asks the primary whether it takes writes, and which database it is.
pub(super) async fn probe(core: &Core) {
    let outcome = core.gate.probe(|| probe_once(core)).await;
    core.probed(outcome);
}

/// Where another database answers than the known one, it may have been accepted meanwhile.
async fn probe_once(core: &Core) -> Result<()> {
    let answer = ask(core).await;
    match &answer {
        Ok(()) => forget_word(core).await,
        Err(error) if error.outage() == Some(Outage::Foreign) => {
            if takes_word(core).await {
                return ask(core).await;
            }
            // Whoever starts beside this process is to know as much.
            keep_in_time(core).await;
        }
        Err(_) => {}
    }
    answer
}

/// Whether the database that answers was accepted by a word beside the journal. Then it is the known one from now on.
async fn takes_word(core: &Core) -> bool {
    let Some(accepted) = word(core).await else { return false };
    let found = core.primary.identity(&core.gate.probe_context()).await;
    let Some(found) = found.ok().filter(|found| found.continues(accepted)) else { return false };
    let is_another = !continues_known(core, found);
    if is_another {
        tracing::warn!(identity = ?found, "another database was accepted as the known one");
        if know(core, found).is_err() {
            return false;
        }
    }
    // It counts once. And whoever accepted it has taken over what was owed elsewhere.
    forget_word(core).await;
    core.recognised.notify_one();
    is_another
}

fn continues_known(core: &Core, found: Identity) -> bool {
    let known = *core.known.lock().unwrap_or_else(PoisonError::into_inner);
    known.is_some_and(|known| found.continues(known))
}

async fn word(core: &Core) -> Option<Identity> {
    core.journal.as_ref()?.accepted().await
}

/// The database that answers is the known one, so a word has been carried out, or never will be.
async fn forget_word(core: &Core) {
    if let Some(journal) = &core.journal
        && journal.accepted().await.is_some()
    {
        // What was accepted is written down before the word goes.
        if keep_in_time(core).await {
            journal.forget_accepted().await;
        }
    }
}

/// Takes the database that answers now for the known one, whichever it is; tables are made in an empty one. Nothing changes if none
/// answers.
pub(super) async fn accept(core: &Core, cx: &Context) -> Result<Identity> {
    let identity = match identified(core, cx).await {
        Err(error) if error.outage() == Some(Outage::Foreign) => {
            // It closes the way for calls, which must not go there before that database is the known one.
            probe(core).await;
            if core.is_open() { identified_whichever(core, cx).await? } else { identified(core, cx).await? }
        }
        answer => answer?,
    };
    know(core, identity)?;
    core.set_owed_elsewhere(None)?;
    let is_kept = keep(core).await;
    probe(core).await;
    if is_kept {
        return Ok(identity);
    }
    Err(Error::unavailable(
        "the database was accepted, but that could not be written down, so the next start will not know; see to the disk of the \
         journal, and accept it again",
    ))
}

/// Asks whichever database answers.
async fn identified_whichever(core: &Core, cx: &Context) -> Result<Identity> {
    core.primary.expect(None)?;
    let answer = identified(core, cx).await;
    if answer.is_err() {
        core.primary.expect(core.expected())?;
    }
    answer
}

async fn identified(core: &Core, cx: &Context) -> Result<Identity> {
    let identity = core.primary.ping(cx).await?.identity;
    identity.ok_or_else(|| Error::unsupported("this database cannot say which one it is"))
}

/// Expects this database from now on.
fn know(core: &Core, identity: Identity) -> Result<()> {
    let mut last = core.known.lock().unwrap_or_else(PoisonError::into_inner);
    core.primary.expect(Some(identity))?;
    if last.is_some_and(|known| !identity.continues(known)) {
        core.change_owed(Owed::forget_all_newer);
    }
    *last = Some(identity);
    Ok(())
}

async fn ask(core: &Core) -> Result<()> {
    let before = *core.known.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = core.gate.ping(&*core.primary).await;
    let elsewhere = core.owed_elsewhere();
    match answer.as_ref().ok().and_then(|ping| ping.identity) {
        // Nobody knows yet whether it is the right one.
        Some(identity) if before.is_none() && elsewhere.is_some() => core.note_answered(identity),
        Some(identity) => recognise(core, before, identity)?,
        None if before.is_none() => look_at_older(core, elsewhere.as_ref(), answer.as_ref().err()).await,
        None => {}
    }
    let is_away = |error: &Error| error.outage().is_some_and(|outage| outage != Outage::Foreign);
    match elsewhere {
        Some(owed) if !answer.as_ref().is_err_and(is_away) => Err(moved(&owed.told)),
        _ => answer.map(drop),
    }
}

/// An older state of the database that something is owed to is fenced as such, once that was taken over. It must not be raised before.
async fn look_at_older(core: &Core, elsewhere: Option<&OwedElsewhere>, refused: Option<&Error>) {
    let Some(owed) = elsewhere.and_then(|owed| owed.database) else { return };
    if refused.and_then(Error::outage) == Some(Outage::Foreign)
        && let Ok(found) = core.primary.identity(&core.gate.probe_context()).await
        && found.id == owed.id
    {
        core.note_answered(found);
    }
}

fn moved(what: &str) -> Error {
    let message = format!("the address of the database was changed while operations waited for the one before: {what}");
    Error::unavailable(message).with_outage(Outage::Foreign)
}

/// Remembers which database answered, and expects no other from now on. Others may have raised its canary since it was asked, so it is
/// judged by what was known before.
fn recognise(core: &Core, before: Option<Identity>, identity: Identity) -> Result<()> {
    let mut last = core.known.lock().unwrap_or_else(PoisonError::into_inner);
    let known = match (*last, before) {
        (Some(known), _) if identity.continues(known) => identity,
        (Some(known), Some(before)) if known.continues(before) && identity.continues(before) => known,
        (Some(_), _) => {
            let error = Error::unavailable(
                "another database answers than the one that is known, or an older state of it; bring the known one back",
            );
            return Err(error.with_outage(Outage::Foreign));
        }
        (None, _) => identity,
    };
    core.primary.expect(Some(known))?;
    *last = Some(known);
    Ok(())
}

/// Remembers the canary that a call raised, or that somebody else knew. Calls are answered in any order, so an earlier one says nothing.
pub(super) fn note_ping(core: &Core, raised: Identity) {
    let is_known = core.known.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    if is_known || core.owed_elsewhere().is_none() { note_canary(core, raised) } else { core.note_answered(raised) }
}

/// The same, whatever is owed elsewhere.
pub(super) fn note_canary(core: &Core, raised: Identity) {
    let mut last = core.known.lock().unwrap_or_else(PoisonError::into_inner);
    let is_newer = |known: Identity| known.id == raised.id && known.canary < raised.canary;
    if last.is_none_or(is_newer) && core.primary.expect(Some(raised)).is_ok() {
        *last = Some(raised);
    }
}

/// Writes down what is known, so that the next start knows it too. Says whether that was done.
pub(super) async fn keep(core: &Core) -> bool {
    let _turn = core.clock_reserve.turn().await;
    keep_in_turn(core, STAMP_RESERVE).await
}

/// The same, with the reserve so far ahead of the newest stamp. What was promised of the reserve is never taken back.
async fn keep_in_turn(core: &Core, ahead_of_stamps: Duration) -> bool {
    let stamps = ahead(core.stamps.issue().timestamp(), ahead_of_stamps);
    let reserve = ahead(core.clock.now(), CLOCK_RESERVE).max(stamps).max(core.clock_reserve.until());
    write_down(core, reserve).await
}

/// Writes down a later reserve before stamps are used that it does not cover. Where that fails or takes too long, they are used all the
/// same, and what is written down is not waited for again at once: the disk is away, and the primary is not.
pub(super) async fn extend_reserve(core: &Core) {
    let extended = async {
        let _turn = core.clock_reserve.turn().await;
        if !core.clock_reserve.covers(core.stamps.newest()) {
            keep_in_turn(core, EXTENDED_BY).await;
        }
    };
    let _ = tokio::time::timeout(EXTEND_WITHIN, extended).await;
    let newest = core.stamps.newest();
    if !core.clock_reserve.covers(newest) {
        core.clock_reserve.extend(ahead(newest, CLOCK_RESERVE));
    }
}

/// Writes down what is known when no stamp is used any more: the next start begins right after the last one.
pub(super) async fn keep_last(core: &Core) -> bool {
    write_down(core, ahead(core.stamps.issue().timestamp(), Duration::from_millis(1))).await
}

pub(super) fn ahead(moment: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_millis(moment.as_millis().saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

async fn write_down(core: &Core, reserve: Timestamp) -> bool {
    let Some(journal) = &core.journal else { return true };
    let identity = *core.known.lock().unwrap_or_else(PoisonError::into_inner);
    let fingerprint = core.settings.fingerprint.clone();
    let meta = Meta { fingerprint, identity, clock_reserve: Some(reserve) };
    let written = journal.set_meta(meta).await;
    match &written {
        Ok(()) => core.clock_reserve.extend(reserve),
        Err(error) => tracing::warn!(%error, "what is known of the primary could not be written down"),
    }
    written.is_ok()
}

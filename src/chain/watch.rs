//! The task that watches the primary: it probes, remembers which database answers, and keeps the clock's reserve.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::contract::{Context, Identity};
use crate::error::{Error, Outage, Result};
use crate::time::Timestamp;

use super::core::Core;
use super::journal::Meta;

/// How often what is known of the primary is written down.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The pause between two probes, however often the primary is suspected.
const BREATH: Duration = Duration::from_millis(50);

/// How far ahead of the wall clock stamps may be given without being written down. A process that starts anew begins after this
/// moment, so that a wall clock which stepped back meanwhile cannot give older stamps.
const CLOCK_RESERVE: Duration = Duration::from_secs(60);

/// How far ahead of the newest stamp the reserve stays, where stamps run before the wall clock.
const STAMP_RESERVE: Duration = Duration::from_secs(5);

/// Probes for ever: from time to time, and at once where a call waits too long or the breaker opened.
pub(super) async fn run(core: Arc<Core>) {
    let mut kept = tokio::time::Instant::now();
    loop {
        let pause = jittered(core.settings.probe_interval, &core);
        // A suspicion only makes the next probe come sooner.
        let _ = tokio::time::timeout(pause, core.suspicion.notified()).await;
        let knew = knows(&core);
        probe(&core).await;
        if knew != knows(&core) {
            keep(&core).await;
        }
        // Calls that are slow because of the load must not be joined by probes without a pause.
        tokio::time::sleep(BREATH).await;
        if kept.elapsed() >= KEEP_EVERY {
            kept = tokio::time::Instant::now();
            keep(&core).await;
        }
    }
}

/// Whether it is known which database the primary is.
fn knows(core: &Core) -> bool {
    core.known.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Asks the primary whether it takes writes, and which database it is. Where it is suspected to be gone, at once a second time.
pub(super) async fn probe(core: &Core) {
    while let Err(error) = probe_once(core).await {
        core.probe_failed(&error);
        if core.is_open() || error.outage() != Some(Outage::Silent) {
            return;
        }
    }
    core.probe_succeeded();
}

async fn probe_once(core: &Core) -> Result<()> {
    let cx = Context::with_timeout(core.settings.probe_timeout);
    // The backend knows better than we what it waited for, so it is the first to say that the time is over.
    let patience = core.settings.probe_timeout + BREATH;
    let answer = tokio::time::timeout(patience, core.primary.ping(&cx)).await;
    let silent = |_| Error::unavailable("the primary did not answer a probe in time").with_outage(Outage::Silent);
    match answer.map_err(silent)??.identity {
        Some(identity) => recognise(core, identity),
        None => Ok(()),
    }
}

/// Remembers which database answered, and expects no other from now on.
fn recognise(core: &Core, identity: Identity) -> Result<()> {
    let mut last = core.known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = *last
        && (known.id != identity.id || identity.canary < known.canary)
    {
        let error = Error::unavailable(
            "another database answers than the one that is known, or an older state of it; bring the known one back",
        );
        return Err(error.with_outage(Outage::Foreign));
    }
    core.primary.expect(Some(identity))?;
    *last = Some(identity);
    Ok(())
}

/// Writes down what is known, so that the next start knows it too.
pub(super) async fn keep(core: &Core) {
    let Some(journal) = &core.journal else { return };
    let identity = *core.known.lock().unwrap_or_else(PoisonError::into_inner);
    let ahead = |moment: Timestamp, by: Duration| {
        Timestamp::from_millis(moment.as_millis().saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    };
    let reserve = ahead(core.clock.now(), CLOCK_RESERVE).max(ahead(core.stamps.issue().timestamp(), STAMP_RESERVE));
    let fingerprint = core.settings.fingerprint.clone();
    let meta = Meta { fingerprint, identity, clock_reserve: Some(reserve) };
    if let Err(error) = journal.set_meta(meta).await {
        tracing::warn!(%error, "what is known of the primary could not be written down");
    }
}

/// The interval, up to a fifth longer, so that processes do not probe together.
fn jittered(interval: Duration, core: &Core) -> Duration {
    let random = core.stamps.issue().to_bytes();
    let fraction = f64::from(random[5] ^ random[15]) / 255.0;
    interval.mul_f64(0.8 + 0.2 * fraction)
}

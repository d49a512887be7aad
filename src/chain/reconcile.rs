//! The replay: what is owed is brought to the primary, in the order of the journal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::contract::{Append, Context, ReplayOptions, ReplayOutcome, Step, Succession, Write, WriteMode, WriteOp};
use crate::error::{Error, ErrorKind, Outage, Result};
use crate::time::{Timestamp, Ttl};

use super::core::Core;
use super::gate::{Attempt, Call};
use super::journal::{Action, Episode, Header, Journal, Operation, REPLACED, each_header};
use super::owed::{Owed, Replaced};

/// The pace of the replay while all goes well.
const FIRST_PACE: Pace = Pace { operations: 512, bytes: 4 << 20, timeout: Duration::from_secs(5) };

/// The longest that one replay may take, for a large value on a slow line.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause after a replay that failed for a reason that passes.
const PAUSE: Duration = Duration::from_millis(200);

/// How much is replayed at once, and how long that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    operations: usize,
    /// Of values; one operation is always taken.
    bytes: usize,
    timeout: Duration,
}

impl Pace {
    /// A replay that was not answered was too much for the line, or its connection is dead: less at once, and more time for it.
    fn after_silence(self) -> Self {
        Self {
            operations: (self.operations / 4).max(1),
            bytes: self.bytes / 4,
            timeout: (self.timeout * 2).min(LONGEST_TIMEOUT),
        }
    }

    /// What came through may be more the next time. The time stays until all of it is as at first.
    fn after_success(self) -> Self {
        let (operations, bytes) = (self.operations.saturating_mul(2), self.bytes.saturating_mul(2).max(1 << 10));
        if operations >= FIRST_PACE.operations && bytes >= FIRST_PACE.bytes {
            return FIRST_PACE;
        }
        Self { operations: operations.min(FIRST_PACE.operations), bytes: bytes.min(FIRST_PACE.bytes), ..self }
    }
}

/// Replays whenever something is owed and the primary is there, for ever.
pub(super) async fn run(core: Arc<Core>) {
    let Some(journal) = core.journal.clone() else { return };
    // How many operations the last replay settled.
    let mut settled = 0;
    let mut pace = FIRST_PACE;
    loop {
        if core.has_unknown.swap(false, Ordering::AcqRel)
            && let Err(error) = look_for_unknown(&core, &*journal).await
        {
            tracing::warn!(%error, "it cannot be seen yet whether the journal holds what was broken off");
            core.has_unknown.store(true, Ordering::Release);
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if core.is_open() || core.owed().pending() == 0 {
            core.rounds.rest();
            core.debts.notified().await;
            continue;
        }
        match round(&core, &*journal, settled, pace).await {
            Ok(count) => {
                settled = count;
                pace = pace.after_success();
                core.hinder_replay(None);
            }
            Err(error) => {
                // In a transaction it is known that nothing was applied: silence is told by what it says of the primary.
                if error.kind() == ErrorKind::OutcomeUnknown || error.outage() == Some(Outage::Silent) {
                    pace = pace.after_silence();
                }
                core.rounds.rest();
                core.hinder_replay(Some(&error));
                tracing::debug!(%error, "a replay of the journal did not come through; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        if core.owed().pending() == 0 {
            settled = 0;
            core.announce(None);
        }
    }
}

/// Counts as owed what the journal holds though nobody heard that it was kept.
async fn look_for_unknown(core: &Core, journal: &dyn Journal) -> Result<()> {
    // It comes behind what is being written.
    journal.add_succession(Succession::NONE).await?;
    let add =
        |headers: Vec<Header>| core.change_owed(|owed| headers.into_iter().for_each(|header| owed.add_unheard(header)));
    each_header(journal, 0, add).await?;
    core.journaled();
    Ok(())
}

/// Replays the next operations: what the primary took is removed, what it will never take is put aside. Answers how many it took.
async fn round(core: &Core, journal: &dyn Journal, settled_last: usize, pace: Pace) -> Result<usize> {
    let (seqs, pending) = {
        let owed = core.owed();
        (owed.next(pace.operations), owed.pending())
    };
    core.rounds.begin(settled_last, pending);
    let operations = journal.read_many(seqs.clone(), pace.bytes).await?;
    forget_missing(core, &seqs, &operations);
    let Some((_, first)) = operations.first() else { return Ok(settled_last) };
    let Episode { since, succession } = journal.episode().await?;
    let options = ReplayOptions::for_outage(since.unwrap_or(first.stamp))
        .with_succession(succession)
        .with_policy(core.settings.policy);
    let now = core.clock.now();
    let (seqs, steps): (Vec<u64>, Vec<Step>) =
        operations.into_iter().map(|(seq, operation)| (seq, step(operation, now))).unzip();
    let (cx, began) = (Context::with_timeout(pace.timeout), Instant::now());
    let outcomes = match core.attempt(Call::Write, core.primary.replay(steps, &options, &cx)).await {
        Attempt::Answered(outcomes) => outcomes,
        Attempt::NotSent => return Err(Error::unavailable("the primary is away")),
        // It may have been this that kept the line from the probes.
        Attempt::BrokenOff => return Err(Error::unavailable("the primary is away").with_outage(Outage::Silent)),
    };
    if began.elapsed() >= pace.timeout
        && let Some(Err(error)) = outcomes.first()
        && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown)
    {
        // Its last request may have had too little time to say anything of the primary.
        return Err(error.clone().with_outage(Outage::Silent));
    }
    let mut sorted = sort(&seqs, outcomes)?;
    if sorted.done.is_empty() && sorted.parked.is_empty() {
        return Err(Error::internal("a replay withheld operations, and put none aside that they wait behind"));
    }
    resolve(&core.owed(), &mut sorted, &options.succession);
    settle(core, journal, sorted).await
}

/// Decides what becomes of operations that were put aside, or are to be now, and that something newer replaces: it must be known
/// after a crash too that they are not the last word on their keys. Where that was written in knowledge of them, they are dropped;
/// else they are acknowledged writes that nobody may lose silently, and stay.
fn resolve(owed: &Owed, sorted: &mut Sorted, succession: &Succession) {
    let replaced = owed.replaced(&sorted.done, sorted.parked.iter().map(|(seq, _)| *seq));
    let (known, unknown): (Vec<Replaced>, Vec<Replaced>) =
        replaced.into_iter().partition(|Replaced { stamp, by, .. }| succession.knew(*by, *stamp));
    sorted.dropped = known.into_iter().map(|Replaced { seq, .. }| seq).collect();
    sorted.parked.retain(|(seq, _)| !sorted.dropped.contains(seq));
    // A list that is owed an item is not read anyway.
    sorted.replaced = unknown.into_iter().map(|Replaced { seq, .. }| seq).filter(|seq| !owed.is_item(*seq)).collect();
    for (seq, reason) in &mut sorted.parked {
        if sorted.replaced.contains(seq) || owed.is_replaced(*seq) {
            *reason = format!("{REPLACED}; {reason}");
        }
    }
}

/// Writes down what became of the operations of a replay; answers how many the primary took.
async fn settle(core: &Core, journal: &dyn Journal, sorted: Sorted) -> Result<usize> {
    let Sorted { done, parked, dropped, replaced, conflicts } = sorted;
    let removed = done.iter().chain(&dropped).copied().collect();
    let is_new = |seq: &u64| parked.iter().any(|(parked, _)| parked == seq);
    let since_replaced = replaced.iter().filter(|seq| !is_new(seq)).map(|seq| (*seq, REPLACED.to_owned()));
    let aside = parked.iter().cloned().chain(since_replaced).collect();
    journal.settle(removed, aside).await?;
    core.change_owed(|owed| {
        done.iter().for_each(|seq| owed.pay(*seq));
        if !dropped.is_empty() {
            owed.give_up(&dropped);
        }
        parked.iter().for_each(|(seq, _)| owed.park(*seq));
        replaced.iter().for_each(|seq| owed.hide_replaced(*seq));
    });
    core.note_replayed(done.len());
    core.note_conflicts(conflicts);
    for (seq, reason) in &parked {
        tracing::error!(seq, reason, "an operation of the journal cannot be replayed; it was put aside");
    }
    for seq in &dropped {
        tracing::warn!(seq, "an operation that was put aside was dropped, because a newer one replaced it");
    }
    Ok(done.len())
}

/// Forgets what was settled between two looks at the journal. What is not there cannot be replayed.
fn forget_missing(core: &Core, seqs: &[u64], operations: &[(u64, Operation)]) {
    let first = operations.first().map(|(seq, _)| *seq);
    let missing: Vec<u64> = seqs.iter().copied().take_while(|seq| first.is_none_or(|first| *seq < first)).collect();
    if !missing.is_empty() {
        core.change_owed(|owed| missing.iter().for_each(|seq| owed.pay(*seq)));
    }
}

/// The operation as the primary takes it. A put that has ended meanwhile is written all the same, to outvote what is older.
fn step(operation: Operation, now: Timestamp) -> Step {
    let Operation { stamp, action } = operation;
    match action {
        Action::Put { key, value, expires_at } => match expires_at {
            Some(expires_at) if expires_at <= now => Step::Expired { key, value, expires_at, stamp },
            expires_at => {
                // A clock that stepped back leaves more than the longest TTL.
                let ttl = expires_at.map(|at| Ttl::new(at.since(now)).unwrap_or(Ttl::MAX));
                Step::Write(Write::new(key, WriteOp::Put { value, mode: WriteMode::Upsert, ttl }, stamp))
            }
        },
        Action::Delete { key } => Step::Write(Write::delete(key, stamp)),
        Action::Append { key, value, item_id } => Step::Append(Append::new(key, value, stamp).with_item_id(item_id)),
        Action::Clear { prefix } => Step::Clear { prefix, stamp },
    }
}

/// What became of the operations of a replay.
#[derive(Debug, Default)]
struct Sorted {
    done: Vec<u64>,
    parked: Vec<(u64, String)>,
    /// Of those that were put aside, now or before: what is dropped, because whoever replaced it knew of it.
    dropped: Vec<u64>,
    /// And what is not, because whoever replaced it did not.
    replaced: Vec<u64>,
    conflicts: u64,
}

/// # Errors
///
/// The primary's, if it took nothing.
fn sort(seqs: &[u64], outcomes: Vec<Result<ReplayOutcome>>) -> Result<Sorted> {
    let mut sorted = Sorted::default();
    for (seq, outcome) in seqs.iter().zip(outcomes) {
        match outcome {
            Ok(ReplayOutcome::Superseded { .. }) => {
                sorted.conflicts += 1;
                sorted.done.push(*seq);
            }
            Ok(ReplayOutcome::TooOld { .. }) => {
                let reason =
                    "it waited for longer than the primary remembers deletes; it might bring back what was deleted";
                sorted.parked.push((*seq, reason.to_owned()));
            }
            // It waits behind the one that is put aside with this replay.
            Ok(ReplayOutcome::Withheld) => {}
            Ok(_) => sorted.done.push(*seq),
            Err(error) => match error.kind() {
                // What does not fit the program, as tables that a newer one has migrated, is wrong with no one operation.
                ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::Closed | ErrorKind::Config => {
                    return Err(error);
                }
                _ => sorted.parked.push((*seq, error.to_string())),
            },
        }
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_that_is_too_much_for_the_line_becomes_less_and_more_patient_until_it_comes_through() {
        let mut pace = FIRST_PACE;
        for _ in 0..20 {
            pace = pace.after_silence();
        }
        assert_eq!(pace, Pace { operations: 1, bytes: 0, timeout: LONGEST_TIMEOUT });
        let mut successes = 0;
        while pace != FIRST_PACE {
            pace = pace.after_success();
            successes += 1;
        }
        assert!(successes < 20, "{successes}");
        assert_eq!(FIRST_PACE.after_success(), FIRST_PACE);
    }
}

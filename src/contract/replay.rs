//! Replay: operations that were acknowledged elsewhere, brought to their database, each once in effect.

use std::time::Duration;

use crate::key::Key;
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::Value;

use super::list::ItemId;
use super::succession::Succession;

/// How a replay treats what others wrote meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayOptions {
    /// When the outage began, earlier by as much as clocks may differ. What others wrote since then was written without knowing of
    /// the replayed operations: whichever of the two loses is kept as a [`ConflictRecord`].
    pub since: Stamp,
    /// Which writers knew of which. Without it each knew only of what it wrote itself.
    pub succession: Succession,
    /// Who wins.
    pub policy: ConflictPolicy,
}

/// Who wins where a replayed write meets one that somebody else made meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConflictPolicy {
    /// The newer stamp.
    #[default]
    LastWriterWins,
    /// What stands in the primary.
    PrimaryWins,
}

/// What is to be done with one replayed operation, judged by the stamp that stands where it would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayDecision {
    /// It is there, or a newer write by somebody who knew of it: the same writer, or an heir.
    Skip,
    /// Somebody else's write stays; the operation is kept as a conflict.
    Lose {
        /// The stamp of the write that stays.
        winner: Stamp,
    },
    /// It is applied, under the stamp it has.
    Apply {
        /// Whether it overwrites what somebody else wrote meanwhile, which is then kept as a conflict.
        keep_overwritten: bool,
    },
}

impl ReplayOptions {
    /// By how much the clocks of two processes may differ: 1 minute. What was written within it before an outage may have been
    /// written during the outage, by a clock that is behind; so it counts as that.
    pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

    /// Makes options for what is owed since an outage began: `since` is earlier than that by [`ReplayOptions::CLOCK_SKEW`].
    #[must_use]
    pub fn for_outage(began: Stamp) -> Self {
        let skew = u64::try_from(Self::CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
        let earlier = began.timestamp().as_millis().saturating_sub(skew);
        Self::new(Stamp::earliest(Timestamp::from_millis(earlier)))
    }

    /// Makes options by which the newer stamp wins.
    #[must_use]
    pub const fn new(since: Stamp) -> Self {
        Self { since, succession: Succession::NONE, policy: ConflictPolicy::LastWriterWins }
    }

    /// Chooses who wins.
    #[must_use]
    pub const fn with_policy(mut self, policy: ConflictPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Says which writers knew of which.
    #[must_use]
    pub fn with_succession(mut self, succession: Succession) -> Self {
        self.succession = succession;
        self
    }

    /// Judges an operation by what stands where it would write, if anything does: a value, its tombstone, the floor of a list, or
    /// one of its items. Operations of several writers may be replayed together; each is judged as its own writer's.
    #[must_use]
    pub fn decide(&self, stamp: Stamp, standing: Option<Stamp>) -> ReplayDecision {
        let Some(standing) = standing else { return ReplayDecision::Apply { keep_overwritten: false } };
        if standing == stamp {
            return ReplayDecision::Skip;
        }
        if standing > stamp {
            // Who wrote it and knew of this operation meant to replace it.
            let meant = self.succession.knew(standing, stamp);
            return if meant { ReplayDecision::Skip } else { ReplayDecision::Lose { winner: standing } };
        }
        let meanwhile = standing >= self.since && !self.succession.knew(stamp, standing);
        match self.policy {
            ConflictPolicy::PrimaryWins if meanwhile => ReplayDecision::Lose { winner: standing },
            _ => ReplayDecision::Apply { keep_overwritten: meanwhile },
        }
    }
}

/// What became of one step of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayOutcome {
    /// It was applied now.
    Applied,
    /// It was there already, or a newer write by somebody who knew of it.
    AlreadyApplied,
    /// Somebody else's write stays, and the step is kept as a [`ConflictRecord`].
    Superseded {
        /// The stamp of the write that stays.
        winner: Stamp,
    },
    /// It is not there, and older than the deletes that the store remembers, so that applying it might bring back what was
    /// deleted. It was not applied.
    TooOld {
        /// Deletes before this stamp may be forgotten.
        floor: Stamp,
    },
    /// An append that was not applied, because an earlier one of its list was not: a list takes its items in their order. See
    /// [`AppendOrder`](super::AppendOrder).
    Withheld,
}

/// A write that was acknowledged and lost against another one, kept until somebody has seen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConflictRecord {
    /// The key.
    pub key: Key,
    /// The stamp of the write that lost, which names the record together with the key.
    pub stamp: Stamp,
    /// What the write was.
    pub operation: LostOperation,
    /// The stamp of the write that stayed.
    pub winner: Stamp,
    /// When the loss was found.
    pub at: Timestamp,
}

impl ConflictRecord {
    /// Makes a record.
    #[must_use]
    pub const fn new(key: Key, stamp: Stamp, operation: LostOperation, winner: Stamp, at: Timestamp) -> Self {
        Self { key, stamp, operation, winner, at }
    }
}

/// The write that lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostOperation {
    /// A value was written.
    Put {
        /// The value.
        value: Value,
        /// When the entry would have ended.
        expires_at: Option<Timestamp>,
    },
    /// Value and list were deleted.
    Delete,
    /// An item was appended.
    Append {
        /// The item's value.
        value: Value,
        /// The item's name.
        item_id: ItemId,
    },
}

impl LostOperation {
    /// The name in lower case.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Delete => "delete",
            Self::Append { .. } => "append",
        }
    }
}

/// Which conflicts to list: in the order of their stamps, then of their keys, from the first after `after`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConflictOptions {
    /// The most records, 1 to [`ConflictOptions::MAX_LIMIT`].
    pub limit: usize,
    /// Where the last page ended: a stamp alone may name several records, as those of a clear.
    pub after: Option<(Stamp, Key)>,
}

impl ConflictOptions {
    /// The most records that can be asked for, and what is asked for by default.
    pub const MAX_LIMIT: usize = 1000;

    /// Sets the most records of a page.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, Self::MAX_LIMIT);
        self
    }

    /// Goes on after a record.
    #[must_use]
    pub fn with_after(mut self, record: &ConflictRecord) -> Self {
        self.after = Some((record.stamp, record.key.clone()));
        self
    }
}

impl Default for ConflictOptions {
    fn default() -> Self {
        Self { limit: Self::MAX_LIMIT, after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::HybridClock;
    use crate::time::Clock;

    #[test]
    fn a_step_is_judged_by_who_wrote_what_stands_and_when() {
        let wall = Clock::manual();
        let (ours, theirs) = (HybridClock::new(wall.clone()), HybridClock::new(wall));
        let before = theirs.issue();
        let step = ours.issue_after(before);
        let meanwhile = theirs.issue_after(step);
        let later = ours.issue_after(meanwhile);
        let options = ReplayOptions::new(step);
        let apply = |keep_overwritten| ReplayDecision::Apply { keep_overwritten };
        assert_eq!(options.decide(step, None), apply(false));
        assert_eq!(options.decide(step, Some(step)), ReplayDecision::Skip);
        assert_eq!(options.decide(step, Some(later)), ReplayDecision::Skip);
        assert_eq!(options.decide(step, Some(meanwhile)), ReplayDecision::Lose { winner: meanwhile });
        assert_eq!(options.decide(later, Some(meanwhile)), apply(true));
        assert_eq!(options.decide(later, Some(before)), apply(false));
        assert_eq!(options.decide(later, Some(step)), apply(false));
        let primary = options.with_policy(ConflictPolicy::PrimaryWins);
        assert_eq!(primary.decide(later, Some(meanwhile)), ReplayDecision::Lose { winner: meanwhile });
        assert_eq!(primary.decide(later, Some(before)), apply(false));
    }

    #[test]
    fn of_two_writers_in_one_journal_each_is_judged_as_its_own() {
        let wall = Clock::manual();
        let (dead, heir) = (HybridClock::new(wall.clone()), HybridClock::new(wall));
        let unaware = heir.issue();
        let left = dead.issue_after(unaware);
        let between = heir.issue_after(left);
        let mut succession = Succession::default();
        let from = heir.issue();
        succession.add(heir.writer(), dead.writer(), from);
        let aware = heir.issue();
        let options = ReplayOptions::new(Stamp::MIN).with_succession(succession);
        let apply = |keep_overwritten| ReplayDecision::Apply { keep_overwritten };
        assert_eq!(options.decide(unaware, Some(left)), ReplayDecision::Lose { winner: left });
        assert_eq!(options.decide(left, Some(unaware)), apply(true));
        assert_eq!(options.decide(left, Some(between)), ReplayDecision::Lose { winner: between });
        assert_eq!(options.decide(between, Some(left)), apply(true));
        assert_eq!(options.decide(left, Some(aware)), ReplayDecision::Skip);
        for policy in [ConflictPolicy::LastWriterWins, ConflictPolicy::PrimaryWins] {
            assert_eq!(options.clone().with_policy(policy).decide(aware, Some(left)), apply(false), "{policy:?}");
        }
    }
}

//! What can be seen of a chain: [`ChainStatus`].

use crate::error::Error;
use crate::time::Timestamp;

/// Where the calls to a database go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChainState {
    /// To the primary, which is owed nothing.
    Normal,
    /// To the journal, because the primary is away. What only the primary could answer is unavailable.
    Degraded,
    /// The primary is back, and the journal is being replayed: calls about keys that are still owed something go to the journal,
    /// all others to the primary.
    Reconciling,
}

impl ChainState {
    /// The name in lower case, as metrics, logs and the command line write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Degraded => "degraded",
            Self::Reconciling => "reconciling",
        }
    }
}

/// How a chain is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChainStatus {
    /// Where the calls go.
    pub state: ChainState,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not normal, if a failure said so.
    pub reason: Option<Error>,
    /// Whether another database answered than the one that is known, or an older state of it. Nothing is read or replayed until the
    /// known one is back.
    pub fenced: bool,
    /// Whether the journal takes no more operations.
    pub journal_full: bool,
    /// The bytes of the journal.
    pub journal_bytes: u64,
    /// How many operations wait for the primary.
    pub pending: usize,
    /// How many operations were put aside, because the primary does not take them.
    pub parked: usize,
    /// When the oldest operation that is owed was written.
    pub oldest: Option<Timestamp>,
    /// How many operations were brought to the primary since the start.
    pub replayed: u64,
    /// How many conflicts were found since the start.
    pub conflicts: u64,
    /// The journals of dead processes that were left alone, and why: damaged, written by a newer version, or owed to another database.
    pub left_journals: Vec<String>,
}

impl ChainStatus {
    pub(super) const fn first(now: Timestamp) -> Self {
        Self {
            state: ChainState::Normal,
            since: now,
            reason: None,
            fenced: false,
            journal_full: false,
            journal_bytes: 0,
            pending: 0,
            parked: 0,
            oldest: None,
            replayed: 0,
            conflicts: 0,
            left_journals: Vec::new(),
        }
    }

    pub(super) fn enter(&mut self, state: ChainState, fenced: bool, reason: Option<&Error>, now: Timestamp) {
        if self.state != state {
            self.since = now;
        }
        (self.state, self.fenced, self.reason) = (state, fenced, reason.cloned());
    }

    /// One line a transition, none a call.
    pub(super) fn log(&self, before: &Self) {
        let Self { state, fenced, pending, parked, .. } = self;
        let (state, from) = (state.as_str(), before.state.as_str());
        match &self.reason {
            Some(reason) => {
                tracing::warn!(state, from, fenced, pending, parked, %reason, "the storage's database changed its state");
            }
            None => tracing::info!(state, from, fenced, pending, parked, "the storage's database changed its state"),
        }
    }
}

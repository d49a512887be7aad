//! What can be seen of a chain: [`ChainStatus`]; and the [`Board`] that shows it.

use tokio::sync::watch;

use crate::error::{Error, Outage};
use crate::time::Timestamp;

use super::meters;

/// Where the calls to a store go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChainState {
    /// To the primary, which is owed nothing.
    Normal,
    /// To the journal of a database, or the memory that stands in for a cache, because the primary is away. What only the primary
    /// could answer is unavailable.
    Degraded,
    /// The primary is back, and what was written meanwhile is being replayed there, or for a cache deleted there: calls about keys
    /// of which that is not done yet go where they went before, all others to the primary.
    Reconciling,
}

impl ChainState {
    /// The state of a chain whose breaker is open or not, and that owes so many operations.
    pub(super) const fn of(is_open: bool, pending: usize) -> Self {
        match (is_open, pending) {
            (true, _) => Self::Degraded,
            (false, 0) => Self::Normal,
            (false, _) => Self::Reconciling,
        }
    }

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
    /// How many operations wait for the primary; for a cache, how many keys and prefixes are to be deleted there.
    pub pending: usize,
    /// How many operations were put aside, because the primary does not take them, or wait behind such a one in their list. See
    /// [`DatabaseChain::retry_parked`](super::DatabaseChain::retry_parked).
    pub parked: usize,
    /// When the oldest operation that is owed was written.
    pub oldest: Option<Timestamp>,
    /// How many operations were brought to the primary since the start.
    pub replayed: u64,
    /// How many operations of the journal lost against what stands in the primary since the start. What others wrote and lost is not
    /// counted; [`Database::conflicts`](crate::Database::conflicts) lists both.
    pub conflicts: u64,
    /// The journals of dead processes that were left alone, and why: damaged, written by a newer version, or owed to another database.
    pub left_journals: Vec<String>,
}

impl ChainStatus {
    const fn first(now: Timestamp) -> Self {
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

    fn enter(&mut self, state: ChainState, fenced: bool, reason: Option<&Error>, now: Timestamp) {
        if self.state != state {
            self.since = now;
        }
        (self.state, self.fenced, self.reason) = (state, fenced, reason.cloned());
    }

    /// One line a transition, none a call.
    fn log(&self, side: &'static str, before: &Self) {
        let Self { state, fenced, pending, parked, .. } = self;
        let (state, from) = (state.as_str(), before.state.as_str());
        match &self.reason {
            Some(reason) => {
                tracing::warn!(side, state, from, fenced, pending, parked, %reason, "a side of the storage changed its state");
            }
            None => {
                tracing::info!(side, state, from, fenced, pending, parked, "a side of the storage changed its state")
            }
        }
    }
}

/// Shows the status of a chain to those who watch.
#[derive(Debug)]
pub(super) struct Board {
    side: &'static str,
    status: watch::Sender<ChainStatus>,
}

impl Board {
    /// Makes the board of a side of the storage: `cache` or `database`.
    pub(super) fn new(side: &'static str, now: Timestamp) -> Self {
        Self { side, status: watch::Sender::new(ChainStatus::first(now)) }
    }

    /// What was told last.
    pub(super) fn last(&self) -> ChainStatus {
        self.status.borrow().clone()
    }

    /// The state that was told last.
    pub(super) fn state(&self) -> ChainState {
        self.status.borrow().state
    }

    pub(super) fn watch(&self) -> watch::Receiver<ChainStatus> {
        self.status.subscribe()
    }

    /// Changes what is told, and tells it.
    pub(super) fn change(&self, change: impl FnOnce(&mut ChainStatus)) {
        self.status.send_modify(change);
    }

    /// Changes what is told, and leaves it to the next news to tell it.
    pub(super) fn note(&self, change: impl FnOnce(&mut ChainStatus)) {
        self.status.send_if_modified(|status| {
            change(status);
            false
        });
    }

    /// Tells why nothing that is owed is brought to a primary that is there, or that nothing stands in the way any more. It is logged
    /// once.
    pub(super) fn hinder(&self, reason: Option<&Error>) {
        self.status.send_if_modified(|status| {
            let known = status.reason.as_ref().map(Error::message);
            let is_news = status.state == ChainState::Reconciling && known != reason.map(Error::message);
            if is_news {
                if let Some(reason) = reason {
                    tracing::warn!(side = self.side, %reason, "what is owed cannot be brought to the primary now; it is tried again");
                }
                status.reason = reason.cloned();
            }
            is_news
        });
    }

    /// Shows a status to whoever collects metrics.
    pub(super) fn show(&self, status: &ChainStatus, now: Timestamp) {
        meters::show(self.side, status, now);
    }

    /// Tells that the state is another one now, if it is, or that there is other news, and logs it; `fill` adds the numbers. Why the
    /// primary is away is not forgotten before it is back, unless there is a `new` reason.
    ///
    /// Whoever tells looks how it is when nobody else may tell, so that the last to tell was the last to look.
    pub(super) fn tell(
        &self,
        state: impl FnOnce() -> ChainState,
        new: Option<&Error>,
        now: Timestamp,
        has_news: impl FnOnce(&ChainStatus) -> bool,
        fill: impl FnOnce(&mut ChainStatus),
    ) {
        self.status.send_if_modified(|status| {
            let state = state();
            let known = status.reason.clone().filter(|_| state == ChainState::Degraded);
            let reason = new.or(known.as_ref());
            let fenced = state == ChainState::Degraded && reason.and_then(Error::outage) == Some(Outage::Foreign);
            let is_new =
                |new: &Error| !status.reason.as_ref().is_some_and(|told| told.message().starts_with(new.message()));
            let changed = status.state != state || status.fenced != fenced || fenced && new.is_some_and(is_new);
            let has_news = has_news(status);
            if changed || has_news {
                let told = new.filter(|_| fenced).map(with_a_way_out);
                let reason = told.as_ref().or(reason);
                let mut next = status.clone();
                fill(&mut next);
                next.enter(state, fenced, reason, now);
                next.log(self.side, status);
                if status.state != state {
                    meters::count_transition(self.side, state);
                }
                self.show(&next, now);
                *status = next;
            }
            changed || has_news
        });
    }
}

/// Why another database is not used, and what can be done about it.
fn with_a_way_out(reason: &Error) -> Error {
    let message = reason.message();
    let way_out = "bring the known database back, or accept the one that answers: agent-storage reconcile --accept";
    Error::unavailable(format!("{message}; {way_out}")).with_outage(Outage::Foreign).with_source(reason.clone())
}

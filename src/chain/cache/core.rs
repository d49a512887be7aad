//! The [`Core`] that the parts of a cache's chain share: the primary, what stands in for it, and which keys are dirty.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::chain::gate::{Answer, Attempt, Call, Gate, Patience, Probed};
use crate::chain::in_flight::InFlight;
use crate::chain::status::{Board, ChainState, ChainStatus};
use crate::config::CacheChainConfig;
use crate::contract::{CacheBackend, Context, Ping};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::HybridClock;
use crate::time::{Clock, Ttl};

use super::dirty::Dirty;
use super::late::Late;
use super::marker::Marker;

/// The longest time of a call that is kept back for what stands in.
const LONGEST_RESERVE: Duration = Duration::from_millis(50);

/// Everything that calls, probes and the reconciliation share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) primary: Arc<dyn CacheBackend>,
    /// Serves while the primary is away.
    pub(super) fallback: Arc<dyn CacheBackend>,
    /// What is cleared where too many keys are dirty.
    pub(super) scope: KeyPrefix,
    /// How long the primary keeps an entry that was given no TTL.
    pub(super) default_ttl: Option<Ttl>,
    pub(super) stamps: Arc<HybridClock>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) late: Late,
    /// Tells the next process that something is dirty, if a folder was given for that.
    pub(super) marker: Option<Marker>,
    pub(super) gate: Gate,
    /// Wakes the task that reconciles.
    pub(super) debts: Notify,
    dirty: RwLock<Dirty>,
    /// How much is dirty: while it is zero, nobody looks further.
    owing: AtomicUsize,
    board: Board,
    clock: Clock,
    closed: AtomicBool,
}

/// The parts that a core is made of.
pub(super) struct Parts {
    pub(super) primary: Arc<dyn CacheBackend>,
    pub(super) fallback: Arc<dyn CacheBackend>,
    pub(super) scope: KeyPrefix,
    pub(super) default_ttl: Option<Ttl>,
    pub(super) timeout: Duration,
    pub(super) clock: Clock,
    pub(super) stamps: Arc<HybridClock>,
    pub(super) marker: Option<Marker>,
}

impl Core {
    pub(super) fn new(config: &CacheChainConfig, parts: Parts) -> Arc<Self> {
        let Parts { primary, fallback, scope, default_ttl, timeout, clock, stamps, marker } = parts;
        let core = Self {
            primary,
            fallback,
            scope,
            default_ttl,
            stamps,
            in_flight: Arc::default(),
            late: Late::default(),
            marker,
            gate: Gate::new(config.breaker, Patience::new(&config.breaker, timeout)),
            debts: Notify::new(),
            dirty: RwLock::default(),
            owing: AtomicUsize::new(0),
            board: Board::new("cache", clock.now()),
            clock,
            closed: AtomicBool::new(false),
        };
        Arc::new(core)
    }

    /// Fails once the chain is closed, or the deadline has passed.
    pub(super) fn admit(&self, cx: &Context) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        if cx.is_expired() {
            return Err(Error::unavailable("the deadline had passed before the call began"));
        }
        Ok(())
    }

    /// Lets no more calls in; `false` if that was so already.
    pub(super) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Whether anything is dirty.
    pub(super) fn owes_anything(&self) -> bool {
        self.owing.load(Ordering::SeqCst) > 0
    }

    pub(super) fn dirty(&self) -> RwLockReadGuard<'_, Dirty> {
        self.dirty.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is dirty; those who look next see it.
    pub(super) fn change_dirty<T>(&self, change: impl FnOnce(&mut Dirty) -> T) -> T {
        let mut dirty = self.dirty.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut dirty);
        self.owing.store(dirty.len(), Ordering::SeqCst);
        changed
    }

    /// Whether the primary must not be asked for a key: it is away, or may hold something older.
    pub(super) fn stands_in_for(&self, key: &Key) -> bool {
        self.gate.is_open() || (self.owes_anything() && self.dirty().covers(key))
    }

    /// Makes something dirty, and sees that it will be known after a crash too.
    ///
    /// # Errors
    ///
    /// `Unavailable` if that cannot be written down. It is dirty all the same, so what stands at the primary goes. To the caller nothing
    /// was applied: an entry of a cache may go at any time.
    pub(super) async fn make_dirty(&self, change: impl FnOnce(&mut Dirty)) -> Result<()> {
        self.change_dirty(change);
        let marked = match &self.marker {
            Some(marker) => marker.mark().await,
            None => Ok(()),
        };
        if !self.gate.is_open() {
            self.debts.notify_one();
            if self.board.state() == ChainState::Normal {
                self.announce(None);
            }
        }
        marked
    }

    /// Calls the primary, if the breaker lets it, and notes what its answer says of the primary.
    pub(super) async fn attempt<T: Answer>(&self, asked: Call, call: impl Future<Output = T>) -> Attempt<T> {
        self.gate.attempt(asked, call, |error| self.announce(Some(error))).await
    }

    /// Probes for ever: from time to time, and at once where a call waits too long or the breaker opened.
    pub(super) async fn probe_for_ever(self: Arc<Self>) {
        loop {
            self.gate.until_due(self.stamps.issue()).await;
            self.probe().await;
            self.board.show(&self.current_status(), self.clock.now());
            self.gate.breathe().await;
        }
    }

    /// Asks the primary whether it takes writes.
    pub(super) async fn probe(&self) {
        match self.gate.probe(|| async { answered(self.gate.ping(&*self.primary).await) }).await {
            Probed::Closed => {
                self.debts.notify_one();
                self.announce(None);
            }
            Probed::Open(error) => self.announce(Some(&error)),
            Probed::Unchanged => {}
        }
    }

    /// The context of a call to the primary that leaves time for what stands in.
    pub(super) fn keeping_reserve(&self, cx: &Context) -> Context {
        let mut shortened = *cx;
        let reserve = (cx.remaining() / 8).min(LONGEST_RESERVE);
        shortened.deadline = cx.deadline.checked_sub(reserve).unwrap_or(cx.deadline);
        shortened
    }

    /// What there is to be told now.
    pub(super) fn current_status(&self) -> ChainStatus {
        let mut status = self.board.last();
        status.pending = self.owing.load(Ordering::SeqCst);
        status
    }

    /// Tells those who watch if the state is another one now, and logs it.
    pub(super) fn announce(&self, reason: Option<&Error>) {
        let pending = || self.owing.load(Ordering::SeqCst);
        let state = || ChainState::of(self.gate.is_open(), pending());
        self.board.tell(state, reason, self.clock.now(), |_| false, |status| status.pending = pending());
    }

    pub(super) const fn board(&self) -> &Board {
        &self.board
    }
}

/// What an answer to a ping tells: a primary without room for it is there, and what is deleted there makes room.
pub(super) fn answered(answer: Result<Ping>) -> Result<()> {
    match answer {
        Err(error) if !error.is_full() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

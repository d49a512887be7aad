//! The [`Core`] that the parts of a database's chain share: the primary, the journal, what is owed, and whether calls go to the
//! primary.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::config::{Conflicts, DatabaseChainConfig, MinDurability, OutageReads};
use crate::contract::{ConflictPolicy, Context, DatabaseBackend, Durability, Identity};
use crate::error::{Error, Outage, Result};
use crate::stamp::HybridClock;
use crate::time::Clock;

use super::breaker::Breaker;
use super::in_flight::InFlight;
use super::journal::Journal;
use super::owed::Owed;
use super::rounds::Rounds;
use super::status::{ChainState, ChainStatus};

/// The longest time of a call that is kept back for the journal.
const LONGEST_RESERVE: Duration = Duration::from_secs(1);

/// Everything that calls, probes and the replay share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) primary: Arc<dyn DatabaseBackend>,
    pub(super) journal: Option<Arc<dyn Journal>>,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) stamps: Arc<HybridClock>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) rounds: Rounds,
    owed: RwLock<Owed>,
    /// How many operations are owed: while it is zero, nobody looks further.
    owing: AtomicUsize,
    gate: Gate,
    /// Wakes the task that probes.
    pub(super) suspicion: Notify,
    /// Wakes the task that replays.
    pub(super) debts: Notify,
    /// Which database the primary was when it was last seen.
    pub(super) known: Mutex<Option<Identity>>,
    status: watch::Sender<ChainStatus>,
    closed: AtomicBool,
}

/// How a chain was told to behave.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) min_durability: Durability,
    pub(super) reads: OutageReads,
    pub(super) policy: ConflictPolicy,
    /// From when on a call without an answer makes the primary suspect.
    pub(super) suspect_after: Duration,
    /// How long a probe waits for its answer.
    pub(super) probe_timeout: Duration,
    pub(super) probe_interval: Duration,
    /// Names the configured primary, without secrets.
    pub(super) fingerprint: Option<String>,
}

impl Settings {
    /// What a configuration means where calls may take as long as `timeout`.
    pub(super) fn new(config: &DatabaseChainConfig, timeout: Duration, fingerprint: Option<String>) -> Self {
        // Suspicion and two probes end before the time that is kept back for the journal begins.
        let fifth = (timeout / 5).max(Duration::from_millis(1));
        Self {
            min_durability: match config.min_durability {
                MinDurability::Primary => Durability::Primary,
                MinDurability::Local => Durability::Local,
                MinDurability::Volatile => Durability::Volatile,
            },
            reads: config.reads,
            policy: match config.conflicts {
                Conflicts::LastWriterWins => ConflictPolicy::LastWriterWins,
                Conflicts::PrimaryWins => ConflictPolicy::PrimaryWins,
            },
            suspect_after: config.breaker.slow_call.min(fifth),
            probe_timeout: config.breaker.slow_call.min(fifth),
            probe_interval: config.breaker.probe_interval,
            fingerprint,
        }
    }
}

/// Whether calls go to the primary.
#[derive(Debug)]
struct Gate {
    open: AtomicBool,
    breaker: Mutex<Breaker>,
    /// Tells the calls on their way that the breaker opened.
    opened: Notify,
}

/// What came of a call to the primary.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    /// The primary answered, or the backend in its place.
    Answered(T),
    /// It was not sent, because the breaker is open.
    NotSent,
    /// The breaker opened while it was on its way; it may yet be applied.
    BrokenOff,
}

/// An answer that may tell something of the primary.
pub(super) trait Answer {
    /// The error that tells most.
    fn outage(&self) -> Option<&Error>;
}

impl<T> Answer for Result<T> {
    fn outage(&self) -> Option<&Error> {
        self.as_ref().err().filter(|error| error.outage().is_some())
    }
}

impl<T> Answer for Vec<Result<T>> {
    fn outage(&self) -> Option<&Error> {
        let mut telling = self.iter().filter_map(Answer::outage);
        let first = telling.next()?;
        Some(telling.find(|error| error.outage() != Some(Outage::Silent)).unwrap_or(first))
    }
}

/// The parts that a core is made of.
pub(super) struct Parts {
    pub(super) primary: Arc<dyn DatabaseBackend>,
    pub(super) journal: Option<Arc<dyn Journal>>,
    pub(super) config: DatabaseChainConfig,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) stamps: Arc<HybridClock>,
    pub(super) owed: Owed,
    pub(super) known: Option<Identity>,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { primary, journal, config, settings, clock, stamps, owed, known } = parts;
        let gate = Gate {
            open: AtomicBool::new(false),
            breaker: Mutex::new(Breaker::new(config.breaker, Instant::now())),
            opened: Notify::new(),
        };
        let owing = AtomicUsize::new(owed.len());
        let core = Self {
            primary,
            journal,
            settings,
            stamps,
            in_flight: Arc::default(),
            rounds: Rounds::default(),
            owed: RwLock::new(owed),
            owing,
            gate,
            suspicion: Notify::new(),
            debts: Notify::new(),
            known: Mutex::new(known),
            status: watch::Sender::new(ChainStatus::first(clock.now())),
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

    /// Whether the breaker is open, so that no call goes to the primary.
    pub(super) fn is_open(&self) -> bool {
        self.gate.open.load(Ordering::Acquire)
    }

    /// Whether anything is owed.
    pub(super) fn owes_anything(&self) -> bool {
        self.owing.load(Ordering::Acquire) > 0
    }

    pub(super) fn owed(&self) -> RwLockReadGuard<'_, Owed> {
        self.owed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is owed; those who look next see it.
    pub(super) fn change_owed<T>(&self, change: impl FnOnce(&mut Owed) -> T) -> T {
        let mut owed: RwLockWriteGuard<'_, Owed> = self.owed.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut owed);
        self.owing.store(owed.len(), Ordering::Release);
        changed
    }

    /// Calls the primary, if the breaker lets it, and notes what its answer says of the primary. While it takes long the primary is
    /// probed; should the breaker open, the call is no longer waited for.
    pub(super) async fn attempt<T: Answer>(&self, call: impl Future<Output = T>) -> Attempt<T> {
        let mut opened = pin!(self.gate.opened.notified());
        // From here on the opening does not go unnoticed.
        opened.as_mut().enable();
        if self.is_open() {
            return Attempt::NotSent;
        }
        let mut call = pin!(call);
        let patience = pin!(tokio::time::sleep(self.settings.suspect_after));
        let answer = tokio::select! {
            biased;
            answer = call.as_mut() => answer,
            () = opened.as_mut() => return Attempt::BrokenOff,
            () = patience => {
                self.suspicion.notify_one();
                tokio::select! {
                    biased;
                    answer = call => answer,
                    () = opened => return Attempt::BrokenOff,
                }
            }
        };
        self.note(answer.outage());
        Attempt::Answered(answer)
    }

    /// Notes what an answer said of the primary.
    fn note(&self, error: Option<&Error>) {
        let outage = error.and_then(Error::outage);
        let opened = self.judge(|breaker, now| breaker.record(outage, now));
        if let (true, Some(error)) = (opened, error) {
            self.tell_opened(error);
        }
    }

    /// Notes a probe that failed.
    pub(super) fn probe_failed(&self, error: &Error) {
        if self.judge(|breaker, now| breaker.probe_failed(error.outage(), now)) {
            self.tell_opened(error);
        } else if self.is_open() {
            self.announce(Some(error));
        }
    }

    /// Notes a probe that succeeded.
    pub(super) fn probe_succeeded(&self) {
        if self.judge(Breaker::probe_succeeded) {
            self.debts.notify_one();
            self.announce(None);
        }
    }

    /// Changes the breaker, and lets calls through or not as it says then.
    fn judge(&self, change: impl FnOnce(&mut Breaker, Instant) -> bool) -> bool {
        let mut breaker = self.gate.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut breaker, Instant::now());
        if changed {
            self.gate.open.store(breaker.is_open(), Ordering::Release);
        }
        changed
    }

    fn tell_opened(&self, error: &Error) {
        self.gate.opened.notify_waiters();
        self.announce(Some(error));
        // The next probe is due.
        self.suspicion.notify_one();
    }

    /// The context of a call to the primary that leaves time for the journal.
    pub(super) fn keeping_reserve(&self, cx: &Context) -> Context {
        if !self.can_journal() {
            return *cx;
        }
        let mut shortened = *cx;
        let reserve = (cx.remaining() / 4).min(LONGEST_RESERVE);
        shortened.deadline = cx.deadline.checked_sub(reserve).unwrap_or(cx.deadline);
        shortened
    }

    /// Whether what the primary does not take can be acknowledged all the same.
    pub(super) fn can_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.durability() >= self.settings.min_durability)
    }

    /// What there is to be told now.
    pub(super) fn current_status(&self) -> ChainStatus {
        let last = self.status.borrow().clone();
        self.fill(last)
    }

    fn fill(&self, mut status: ChainStatus) -> ChainStatus {
        let owed = self.owed();
        status.pending = owed.pending();
        status.parked = owed.parked();
        status.oldest = owed.oldest().map(crate::stamp::Stamp::timestamp);
        drop(owed);
        status.journal_full = self.journal.as_ref().is_some_and(|journal| journal.is_full());
        status.journal_bytes = self.journal.as_ref().map_or(0, |journal| journal.bytes());
        status
    }

    /// Tells those who watch if the state is another one now, and logs it. Why the primary is away is not forgotten before it is back.
    pub(super) fn announce(&self, reason: Option<&Error>) {
        let state = match (self.is_open(), self.owed().pending()) {
            (true, _) => ChainState::Degraded,
            (false, 0) => ChainState::Normal,
            (false, _) => ChainState::Reconciling,
        };
        let now = self.clock.now();
        self.status.send_if_modified(|status| {
            let known = status.reason.clone().filter(|_| state == ChainState::Degraded);
            let reason = reason.or(known.as_ref());
            let fenced = state == ChainState::Degraded && reason.and_then(Error::outage) == Some(Outage::Foreign);
            let changed = status.state != state || status.fenced != fenced;
            let newly_full = !status.journal_full && self.journal.as_ref().is_some_and(|journal| journal.is_full());
            if changed || newly_full {
                let mut next = self.fill(status.clone());
                next.enter(state, fenced, reason, now);
                next.log(status);
                *status = next;
            }
            changed || newly_full
        });
    }

    /// Something was journaled: it is to be replayed, and the state may be another one.
    pub(super) fn journaled(&self) {
        if !self.is_open() {
            self.debts.notify_one();
            if self.status.borrow().state == ChainState::Normal {
                self.announce(None);
            }
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<ChainStatus> {
        self.status.subscribe()
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn note_left_journals(&self, left: Vec<String>) {
        if !left.is_empty() {
            self.status.send_modify(|status| status.left_journals.extend(left));
        }
    }

    pub(super) fn note_conflicts(&self, count: u64) {
        if count > 0 {
            self.status.send_modify(|status| status.conflicts = status.conflicts.saturating_add(count));
            tracing::warn!(
                count,
                "writes that were acknowledged here lost against newer ones; they are kept as conflicts"
            );
        }
    }
}

/// What a call is told that only the primary could answer.
pub(super) fn away() -> Error {
    Error::unavailable("the primary is away, and only it could answer; see the state of the storage")
        .with_outage(Outage::Down)
}

/// What a call is told that was sent, and whose answer nobody waits for any more.
pub(super) fn unsettled() -> Error {
    Error::outcome_unknown("the primary went away before its reply to a write; it may have been applied")
}

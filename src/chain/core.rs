//! The [`Core`] that the parts of a database's chain share: the primary, the journal, what is owed, and whether calls go to the
//! primary.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::config::{Conflicts, DatabaseChainConfig, MinDurability, OutageReads};
use crate::contract::{ConflictPolicy, Context, DatabaseBackend, Durability, Identity};
use crate::error::{Behind, Error, Result};
use crate::key::Key;
use crate::stamp::{HybridClock, Stamp};
use crate::time::Clock;

use super::clock_reserve::ClockReserve;
use super::elsewhere::OwedElsewhere;
use super::gate::{Answer, Attempt, Call, Gate, Patience, Probed};
use super::in_flight::InFlight;
use super::journal::Journal;
use super::meters;
use super::owed::Owed;
use super::rounds::Rounds;
use super::status::{Board, ChainState, ChainStatus};
use super::watch as watching;

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
    pub(super) clock_reserve: ClockReserve,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) rounds: Rounds,
    owed: RwLock<Owed>,
    /// How many operations are owed: while it is zero, nobody looks further.
    owing: AtomicUsize,
    pub(super) gate: Gate,
    /// Wakes the task that replays.
    pub(super) debts: Notify,
    /// Whether the journal may hold what nobody knows to be owed: a task ended with its runtime while it was being written.
    pub(super) has_unknown: AtomicBool,
    /// Which database the primary was when it was last seen.
    pub(super) known: Mutex<Option<Identity>>,
    /// Tells the task that takes over journals that it is known which database answers.
    pub(super) recognised: Notify,
    /// What is owed to a database at another address, as long as nobody has said that it is owed to this one.
    pub(super) elsewhere: Mutex<Option<OwedElsewhere>>,
    /// Which database answered while that is so, and none was known before.
    pub(super) answered: Mutex<Option<Identity>>,
    board: Board,
    closed: AtomicBool,
}

/// How a chain was told to behave.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) min_durability: Durability,
    pub(super) reads: OutageReads,
    pub(super) policy: ConflictPolicy,
    pub(super) patience: Patience,
    /// Names the configured primary, without secrets.
    pub(super) fingerprint: Option<String>,
}

impl Settings {
    /// What a configuration means where calls may take as long as `timeout`.
    pub(super) fn new(config: &DatabaseChainConfig, timeout: Duration, fingerprint: Option<String>) -> Self {
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
            patience: Patience::new(&config.breaker, timeout),
            fingerprint,
        }
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
        let gate = Gate::new(config.breaker, settings.patience);
        let owing = AtomicUsize::new(owed.len());
        let core = Self {
            primary,
            journal,
            settings,
            stamps,
            clock_reserve: ClockReserve::default(),
            in_flight: Arc::default(),
            rounds: Rounds::default(),
            owed: RwLock::new(owed),
            owing,
            gate,
            debts: Notify::new(),
            has_unknown: AtomicBool::new(false),
            known: Mutex::new(known),
            recognised: Notify::new(),
            elsewhere: Mutex::default(),
            answered: Mutex::default(),
            board: Board::new("database", clock.now()),
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
        self.gate.is_open()
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

    /// Calls the primary, if the breaker lets it, and notes what its answer says of the primary.
    pub(super) async fn attempt<T: Answer>(&self, asked: Call, call: impl Future<Output = T>) -> Attempt<T> {
        if asked == Call::Write {
            self.cover_stamps().await;
        }
        self.gate.attempt(asked, call, |error| self.announce(Some(error))).await
    }

    /// Sees to it that whoever starts after this process, however that ends, gives newer stamps than those given by now: before
    /// anything that carries one is acknowledged. Only a disk that does not take the note in time is not waited for.
    pub(super) async fn cover_stamps(&self) {
        self.clock_reserve.note_use();
        if !self.clock_reserve.covers(self.stamps.newest()) {
            watching::extend_reserve(self).await;
        }
    }

    /// What a refusal says of a write that is behind. The next stamp is newer than what stands in its way, whosever clock gave that.
    pub(super) fn learn_behind(&self, error: &Error) -> Option<Behind> {
        let behind = error.as_behind()?;
        if let Some(standing) = behind.standing() {
            self.stamps.observe(standing);
        }
        Some(behind)
    }

    /// Notes what came of a probe.
    pub(super) fn probed(&self, outcome: Probed) {
        match outcome {
            Probed::Closed => {
                self.debts.notify_one();
                self.announce(None);
            }
            Probed::Open(error) => self.announce(Some(&error)),
            Probed::Unchanged => {}
        }
    }

    /// Whether a delete that is owed tells that there is nothing: one of this process does. What was written since one that was taken
    /// over might be seen, unless the primary is away.
    pub(super) fn trusts_delete(&self, deleted: Stamp) -> bool {
        self.is_open() || deleted.writer() == self.stamps.writer()
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
        let mut status = self.board.last();
        self.fill(&mut status);
        status
    }

    fn fill(&self, status: &mut ChainStatus) {
        let owed = self.owed();
        status.pending = owed.pending();
        status.parked = owed.parked();
        status.oldest = owed.oldest().map(Stamp::timestamp);
        drop(owed);
        status.journal_full = self.is_full();
        status.journal_bytes = self.journal.as_ref().map_or(0, |journal| journal.bytes());
    }

    /// Shows how the chain is to whoever collects metrics.
    pub(super) fn show(&self) {
        self.board.show(&self.current_status(), self.clock.now());
    }

    fn is_full(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_full())
    }

    /// Tells those who watch if the state is another one now, and logs it.
    pub(super) fn announce(&self, reason: Option<&Error>) {
        let state = || ChainState::of(self.is_open(), self.owed().pending());
        let newly_full = |status: &ChainStatus| !status.journal_full && self.is_full();
        self.board.tell(state, reason, self.clock.now(), newly_full, |status| self.fill(status));
    }

    /// Tells what stands in the way of the replay, if anything does.
    pub(super) fn hinder_replay(&self, reason: Option<&Error>) {
        self.board.hinder(reason);
    }

    /// No later than when what is journaled now could not know of others' writes: the outage began then, or with the oldest of them,
    /// or it begins now. Stamps may run ahead of all that.
    pub(super) fn outage_began(&self, oldest: Stamp) -> Stamp {
        let (status, now) = (self.board.last(), self.clock.now());
        let began = if status.state == ChainState::Degraded { status.since.min(now) } else { now };
        oldest.min(Stamp::earliest(began))
    }

    /// Says why something that is owed to a key stands in the way of a call.
    pub(super) async fn still_owed(&self, key: &Key, cx: &Context) -> Error {
        let aside = self.owed().put_aside_of(key);
        let reason = match (aside, &self.journal) {
            (Some(seq), Some(journal)) => {
                cx.limit(journal.export(seq.saturating_sub(1), 1, 0)).await.and_then(Result::ok)
            }
            _ => None,
        };
        let found = reason.and_then(|mut exported| exported.pop()).filter(|exported| Some(exported.seq) == aside);
        match found.and_then(|exported| Some((exported.seq, exported.parked?))) {
            Some((seq, reason)) => Error::unavailable(format!(
                "operation {seq} of the journal, of this key, was put aside, and what came after it waits: {reason}; retry or drop \
                 it"
            )),
            None => still_owed(),
        }
    }

    /// Something was journaled: it is to be replayed, and the state may be another one.
    pub(super) fn journaled(&self) {
        if !self.is_open() {
            self.debts.notify_one();
            if self.board.state() == ChainState::Normal {
                self.announce(None);
            }
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<ChainStatus> {
        self.board.watch()
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn set_left_journals(&self, left: Vec<String>) {
        if self.board.last().left_journals != left {
            self.board.change(|status| status.left_journals = left);
        }
    }

    pub(super) fn note_replayed(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        meters::count_replayed(count);
        self.board.note(|status| status.replayed = status.replayed.saturating_add(count));
    }

    pub(super) fn note_conflicts(&self, count: u64) {
        if count > 0 {
            meters::count_conflicts(count);
            self.board.change(|status| status.conflicts = status.conflicts.saturating_add(count));
            tracing::warn!(
                count,
                "writes that were acknowledged here lost against newer ones; they are kept as conflicts"
            );
        }
    }
}

/// What a call is told whose key is owed something that only a replay can bring to the primary.
pub(super) fn still_owed() -> Error {
    Error::unavailable(
        "the primary is still owed something that this depends on; it will be answered once that is replayed",
    )
}

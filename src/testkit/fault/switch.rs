//! Which calls fail, and how: [`Faults`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Outage;

/// How a call fails. What its error tells of the store itself is [`Fault::outage`], or what [`Faults::set_outage`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call ends as `Unavailable`, and nothing was applied: the server refuses connections.
    FailBefore,
    /// A write is applied and ends as `OutcomeUnknown`: its reply was lost. A read ends as `Unavailable`.
    FailAfter,
    /// Nothing is applied, and the call ends with its deadline, a write as `OutcomeUnknown`: the server is frozen.
    Hang,
    /// A write is applied, and ends with its deadline as `OutcomeUnknown`: the reply never comes.
    HangAfter,
    /// A write is not applied, and ends with its deadline as `OutcomeUnknown`; it lands when
    /// [`FaultBackend::deliver`](super::FaultBackend::deliver) says so, whether anybody waits for it or not: a statement that was
    /// held up on its way. A read hangs.
    Late,
    /// The call is applied this much later, or ends with its deadline as one that was not sent.
    Slow(Duration),
    /// A batch is applied in part, from its beginning, and every item ends as `OutcomeUnknown`. Single calls and transactions
    /// are not torn.
    TornBatch,
    /// Writes, and the ping, end as `Unavailable`; reads are answered: a replica after a failover.
    ReadOnly,
}

impl Fault {
    /// What the error of this fault tells of the store itself: a refusal that it is down, an answer that never came that it is silent.
    #[must_use]
    pub const fn outage(self) -> Outage {
        match self {
            Self::FailBefore | Self::ReadOnly => Outage::Down,
            Self::FailAfter | Self::Hang | Self::HangAfter | Self::Late | Self::Slow(_) | Self::TornBatch => {
                Outage::Silent
            }
        }
    }
}

/// How many calls were let through, and how many failed, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounts {
    /// Calls that came in; a batch is one.
    pub calls: u64,
    /// Calls that came in and write, the ping too.
    pub writes: u64,
    /// Calls that a fault was done to.
    pub faults: u64,
    /// How often the store was wiped.
    pub wipes: u64,
}

/// The handle that switches a [`FaultBackend`](super::FaultBackend). Clones switch the same store.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<State>>);

struct State {
    standing: Option<(Fault, u32)>,
    next: Option<Next>,
    /// What every error tells of the store, in the place of what its fault would.
    outage: Option<Option<Outage>>,
    wipe: bool,
    random: u64,
    counts: FaultCounts,
}

/// A fault of calls to come.
#[derive(Clone, Copy, Debug)]
struct Next {
    fault: Fault,
    /// How many calls come through before.
    passed: u64,
    calls: u64,
}

/// What is to be done to one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) fault: Option<Fault>,
    /// What the fault's error tells of the store.
    pub(super) outage: Option<Outage>,
    pub(super) wipe: bool,
    /// A random number, for faults that need one.
    pub(super) random: u64,
}

impl Faults {
    /// Makes a handle that lets every call through. The same seed makes the same random choices.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let counts = FaultCounts::default();
        Self(Arc::new(Mutex::new(State {
            standing: None,
            next: None,
            outage: None,
            wipe: false,
            random: seed,
            counts,
        })))
    }

    /// Does a fault to every call until it is healed.
    pub fn set(&self, fault: Fault) {
        self.set_for_some(fault, 100);
    }

    /// Does a fault to this percentage of calls, chosen at random, until it is healed.
    pub fn set_for_some(&self, fault: Fault, percent: u32) {
        self.state().standing = Some((fault, percent));
    }

    /// Does a fault to the next calls, so many of them; what was set stands again afterwards.
    pub fn set_for_next(&self, fault: Fault, calls: u64) {
        self.set_after(0, fault, calls);
    }

    /// Lets so many calls through, as far as what was set does, and does a fault to so many after them.
    pub fn set_after(&self, passed: u64, fault: Fault, calls: u64) {
        self.state().next = Some(Next { fault, passed, calls });
    }

    /// Says what the errors of all faults tell of the store from now on, until it is healed; `None` makes them answers like any
    /// other, as of an overload.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.state().outage = Some(outage);
    }

    /// Lets every call through again.
    pub fn heal(&self) {
        let mut state = self.state();
        state.standing = None;
        state.next = None;
        state.outage = None;
    }

    /// Empties the store before the next call and gives a database another identity, as if its server had lost its disk.
    pub fn wipe(&self) {
        self.state().wipe = true;
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.state().counts
    }

    /// Decides what is done to a call that comes in.
    pub(super) fn judge(&self, writes: bool) -> Verdict {
        let mut state = self.state();
        state.counts.calls += 1;
        state.counts.writes += u64::from(writes);
        let random = state.draw();
        let next = state.next.as_mut().and_then(Next::take);
        let fault = match (next, state.standing) {
            (Some(fault), _) => Some(fault),
            (_, Some((fault, percent))) if random % 100 < u64::from(percent) => Some(fault),
            _ => None,
        };
        let fault = fault.filter(|fault| writes || *fault != Fault::ReadOnly);
        state.counts.faults += u64::from(fault.is_some());
        let wipe = std::mem::take(&mut state.wipe);
        state.counts.wipes += u64::from(wipe);
        let random = state.draw();
        let outage = state.outage.unwrap_or_else(|| fault.map(Fault::outage));
        Verdict { fault, outage, wipe, random }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Next {
    /// What is done to a call that comes in.
    fn take(&mut self) -> Option<Fault> {
        if self.passed > 0 {
            self.passed -= 1;
            return None;
        }
        self.calls = self.calls.checked_sub(1)?;
        Some(self.fault)
    }
}

impl State {
    /// The next number of a SplitMix64 generator (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Faults")
            .field("standing", &state.standing)
            .field("next", &state.next)
            .field("counts", &state.counts)
            .finish_non_exhaustive()
    }
}

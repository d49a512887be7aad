//! Situations that must really come about, or a promise that holds says little.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use stateright::Property;

use crate::Protocol;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// A situation worth the trouble.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Event {
            $($(#[$doc])* $name,)*
        }

        /// Each of them as a property that sometimes holds.
        pub(crate) fn all() -> Vec<Property<Protocol>> {
            vec![$(Property::sometimes($text, |protocol: &Protocol, _| protocol.reached.is_news(Event::$name)),)*]
        }

        /// The names of the properties.
        pub const NAMES: &[&str] = &[$($text,)*];
    };
}

events! {
    /// A statement that nobody waits for any more takes effect.
    LateWriteLands => "a late write lands",
    /// A statement that nobody waits for any more meets something newer.
    LateWriteIsOutvoted => "a late write is outvoted by a newer one",
    /// A delete finds the value older than itself and the list newer, or the other way round.
    HalfADelete => "half a delete is executed",
    /// A write is behind, and stamped anew.
    StampedAnew => "a write that is behind is stamped anew",
    /// A repeated write is behind, and goes to the journal.
    RepeatIsBehind => "a repeated write is behind",
    /// A write that may have been applied goes to the journal.
    DoubtIsJournaled => "a write in doubt is journaled",
    /// A write that was not sent goes to the journal, because the breaker is open.
    OutageIsJournaled => "a write during the outage is journaled",
    /// A write that was not sent goes to the journal, because its key is owed something.
    OwedIsJournaled => "a write of an owed key is journaled",
    /// A conditional write may have been applied.
    CreateInDoubt => "the outcome of a create is unknown",
    /// A conditional write is refused, because its key is owed something.
    CreateOfOwed => "a create of an owed key is refused",
    /// A conditional write finds a value.
    CreateLoses => "a create finds a value",
    /// The journal is full, and the write was sent.
    FullAfterSent => "the journal is full after a write was sent",
    /// A replayed operation is there already.
    ReplayedAgain => "a replay finds its operation applied",
    /// A replayed operation meets a newer one of its own process.
    ReplayPassedOver => "a replay finds a newer operation of its own process",
    /// A replayed operation loses against somebody else's newer one.
    ReplayLoses => "a replayed operation loses",
    /// A replayed operation overwrites what somebody else wrote meanwhile.
    ReplayOverwrites => "a replayed operation overwrites what was written meanwhile",
    /// A replayed value has expired.
    ReplayOfExpired => "a value expires before it is replayed",
    /// A replayed operation is older than what was swept.
    ReplayTooOld => "an operation is too old to be replayed",
    /// A replay is no longer waited for.
    ReplayBrokenOff => "a replay is broken off",
    /// A replay that nobody waits for any more is executed after all that it brings was settled.
    LateReplay => "a late replay is executed after it was done again",
    /// A breaker opens again while something is still owed.
    Flap => "the breaker opens again before all is replayed",
    /// A process crashes while it owes something.
    CrashWhileOwing => "a process crashes while it owes something",
    /// A process crashes while a call is on its way.
    CrashInACall => "a process crashes while a call is on its way",
    /// A process that crashed settles what it owed.
    SettledAfterACrash => "what was owed before a crash is settled after it",
    /// Another database answers.
    ForeignAnswers => "another database answers",
    /// A caller drops its future while its write is on its way.
    CallerGone => "a caller goes away in the middle of a write",
    /// A write waits for another one of its key.
    WaitedItsTurn => "a write waits for an earlier one of its key",
}

/// The events of one step.
#[derive(Debug, Default)]
pub(crate) struct Events(Cell<u64>);

impl Events {
    pub(crate) fn note(&self, event: Event) {
        self.0.set(self.0.get() | 1 << event as u32);
    }
}

/// The events that were reached by any step.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    seen: AtomicU64,
    told: AtomicU64,
}

impl Reached {
    pub(crate) fn add(&self, events: &Events) {
        if events.0.get() & !self.seen.load(Ordering::Relaxed) != 0 {
            self.seen.fetch_or(events.0.get(), Ordering::Relaxed);
        }
    }

    /// Whether an event was reached and not yet told of: the checker would note it again for every state.
    pub(crate) fn is_news(&self, event: Event) -> bool {
        let bit = 1 << event as u32;
        let news = self.seen.load(Ordering::Relaxed) & !self.told.load(Ordering::Relaxed);
        news & bit != 0 && self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

//! Scenes: how much may happen in a run, so that all of it can be explored.

use crate::action::Action;
use crate::operation::Kind;
use crate::rules::Rules;
use crate::system::System;

/// What processes may call, and what may befall them. Within it everything may happen at any time, in any order.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Names it.
    pub name: &'static str,
    /// What either process may call.
    pub kinds: [&'static [Kind]; 2],
    /// How often either process may call.
    pub calls: [u8; 2],
    /// How often both together may.
    pub calls_in_all: u8,
    /// How often faults may happen.
    pub faults: Faults,
    /// Whether what stands in the primary wins over what is replayed.
    pub primary_wins: bool,
    /// Whether a statement that is late may silently beat what was written meanwhile by a clock that is behind. It may: neither
    /// knows of the other, and the statement's stamp is the newer one.
    pub late_may_win: bool,
    /// Which rules hold.
    pub rules: Rules,
}

/// How often each fault may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// How many may happen together.
    pub in_all: u8,
    /// A call, or a replay, is no longer waited for, though its statement may still be executed; or it is sent again; or its
    /// caller goes away.
    pub doubts: u8,
    /// A breaker opens.
    pub outages: u8,
    /// A process crashes, and starts again.
    pub crashes: u8,
    /// Another database answers for a while.
    pub detours: u8,
    /// Tombstones are swept.
    pub sweeps: u8,
    /// A value ends.
    pub endings: u8,
    /// A journal is full from now on.
    pub full: u8,
    /// Much time passes, far more than clocks differ.
    pub pauses: u8,
}

impl Scene {
    /// Whether a process may call once more.
    #[must_use]
    pub fn may_call(&self, system: &System, process: u8) -> bool {
        let called = system.of(process).count();
        called < usize::from(self.calls[usize::from(process)])
            && system.operations.len() < usize::from(self.calls_in_all)
    }
}

impl Faults {
    /// Whether an action may happen as far as faults are concerned.
    #[must_use]
    pub fn allow(mut self, action: &Action) -> bool {
        let in_all = self.in_all;
        self.of(action).is_none_or(|left| *left > 0 && in_all > 0)
    }

    /// Counts an action, if it is a fault.
    pub(crate) fn take(&mut self, action: &Action) {
        if let Some(left) = self.of(action) {
            *left -= 1;
            self.in_all -= 1;
            if self.in_all == 0 {
                *self = Self::default();
            }
        }
    }

    const fn of(&mut self, action: &Action) -> Option<&mut u8> {
        Some(match action {
            Action::GiveUp(_) | Action::SendAgain(_) | Action::Drop(_) | Action::GiveUpReplay(_) => &mut self.doubts,
            Action::Open(_) => &mut self.outages,
            Action::Crash(_) => &mut self.crashes,
            Action::Detour => &mut self.detours,
            Action::Sweep => &mut self.sweeps,
            Action::End(_) => &mut self.endings,
            Action::Fill(_) => &mut self.full,
            Action::Pause => &mut self.pauses,
            _ => return None,
        })
    }
}

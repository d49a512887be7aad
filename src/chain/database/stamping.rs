//! Stamps: a write gets its own when its turn has come, and another one where something newer stands.
//!
//! Nobody below the chain stamps anew what it sends, because it could go on with that when the chain has given the write up long
//! ago, and bring it over newer ones.

use crate::chain::core::Core;
use crate::contract::{Append, Attempt, Step, Write};
use crate::error::{Behind, Error};
use crate::stamp::Stamp;

/// How often a write is sent at most. Each time somebody else's clock has to be ahead anew.
pub(super) const MOST_ATTEMPTS: usize = 64;

/// What carries a stamp.
pub(super) trait Stamped: Clone {
    /// The stamp, and what becomes of it where something newer stands; `None` where there is none.
    fn stamped(&mut self) -> Option<(&mut Stamp, &mut Attempt)>;

    /// Gives it a stamp that is newer than all that was seen; `false` if it is not ours to give one.
    fn stamp_anew(&mut self, core: &Core) -> bool {
        match self.stamped() {
            Some((stamp, Attempt::First)) => {
                *stamp = core.stamps.issue();
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// A copy to be sent, which keeps its stamp.
    fn fixed(&self) -> Self {
        let mut copy = self.clone();
        if let Some((_, attempt)) = copy.stamped() {
            *attempt = (*attempt).max(Attempt::Fixed);
        }
        copy
    }
}

impl Stamped for Write {
    fn stamped(&mut self) -> Option<(&mut Stamp, &mut Attempt)> {
        Some((&mut self.stamp, &mut self.attempt))
    }
}

impl Stamped for Append {
    fn stamped(&mut self) -> Option<(&mut Stamp, &mut Attempt)> {
        Some((&mut self.stamp, &mut self.attempt))
    }
}

impl Stamped for Step {
    fn stamped(&mut self) -> Option<(&mut Stamp, &mut Attempt)> {
        match self {
            Self::Write(write) => write.stamped(),
            Self::Append(append) => append.stamped(),
            _ => None,
        }
    }
}

/// A stamp by itself, as a clear has one.
impl Stamped for (Stamp, Attempt) {
    fn stamped(&mut self) -> Option<(&mut Stamp, &mut Attempt)> {
        Some((&mut self.0, &mut self.1))
    }
}

/// Sees to it that the stamps are in order, and newer than those of all that was settled before: what was stamped first need not
/// have its turn first. A caller that stamps by itself knows better.
pub(super) fn stamp_in_turn<S: Stamped>(core: &Core, items: &mut [S]) {
    let stamps = items.iter_mut().filter_map(Stamped::stamped).map(|(stamp, _)| *stamp);
    if core.stamps.are_newest(stamps) {
        return;
    }
    let mut ours: Vec<&mut Stamp> = items.iter_mut().filter_map(ours_to_stamp).collect();
    if let Some(newest) = ours.iter().max() {
        core.stamps.observe(**newest);
    }
    let anew = core.stamps.issue_many(ours.len());
    ours.iter_mut().zip(anew).for_each(|(stamp, anew)| **stamp = anew);
}

fn ours_to_stamp<S: Stamped>(item: &mut S) -> Option<&mut Stamp> {
    match item.stamped() {
        Some((stamp, Attempt::First)) => Some(stamp),
        _ => None,
    }
}

/// What a write is told that was behind each time it was sent.
pub(super) fn outrun() -> Error {
    Error::unavailable(
        "others wrote there again and again with a clock that is ahead, each time before this write came through",
    )
}

/// The error of a write of which a part was applied by an earlier attempt.
pub(super) fn broken_off(error: Error, part: Behind) -> Error {
    if !part.begun || !error.is_transient() {
        return error;
    }
    Error::outcome_unknown("a part of it was applied, and the rest was not").with_source(error)
}

//! What the writers of a journal knew of each other: [`Succession`]. And how a list keeps its order: [`AppendOrder`].

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::error::Result;
use crate::key::Key;
use crate::stamp::Stamp;

use super::replay::ReplayOutcome;
use super::step::Step;

/// Which writers took over what others owed.
///
/// A process that finds the journal of a dead one knows from then on all that the dead one wrote: its reads show it. So what it
/// writes then replaces that on purpose, which is no conflict. Before, neither knew of the other, and one of their writes to the
/// same key is lost. It knows too what the dead one had taken over itself, and so on.
///
/// # Examples
///
/// ```
/// use agent_storage::contract::Succession;
/// use agent_storage::{Clock, HybridClock};
///
/// let (dead, heir) = (HybridClock::new(Clock::system()), HybridClock::new(Clock::system()));
/// let (left, before) = (dead.issue(), heir.issue());
/// let mut succession = Succession::default();
/// succession.add(heir.writer(), dead.writer(), heir.issue_after(left));
/// let next = HybridClock::new(Clock::system());
/// succession.add(next.writer(), heir.writer(), next.issue_after(left));
/// assert!(succession.knew(heir.issue(), left) && succession.knew(next.issue(), left));
/// assert!(!succession.knew(before, left) && !succession.knew(left, before));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Succession {
    /// By heir and predecessor, from which stamp of the heir on it holds.
    from: BTreeMap<(u64, u64), Stamp>,
}

impl Succession {
    /// Nobody took over anything.
    pub const NONE: Self = Self { from: BTreeMap::new() };

    /// Adds that a writer, from the first of its stamps after `from` on, knew all that another one had written. What was known
    /// already is known from the earlier stamp on.
    pub fn add(&mut self, heir: u64, predecessor: u64, from: Stamp) {
        if heir != predecessor {
            let known = self.from.entry((heir, predecessor)).or_insert(from);
            *known = from.min(*known);
        }
    }

    /// Whether one who wrote something knew what stands under an earlier stamp: it wrote that itself, or took it over, also by way of
    /// others.
    #[must_use]
    pub fn knew(&self, stamp: Stamp, earlier: Stamp) -> bool {
        let (writer, wanted) = (stamp.writer(), earlier.writer());
        if writer == wanted || self.from.is_empty() {
            return writer == wanted;
        }
        let by_then = self.links_of(writer).filter(|(_, from)| *from < stamp);
        let mut next: Vec<u64> = by_then.map(|(predecessor, _)| predecessor).collect();
        let mut known: BTreeSet<u64> = next.iter().copied().collect();
        while let Some(heir) = next.pop() {
            if heir == wanted {
                return true;
            }
            // It was dead when it was succeeded, so all that it ever took over is known.
            next.extend(self.links_of(heir).map(|(predecessor, _)| predecessor).filter(|found| known.insert(*found)));
        }
        false
    }

    fn links_of(&self, heir: u64) -> impl Iterator<Item = (u64, Stamp)> {
        let links = self.from.range((heir, u64::MIN)..=(heir, u64::MAX));
        links.map(|((_, predecessor), from)| (*predecessor, *from))
    }

    /// Each heir with its predecessor, and from which of the heir's stamps on.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, Stamp)> {
        self.from.iter().map(|((heir, predecessor), from)| (*heir, *predecessor, *from))
    }
}

/// Which lists take no more appends in a replay, because an earlier one was not applied: the later ones would overtake it.
///
/// # Examples
///
/// ```
/// use agent_storage::contract::{Append, AppendOrder, ReplayOutcome, Step};
/// use agent_storage::{Clock, Error, HybridClock, Key, Value};
///
/// let clock = HybridClock::new(Clock::system());
/// let append = || Step::Append(Append::new(Key::parse("list").unwrap(), Value::from_integer(1), clock.issue()));
/// let mut order = AppendOrder::default();
/// assert!(!order.withholds(&append()));
/// order.note(&append(), &Ok(ReplayOutcome::Applied));
/// assert!(!order.withholds(&append()));
/// order.note(&append(), &Err(Error::too_large("the item")));
/// assert!(order.withholds(&append()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct AppendOrder {
    stopped: HashSet<Key>,
}

impl AppendOrder {
    /// Whether a step must be answered [`ReplayOutcome::Withheld`] instead of being applied.
    #[must_use]
    pub fn withholds(&self, step: &Step) -> bool {
        matches!(step, Step::Append(append) if self.stopped.contains(&append.key))
    }

    /// Notes what became of a step.
    pub fn note(&mut self, step: &Step, answer: &Result<ReplayOutcome>) {
        if let Step::Append(append) = step
            && matches!(answer, Err(_) | Ok(ReplayOutcome::TooOld { .. } | ReplayOutcome::Withheld))
        {
            self.stopped.insert(append.key.clone());
        }
    }
}

//! Batches of writes and of appends: to the primary, to the journal, or a part to each.
//!
//! | | closed, key not owed | closed, key owed | breaker open |
//! |---|---|---|---|
//! | put, delete, append | the primary; in doubt: the journal | the journal | the journal |
//! | conditional writes | the primary; in doubt: looked up, else unknown | unavailable | unavailable |
//!
//! What is behind at the primary is stamped anew and sent again while its keys are held; what is in doubt keeps its stamp.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::chain::core::{Core, still_owed};
use crate::chain::gate::{Attempt, Call, away, is_of_the_primary, unsettled};
use crate::chain::in_flight::{Entered, Scope};
use crate::chain::owed::Owed;
use crate::contract::Context;
use crate::error::{Behind, Error, ErrorKind, Result};
use crate::key::Key;
use crate::stamp::Stamp;

use super::item::Item;
use super::keep::keep;
use super::stamping::{MOST_ATTEMPTS, Stamped, broken_off, outrun, stamp_in_turn};

/// Sends each item where it belongs: one answer an item, in their order.
pub(super) async fn send<I: Item>(core: &Arc<Core>, items: Vec<I>, cx: &Context) -> Vec<Result<I::Ack>> {
    let count = items.len();
    match enter(core, &items, cx).await {
        Ok(entered) => Batch { core, items, cx, answers: Vec::new(), parts: HashMap::new() }.run(entered).await,
        Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
    }
}

/// Holds the keys, in the order of the calls, and then waits with those that are owed something for their turn beside the replay.
async fn enter<I: Item>(core: &Arc<Core>, items: &[I], cx: &Context) -> Result<Entered> {
    core.admit(cx)?;
    let began = Instant::now();
    let keys = items.iter().map(|item| item.key().clone()).collect();
    let entered = core.in_flight.enter(Scope::Keys(keys), cx).await?;
    if core.owes_anything() && !core.is_open() {
        let owed = items.iter().filter(|item| core.owed().owes(item.key())).count();
        if owed > 0 {
            core.rounds.admit(owed, began, cx).await;
        }
    }
    core.admit(cx)?;
    Ok(entered)
}

struct Batch<'a, I: Item> {
    core: &'a Arc<Core>,
    items: Vec<I>,
    cx: &'a Context,
    answers: Vec<Option<Result<I::Ack>>>,
    /// What attempts did of items that were behind then.
    parts: HashMap<usize, Behind>,
}

/// What came of items that were sent.
#[derive(Debug, Default)]
struct Sent {
    /// Those that are to be journaled instead: which the primary did not take for a reason that lies in it, or whose outcome is
    /// open, and what is of the same key as one of them.
    journaled: Vec<usize>,
    /// Those that the primary refused, because something newer stands there.
    behind: Vec<usize>,
}

/// Where an item goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Primary,
    /// To the journal, because its key is owed something, or because the primary is away.
    Journal,
}

impl<I: Item> Batch<'_, I> {
    async fn run(mut self, entered: Entered) -> Vec<Result<I::Ack>> {
        self.answers.resize_with(self.items.len(), || None);
        stamp_in_turn(self.core, &mut self.items);
        let routes = self.routes();
        let mut journaled: HashSet<usize> = indices(&routes, Route::Journal).collect();
        let sent: Vec<usize> = indices(&routes, Route::Primary).collect();
        let mut found = Vec::new();
        if !sent.is_empty() {
            journaled.extend(self.bring_to_primary(sent).await);
            found = self.look_up().await;
        }
        if !journaled.is_empty() {
            self.journal(journaled, entered).await;
            // An older delete of their keys may be owed now, and tells readers nothing.
            self.core.change_owed(|owed| found.iter().for_each(|(key, stamp)| _ = owed.note_newer(key, *stamp)));
        }
        self.settle_parts();
        let unanswered = || Err(Error::internal("an item of a batch was not answered"));
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    fn routes(&self) -> Vec<Route> {
        if !self.core.owes_anything() {
            return vec![Route::Primary; self.items.len()];
        }
        let owed = self.core.owed();
        let route = |item: &I| if owed.owes(item.key()) { Route::Journal } else { Route::Primary };
        self.items.iter().map(route).collect()
    }

    /// Looks up what became of conditional writes whose reply was lost; answers the stamps of those that stand.
    async fn look_up(&mut self) -> Vec<(Key, Stamp)> {
        let mut found = Vec::new();
        for (item, answer) in self.items.iter().zip(&mut self.answers) {
            if matches!(answer, Some(Err(error)) if error.kind() == ErrorKind::OutcomeUnknown)
                && let Some(ack) = item.look_up(self.core, self.cx).await
            {
                *answer = Some(Ok(ack));
                found.extend(item.clone().stamped().map(|(stamp, _)| (item.key().clone(), *stamp)));
            }
        }
        found
    }

    /// Sends items to the primary until none is behind, and answers which are to be journaled instead.
    async fn bring_to_primary(&mut self, mut sent: Vec<usize>) -> Vec<usize> {
        let cx = self.core.keeping_reserve(self.cx);
        let mut journaled = Vec::new();
        for _ in 0..MOST_ATTEMPTS {
            let outcome = self.send_to_primary(sent, &cx).await;
            journaled.extend(outcome.journaled);
            sent = outcome.behind;
            let items = &mut self.items;
            sent.retain(|index| items.get_mut(*index).is_some_and(|item| item.stamp_anew(self.core)));
            if sent.is_empty() {
                return journaled;
            }
        }
        sent.into_iter().for_each(|index| self.answer(index, Err(outrun())));
        journaled
    }

    /// Sends items to the primary once.
    async fn send_to_primary(&mut self, sent: Vec<usize>, cx: &Context) -> Sent {
        let batch = sent.iter().filter_map(|index| self.items.get(*index).map(Stamped::fixed)).collect();
        let attempt = self.core.attempt(Call::Write, I::send(self.core, batch, cx)).await;
        let mut answers = match attempt {
            Attempt::Answered(answers) => answers.into_iter().map(Some).collect::<Vec<_>>(),
            Attempt::NotSent => sent.iter().map(|_| Some(Err(away()))).collect(),
            Attempt::BrokenOff => sent.iter().map(|_| Some(Err(unsettled()))).collect(),
        };
        let overtaken = self.overtaken(&sent, &answers);
        let mut diverted: HashSet<Key> = HashSet::new();
        let mut outcome = Sent::default();
        for (index, answer) in sent.into_iter().zip(&mut answers) {
            let Some(item) = self.items.get(index) else { continue };
            let error = answer.as_ref().and_then(|answer| answer.as_ref().err());
            if let Some(part) = error.and_then(|error| self.core.learn_behind(error)) {
                let known = self.parts.entry(index).or_insert(Behind::NOT_BEGUN);
                *known = known.and(part);
                outcome.behind.push(index);
            } else if (error.is_some_and(is_of_the_primary) || diverted.contains(item.key()))
                && !overtaken.contains(&index)
                && self.core.can_journal()
                && item.operation(self.core.clock.now()).is_some()
            {
                diverted.insert(item.key().clone());
                outcome.journaled.push(index);
            }
            if let Some(slot) = self.answers.get_mut(index) {
                *slot = answer.take();
            }
        }
        if !diverted.is_empty() {
            let is_diverted = |index: &usize| self.items.get(*index).is_some_and(|item| diverted.contains(item.key()));
            let (diverted, behind): (Vec<usize>, Vec<usize>) = outcome.behind.into_iter().partition(is_diverted);
            outcome.behind = behind;
            outcome.journaled.extend(diverted);
        }
        outcome
    }

    /// The items that the primary did not take, though it took a later one of their list: where they would be brought now is not
    /// their place any more, so they are not kept.
    fn overtaken(&self, sent: &[usize], answers: &[Option<Result<I::Ack>>]) -> HashSet<usize> {
        let mut taken: HashSet<&Key> = HashSet::new();
        let mut overtaken = HashSet::new();
        if !I::KEEPS_PLACE || answers.iter().all(|answer| matches!(answer, Some(Ok(_)))) {
            return overtaken;
        }
        for (index, answer) in sent.iter().zip(answers).rev() {
            let Some(item) = self.items.get(*index) else { continue };
            if matches!(answer, Some(Ok(_))) {
                taken.insert(item.key());
            } else if taken.contains(item.key()) {
                overtaken.insert(*index);
            }
        }
        overtaken
    }

    /// Says of items that were behind what their earlier attempts did.
    fn settle_parts(&mut self) {
        for (index, part) in std::mem::take(&mut self.parts) {
            let Some(slot) = self.answers.get_mut(index) else { continue };
            match slot.take() {
                Some(Ok(mut ack)) => {
                    if part.removed > 0 {
                        I::note_removed(&mut ack);
                    }
                    *slot = Some(Ok(ack));
                }
                Some(Err(error)) => *slot = Some(Err(broken_off(error, part))),
                None => {}
            }
        }
    }

    /// Journals items and answers them. It goes on though the caller goes away: what is in the journal must be known to be owed.
    async fn journal(&mut self, items: HashSet<usize>, entered: Entered) {
        let now = self.core.clock.now();
        let mut indices: Vec<usize> = items.into_iter().collect();
        indices.sort_unstable();
        let mut operations = Vec::with_capacity(indices.len());
        let mut kept = Vec::with_capacity(indices.len());
        for index in indices {
            match self.items.get(index).map(|item| (item, item.operation(now))) {
                Some((item, Some(operation))) => {
                    kept.push((index, item.clone()));
                    operations.push(operation);
                }
                Some((_, None)) => self.answer(index, Err(if self.core.is_open() { away() } else { still_owed() })),
                None => {}
            }
        }
        if !self.core.can_journal() {
            return kept.into_iter().for_each(|(index, _)| self.answer(index, Err(away())));
        }
        let items: Vec<I> = kept.iter().map(|(_, item)| item.clone()).collect();
        let core = Arc::clone(self.core);
        let acknowledge = move |index: usize, owed: &Owed, durability| {
            items.get(index).map(|item| item.journaled(&core, owed, now, durability))
        };
        match keep(self.core, operations, self.cx, entered, acknowledge).await {
            Ok(acks) => kept.into_iter().zip(acks).for_each(|((index, _), ack)| {
                self.answer(index, ack.ok_or_else(|| Error::internal("an item of a batch was not acknowledged")));
            }),
            Err(error) => kept.into_iter().for_each(|(index, _)| self.answer(index, Err(error.clone()))),
        }
    }

    /// Answers an item, unless the primary took it: what was journaled after it for the sake of the order changes nothing in that.
    /// Where the outcome at the primary is open, a journal that failed leaves it open.
    fn answer(&mut self, index: usize, answer: Result<I::Ack>) {
        let Some(slot) = self.answers.get_mut(index) else { return };
        match slot {
            Some(Ok(_)) => {}
            Some(Err(unknown)) if unknown.kind() == ErrorKind::OutcomeUnknown && answer.is_err() => {}
            _ => *slot = Some(answer),
        }
    }
}

fn indices(routes: &[Route], wanted: Route) -> impl Iterator<Item = usize> {
    routes.iter().enumerate().filter(move |(_, route)| **route == wanted).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryDatabase;
    use crate::chain::journal::{Effect, Header};
    use crate::chain::{ChainOptions, DatabaseChain};
    use crate::config::{DatabaseChainConfig, DatabaseFallback, MinDurability};
    use crate::contract::{GetOptions, Store, Write};
    use crate::value::Value;
    use std::time::Duration;

    #[tokio::test]
    async fn who_waits_for_the_replay_keeps_the_order_of_the_key() {
        let options = ChainOptions::new(Duration::from_secs(5));
        let primary = Arc::new(MemoryDatabase::new(&Default::default()));
        let config = DatabaseChainConfig { min_durability: MinDurability::Volatile, ..Default::default() };
        let chain = DatabaseChain::open(primary, DatabaseFallback::Memory, &config, options);
        let chain = Arc::new(chain.await.unwrap());
        chain.stop();
        let (core, key, cx) =
            (Arc::clone(&chain.core), Key::parse("k").unwrap(), Context::with_timeout(Duration::from_secs(5)));
        core.change_owed(|owed| owed.add(Header::new(7, core.stamps.issue(), Effect::Delete(key.clone()), None)));
        // A round of the replay without room for others.
        core.rounds.begin(0, 0);
        let put = |number: i64| Write::put(key.clone(), Value::from_integer(number), core.stamps.issue());
        let first = tokio::spawn({
            let (chain, write) = (Arc::clone(&chain), put(1));
            async move { chain.write(write, &cx).await }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        // The next one has room, and comes before the one that waited has heard of it.
        core.rounds.begin(1000, 1000);
        chain.write(put(2), &cx).await.unwrap();
        first.await.unwrap().unwrap();
        let found = chain.get(&key, &GetOptions::default(), &cx).await.unwrap();
        assert_eq!(found.into_value().unwrap(), Value::from_integer(2));
    }
}

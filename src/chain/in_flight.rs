//! [`InFlight`]: a key has at most one write on its way to the primary, and those that wait have their turns in order.
//!
//! So the order of a key's writes is the order in which they are settled, and whoever comes next sees whether the last one is
//! still owed. Who wants several keys, or a prefix, stands in all their queues at once: newcomers do not pass, however many they are, and
//! since everybody stands in the same order everywhere, nobody waits in a circle.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use tokio::sync::oneshot;

use crate::contract::Context;
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};

/// The place in the order in which was asked.
type Ticket = u64;

/// The keys, and prefixes, that are being written to.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<Queues>);

#[derive(Debug, Default)]
struct Queues {
    next: Ticket,
    keys: HashMap<Key, Queue, RandomState>,
    /// Those who hold a prefix, or wait for one.
    prefixes: Vec<(Ticket, KeyPrefix)>,
    waiting: HashMap<Ticket, Waiter, RandomState>,
}

/// Who stands at a key.
#[derive(Debug)]
struct Queue {
    first: Ticket,
    behind: VecDeque<Ticket>,
}

#[derive(Debug)]
struct Waiter {
    scope: Scope,
    /// Of its keys how many it is not the first of, and how many prefixes overlap that were asked for earlier; of a prefix, how many
    /// were earlier and overlap.
    blockers: usize,
    turn: oneshot::Sender<()>,
}

/// What a write is about.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// These keys. One may be named twice.
    Keys(Vec<Key>),
    /// All keys with a prefix.
    Prefix(KeyPrefix),
}

impl Scope {
    fn overlaps(&self, prefix: &KeyPrefix) -> bool {
        match self {
            Self::Keys(keys) => keys.iter().any(|key| prefix.matches(key)),
            Self::Prefix(other) => overlap(prefix, other),
        }
    }
}

/// Whether a key can have both prefixes.
pub(super) fn overlap(one: &KeyPrefix, other: &KeyPrefix) -> bool {
    one.as_str().starts_with(other.as_str()) || other.as_str().starts_with(one.as_str())
}

impl Queues {
    /// Stands in all queues of a scope; says what to wait for, if that is not the front of them all.
    fn join(&mut self, scope: &Scope) -> (Ticket, Option<oneshot::Receiver<()>>) {
        let ticket = self.next;
        self.next += 1;
        let mut blockers = self.prefixes.iter().filter(|(_, prefix)| scope.overlaps(prefix)).count();
        match scope {
            Scope::Keys(keys) => blockers += keys.iter().filter(|key| !self.join_key(key, ticket)).count(),
            Scope::Prefix(prefix) => {
                let under = self.keys.iter().filter(|(key, _)| prefix.matches(key)).map(|(_, queue)| queue);
                let earlier: HashSet<&Ticket> =
                    under.flat_map(|queue| queue.behind.iter().chain([&queue.first])).collect();
                blockers += earlier.len();
                self.prefixes.push((ticket, prefix.clone()));
            }
        }
        if blockers == 0 {
            return (ticket, None);
        }
        let (turn, come) = oneshot::channel();
        self.waiting.insert(ticket, Waiter { scope: scope.clone(), blockers, turn });
        (ticket, Some(come))
    }

    /// Stands in the queue of a key; says whether it is the first there. A key that is named twice is stood at once.
    fn join_key(&mut self, key: &Key, ticket: Ticket) -> bool {
        match self.keys.entry(key.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Queue { first: ticket, behind: VecDeque::new() });
                true
            }
            Entry::Occupied(mut occupied) => {
                let queue = occupied.get_mut();
                let is_there = queue.first == ticket || queue.behind.back() == Some(&ticket);
                if !is_there {
                    queue.behind.push_back(ticket);
                }
                is_there
            }
        }
    }

    /// Leaves all queues of a scope, from wherever it stands; gives those whose turn has come.
    fn leave(&mut self, ticket: Ticket, scope: &Scope) -> Vec<oneshot::Sender<()>> {
        let mut unblocked = Vec::new();
        self.waiting.remove(&ticket);
        match scope {
            Scope::Keys(keys) => {
                unblocked.extend(keys.iter().filter_map(|key| self.leave_key(key, ticket)));
                let later = self.prefixes.iter().filter(|(other, prefix)| *other > ticket && scope.overlaps(prefix));
                unblocked.extend(later.map(|(other, _)| *other));
            }
            Scope::Prefix(prefix) => {
                self.prefixes.retain(|(other, _)| *other != ticket);
                let later = |(other, waiter): &(&Ticket, &Waiter)| **other > ticket && waiter.scope.overlaps(prefix);
                unblocked.extend(self.waiting.iter().filter(later).map(|(other, _)| *other));
            }
        }
        unblocked.into_iter().filter_map(|ticket| self.unblock(ticket)).collect()
    }

    /// Leaves the queue of a key; gives who is the first now and was not before.
    fn leave_key(&mut self, key: &Key, ticket: Ticket) -> Option<Ticket> {
        let queue = self.keys.get_mut(key)?;
        if queue.first != ticket {
            queue.behind.retain(|other| *other != ticket);
            return None;
        }
        let next = queue.behind.pop_front();
        match next {
            Some(next) => queue.first = next,
            None => drop(self.keys.remove(key)),
        }
        next
    }

    /// One thing less stands in the way of a waiter; gives it if that was the last.
    fn unblock(&mut self, ticket: Ticket) -> Option<oneshot::Sender<()>> {
        let waiter = self.waiting.get_mut(&ticket)?;
        waiter.blockers -= 1;
        if waiter.blockers > 0 {
            return None;
        }
        self.waiting.remove(&ticket).map(|waiter| waiter.turn)
    }
}

impl InFlight {
    /// Waits until nothing that was earlier is on its way to any of these keys, and holds them.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the deadline comes first.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it holds nothing, and stands in nobody's way.
    pub(super) async fn enter(self: &Arc<Self>, scope: Scope, cx: &Context) -> Result<Entered> {
        let (ticket, turn) = self.lock().join(&scope);
        // It leaves the queues again however this ends.
        let entered = Entered { owner: Arc::clone(self), ticket, scope };
        let Some(turn) = turn else { return Ok(entered) };
        match cx.limit(turn).await {
            Some(Ok(())) => Ok(entered),
            _ => Err(Error::unavailable("an earlier write of the key was still on its way at the deadline")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys that are held until it is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    owner: Arc<InFlight>,
    ticket: Ticket,
    scope: Scope,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let turns = self.owner.lock().leave(self.ticket, &self.scope);
        // One who has gone meanwhile leaves the queues too.
        for turn in turns {
            let _ = turn.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::time::Duration;

    fn keys(names: &[&str]) -> Scope {
        Scope::Keys(names.iter().map(|name| Key::parse(*name).unwrap()).collect())
    }

    fn prefix(text: &str) -> Scope {
        Scope::Prefix(KeyPrefix::parse(text).unwrap())
    }

    fn is_empty(held: &InFlight) -> bool {
        let queues = held.lock();
        queues.keys.is_empty() && queues.prefixes.is_empty() && queues.waiting.is_empty()
    }

    fn new() -> (Arc<InFlight>, Context) {
        (Arc::default(), Context::with_timeout(Duration::from_secs(60)))
    }

    #[tokio::test]
    async fn several_keys_are_waited_for_one_after_the_other() {
        let (held, cx) = new();
        let (a, b) = (held.enter(keys(&["a"]), &cx).await.unwrap(), held.enter(keys(&["b"]), &cx).await.unwrap());
        let owner = Arc::clone(&held);
        let both = tokio::spawn(async move { owner.enter(keys(&["a", "b", "a"]), &cx).await.map(drop) });
        tokio::task::yield_now().await;
        drop(a);
        tokio::task::yield_now().await;
        assert!(!both.is_finished());
        drop(b);
        both.await.unwrap().unwrap();
        assert!(is_empty(&held));
    }

    #[tokio::test]
    async fn a_key_is_held_by_one_and_then_by_the_next() {
        let (held, cx) = new();
        let first = held.enter(keys(&["a", "b"]), &cx).await.unwrap();
        let mut second = std::pin::pin!(held.enter(keys(&["b", "c"]), &cx));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        drop(second.await.unwrap());
        assert!(is_empty(&held));
    }

    #[tokio::test]
    async fn nobody_passes_those_who_wait_and_nobody_waits_for_those_who_went() {
        let (held, cx) = new();
        for waited_for in [keys(&["a", "b"]), prefix("")] {
            let first = held.enter(keys(&["a"]), &cx).await.unwrap();
            let mut second = Box::pin(held.enter(waited_for, &cx));
            assert!(second.as_mut().now_or_never().is_none());
            let mut third = Box::pin(held.enter(keys(&["b"]), &cx));
            assert!(third.as_mut().now_or_never().is_none(), "it would pass");
            let mut fourth = Box::pin(held.enter(prefix("b"), &cx));
            assert!(fourth.as_mut().now_or_never().is_none());
            drop(second);
            let third = third.now_or_never().expect("nobody is before it any more").unwrap();
            assert!(fourth.as_mut().now_or_never().is_none());
            drop(third);
            drop(fourth.now_or_never().expect("nor before this").unwrap());
            drop(first);
            assert!(is_empty(&held));
        }
    }

    #[tokio::test]
    async fn those_who_wait_have_their_turns_in_order() {
        let (held, cx) = new();
        let mut first = held.enter(keys(&["a"]), &cx).await.unwrap();
        let mut waiting: VecDeque<_> = (0..100)
            .map(|number| {
                let scope = match number % 4 {
                    0 => prefix(""),
                    1 => keys(&["a", "b"]),
                    _ => keys(&["a"]),
                };
                let mut enter = Box::pin(held.enter(scope, &cx));
                assert!(enter.as_mut().now_or_never().is_none());
                enter
            })
            .collect();
        while let Some(next) = waiting.pop_front() {
            drop(first);
            assert!(waiting.iter_mut().all(|later| later.as_mut().now_or_never().is_none()));
            first = next.now_or_never().expect("its turn has come").unwrap();
        }
        drop(first);
        assert!(is_empty(&held));
    }

    #[tokio::test]
    async fn one_whose_turn_came_as_it_went_keeps_nothing() {
        let (held, cx) = new();
        let first = held.enter(keys(&["a"]), &cx).await.unwrap();
        let mut second = Box::pin(held.enter(keys(&["a", "b"]), &cx));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(is_empty(&held));
    }

    #[tokio::test]
    async fn a_prefix_waits_for_its_keys_and_they_for_it() {
        let (held, cx) = new();
        let key = held.enter(keys(&["a:1"]), &cx).await.unwrap();
        assert!(held.enter(prefix("a:"), &cx).now_or_never().is_none());
        drop(held.enter(prefix("b:"), &cx).await.unwrap());
        drop(key);
        let _all = held.enter(prefix("a:"), &cx).await.unwrap();
        assert!(held.enter(keys(&["a:2"]), &cx).now_or_never().is_none());
        assert!(held.enter(prefix("a:2"), &cx).now_or_never().is_none());
        assert!(held.enter(prefix(""), &cx).now_or_never().is_none());
        assert!(held.enter(keys(&["b:2"]), &cx).now_or_never().is_some());
    }

    /// However they come and go, what overlaps is never held together, and all come to their turn.
    #[tokio::test]
    async fn what_overlaps_is_never_held_together() {
        let (held, cx) = new();
        let mut tasks = tokio::task::JoinSet::new();
        let inside: Arc<Mutex<Vec<(u32, Scope)>>> = Arc::default();
        for number in 0..400_u32 {
            let (held, inside) = (Arc::clone(&held), Arc::clone(&inside));
            tasks.spawn(async move {
                let name = |number: u32| format!("{}:{}", number % 3, number % 5);
                let scope = match number % 7 {
                    0 => prefix(&format!("{}:", number % 3)),
                    1 => prefix(""),
                    2 | 3 => keys(&[&name(number), &name(number / 2), &name(number / 3)]),
                    _ => keys(&[&name(number)]),
                };
                if number % 11 == 0 {
                    // One who goes away while it waits.
                    let _ = tokio::time::timeout(Duration::ZERO, held.enter(scope, &cx)).await;
                    return;
                }
                let entered = held.enter(scope.clone(), &cx).await.unwrap();
                {
                    let mut inside = inside.lock().unwrap();
                    let overlaps = |other: &Scope| match (other, &scope) {
                        (Scope::Prefix(other), scope) => scope.overlaps(other),
                        (other, Scope::Prefix(prefix)) => other.overlaps(prefix),
                        (Scope::Keys(some), Scope::Keys(others)) => some.iter().any(|key| others.contains(key)),
                    };
                    assert!(!inside.iter().any(|(_, other)| overlaps(other)));
                    inside.push((number, scope));
                }
                tokio::task::yield_now().await;
                inside.lock().unwrap().retain(|(other, _)| *other != number);
                drop(entered);
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert!(is_empty(&held));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_deadline() {
        let held = Arc::new(InFlight::default());
        let cx = Context::with_timeout(Duration::from_millis(10));
        let first = held.enter(keys(&["a"]), &cx).await.unwrap();
        let error = held.enter(keys(&["a"]), &cx).await.unwrap_err();
        assert!(error.is_transient());
        drop(first);
        assert!(is_empty(&held));
    }
}

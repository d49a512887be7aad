//! [`InFlight`]: a key has at most one write on its way to the primary.
//!
//! So the order of a key's writes is the order in which they are settled, and whoever comes next sees whether the last one is
//! still owed.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use tokio::sync::Notify;

use crate::contract::Context;
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};

/// How many rooms there are for those who wait for one key. Whoever waits for another key of the room is woken in vain.
const ROOMS: usize = 64;

/// The keys, and prefixes, that are being written to.
#[derive(Debug)]
pub(super) struct InFlight {
    held: Mutex<Held>,
    rooms: [Notify; ROOMS],
    /// Where those wait who want several keys, or a prefix.
    lobby: Notify,
    hasher: RandomState,
}

#[derive(Debug)]
struct Held {
    keys: HashSet<Key, RandomState>,
    prefixes: Vec<KeyPrefix>,
    /// How many wait in each room, and in the lobby.
    waiting: [usize; ROOMS],
    in_lobby: usize,
}

/// What a write is about.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// These keys.
    Keys(Vec<Key>),
    /// All keys with a prefix.
    Prefix(KeyPrefix),
}

impl Held {
    fn take(&mut self, scope: &Scope) -> bool {
        match scope {
            Scope::Keys(keys) => {
                let covered = |key: &Key| self.prefixes.iter().any(|prefix| prefix.matches(key));
                if keys.iter().any(|key| self.keys.contains(key) || covered(key)) {
                    return false;
                }
                self.keys.extend(keys.iter().cloned());
            }
            Scope::Prefix(prefix) => {
                let overlaps = |other: &KeyPrefix| overlap(prefix, other);
                if self.prefixes.iter().any(overlaps) || self.keys.iter().any(|key| prefix.matches(key)) {
                    return false;
                }
                self.prefixes.push(prefix.clone());
            }
        }
        true
    }

    /// How many wait in a room, or in the lobby.
    fn count(&mut self, room: Option<usize>) -> &mut usize {
        room.and_then(|room| self.waiting.get_mut(room)).unwrap_or(&mut self.in_lobby)
    }

    fn give_back(&mut self, scope: &Scope) {
        match scope {
            Scope::Keys(keys) => keys.iter().for_each(|key| {
                self.keys.remove(key);
            }),
            Scope::Prefix(prefix) => {
                if let Some(index) = self.prefixes.iter().position(|held| held == prefix) {
                    self.prefixes.swap_remove(index);
                }
            }
        }
    }
}

/// Whether a key can have both prefixes.
pub(super) fn overlap(one: &KeyPrefix, other: &KeyPrefix) -> bool {
    one.as_str().starts_with(other.as_str()) || other.as_str().starts_with(one.as_str())
}

impl Default for InFlight {
    fn default() -> Self {
        let keys = HashSet::default();
        Self {
            held: Mutex::new(Held { keys, prefixes: Vec::new(), waiting: [0; ROOMS], in_lobby: 0 }),
            rooms: [const { Notify::const_new() }; ROOMS],
            lobby: Notify::new(),
            hasher: RandomState::default(),
        }
    }
}

impl InFlight {
    /// Waits until nothing else is on its way to any of these keys, and holds them. All or none are held, so two writes of several
    /// keys cannot wait for each other.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the deadline comes first.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it holds nothing.
    pub(super) async fn enter(self: &Arc<Self>, scope: Scope, cx: &Context) -> Result<Entered> {
        if self.lock().take(&scope) {
            return Ok(Entered { owner: Arc::clone(self), scope });
        }
        cx.limit(self.wait_for(scope))
            .await
            .ok_or_else(|| Error::unavailable("an earlier write of the key was still on its way at the deadline"))
    }

    async fn wait_for(self: &Arc<Self>, scope: Scope) -> Entered {
        let room = self.room_of(&scope);
        let _waiting = Waiting::begin(self, room);
        loop {
            let mut released = pin!(room.and_then(|room| self.rooms.get(room)).unwrap_or(&self.lobby).notified());
            // From here on no release goes unnoticed.
            released.as_mut().enable();
            if self.lock().take(&scope) {
                return Entered { owner: Arc::clone(self), scope };
            }
            released.await;
        }
    }

    /// Where it is waited for: in the room of its key, or, for what is no single key, in the lobby.
    fn room_of(&self, scope: &Scope) -> Option<usize> {
        match scope {
            Scope::Keys(keys) => match keys.as_slice() {
                [key] => Some(self.room(key)),
                _ => None,
            },
            Scope::Prefix(_) => None,
        }
    }

    fn room(&self, key: &Key) -> usize {
        usize::try_from(self.hasher.hash_one(key) % ROOMS as u64).unwrap_or_default()
    }

    /// Lets go of what a write was about, and wakes those who may have waited for it: nobody else, as among hundreds of callers some
    /// always wait.
    fn release(&self, scope: &Scope) {
        let mut held = self.lock();
        held.give_back(scope);
        let waited_for = |room: &usize| held.waiting.get(*room).is_some_and(|waiting| *waiting > 0);
        let rooms: Vec<usize> = match scope {
            Scope::Keys(keys) => keys.iter().map(|key| self.room(key)).filter(waited_for).collect(),
            Scope::Prefix(_) => (0..ROOMS).filter(waited_for).collect(),
        };
        let in_lobby = held.in_lobby > 0;
        drop(held);
        rooms.into_iter().filter_map(|room| self.rooms.get(room)).for_each(Notify::notify_waiters);
        if in_lobby {
            self.lobby.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits, counted.
struct Waiting<'a> {
    owner: &'a InFlight,
    room: Option<usize>,
}

impl<'a> Waiting<'a> {
    fn begin(owner: &'a InFlight, room: Option<usize>) -> Self {
        *owner.lock().count(room) += 1;
        Self { owner, room }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.owner.lock().count(self.room) -= 1;
    }
}

/// Keys that are held until it is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    owner: Arc<InFlight>,
    scope: Scope,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.owner.release(&self.scope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::task::{ArcWake, waker};
    use std::future::Future;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context as TaskContext, Waker};
    use std::time::Duration;

    /// Counts how often it is woken.
    struct Counting(AtomicUsize);

    impl ArcWake for Counting {
        fn wake_by_ref(counting: &Arc<Self>) {
            counting.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn keys(names: &[&str]) -> Scope {
        Scope::Keys(names.iter().map(|name| Key::parse(*name).unwrap()).collect())
    }

    fn prefix(text: &str) -> Scope {
        Scope::Prefix(KeyPrefix::parse(text).unwrap())
    }

    fn nobody_waits(held: &InFlight) -> bool {
        let held = held.lock();
        held.in_lobby == 0 && held.waiting.iter().all(|waiting| *waiting == 0)
    }

    #[tokio::test]
    async fn whoever_waits_for_another_key_is_left_alone() {
        let (held, cx) = (Arc::new(InFlight::default()), Context::with_timeout(Duration::from_secs(60)));
        let number = |number: usize| Key::parse(number.to_string()).unwrap();
        let other = (1..).find(|other| held.room(&number(*other)) != held.room(&number(0))).unwrap().to_string();
        let (zero, one) =
            (held.enter(keys(&["0"]), &cx).await.unwrap(), held.enter(keys(&[&other]), &cx).await.unwrap());
        let woken = Arc::new(Counting(AtomicUsize::new(0)));
        let waker: Waker = waker(Arc::clone(&woken));
        let mut second = std::pin::pin!(held.enter(keys(&["0"]), &cx));
        assert!(second.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending());
        drop(one);
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        drop(zero);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn several_keys_are_waited_for_one_after_the_other() {
        let (held, cx) = (Arc::new(InFlight::default()), Context::with_timeout(Duration::from_secs(60)));
        let (a, b) = (held.enter(keys(&["a"]), &cx).await.unwrap(), held.enter(keys(&["b"]), &cx).await.unwrap());
        let owner = Arc::clone(&held);
        let both = tokio::spawn(async move { owner.enter(keys(&["a", "b"]), &cx).await.map(drop) });
        tokio::task::yield_now().await;
        drop(a);
        tokio::task::yield_now().await;
        assert!(!both.is_finished());
        drop(b);
        both.await.unwrap().unwrap();
        assert!(nobody_waits(&held));
    }

    #[tokio::test]
    async fn a_key_is_held_by_one_and_then_by_the_next() {
        let (held, cx) = (Arc::new(InFlight::default()), Context::with_timeout(Duration::from_secs(60)));
        let first = held.enter(keys(&["a", "b"]), &cx).await.unwrap();
        let mut second = std::pin::pin!(held.enter(keys(&["b", "c"]), &cx));
        assert!(second.as_mut().now_or_never().is_none());
        // What waits holds nothing.
        drop(held.enter(keys(&["c"]), &cx).await.unwrap());
        drop(first);
        drop(second.await.unwrap());
        assert!(held.lock().keys.is_empty() && nobody_waits(&held));
    }

    #[tokio::test]
    async fn a_prefix_waits_for_its_keys_and_they_for_it() {
        let (held, cx) = (Arc::new(InFlight::default()), Context::with_timeout(Duration::from_secs(60)));
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

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_deadline() {
        let held = Arc::new(InFlight::default());
        let cx = Context::with_timeout(Duration::from_millis(10));
        let _first = held.enter(keys(&["a"]), &cx).await.unwrap();
        let error = held.enter(keys(&["a"]), &cx).await.unwrap_err();
        assert!(error.is_transient());
        assert!(nobody_waits(&held));
    }
}

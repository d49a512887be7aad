//! [`InFlight`]: a key has at most one write on its way to the primary.
//!
//! So the order of a key's writes is the order in which they are settled, and whoever comes next sees whether the last one is
//! still owed.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::contract::Context;
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};

/// The keys, and prefixes, that are being written to.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    held: Mutex<Held>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Held {
    keys: HashSet<Key>,
    prefixes: Vec<KeyPrefix>,
    /// How many wait.
    waiting: usize,
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
        let _waiting = Waiting::begin(self);
        loop {
            let mut released = pin!(self.released.notified());
            // From here on no release goes unnoticed.
            released.as_mut().enable();
            if self.lock().take(&scope) {
                return Entered { owner: Arc::clone(self), scope };
            }
            released.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits, counted.
struct Waiting<'a>(&'a InFlight);

impl<'a> Waiting<'a> {
    fn begin(owner: &'a InFlight) -> Self {
        owner.lock().waiting += 1;
        Self(owner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
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
        let mut held = self.owner.lock();
        held.give_back(&self.scope);
        let anyone = held.waiting > 0;
        drop(held);
        if anyone {
            self.owner.released.notify_waiters();
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
        assert!(held.lock().keys.is_empty() && held.lock().waiting == 0);
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
        assert_eq!(held.lock().waiting, 0);
    }
}

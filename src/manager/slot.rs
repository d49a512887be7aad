//! One side of the manager, built on first use: the [`Slot`].

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::error::{Error, Result};

/// A thing that is built by the first who asks; those who ask meanwhile share the attempt, and its failure. The next one after
/// a failure tries anew.
pub(super) struct Slot<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    Idle,
    Building { attempt: u64, building: Shared<BoxFuture<'static, Result<T>>> },
    Ready(T),
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State::Idle) }
    }
}

impl<T: Clone + Send + Sync + 'static> Slot<T> {
    /// What was built, or is being built, or is built now by `build`.
    pub(super) async fn get_or_build<F>(&self, build: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (attempt, building) = match self.enter(build) {
            Entered::Ready(thing) => return Ok(thing),
            Entered::Building(attempt, building) => (attempt, building),
        };
        let built = building.await;
        self.settle(attempt, &built);
        built
    }

    /// What was built, if it was.
    pub(super) fn ready(&self) -> Option<T> {
        match &*self.lock() {
            State::Ready(thing) => Some(thing.clone()),
            State::Idle | State::Building { .. } => None,
        }
    }

    /// Takes out what was built, waiting for an attempt that is under way. The slot is as new then.
    pub(super) async fn take(&self) -> Option<T> {
        let taken = std::mem::replace(&mut *self.lock(), State::Idle);
        match taken {
            State::Ready(thing) => Some(thing),
            State::Building { building, .. } => building.await.ok(),
            State::Idle => None,
        }
    }

    fn enter<F>(&self, build: impl FnOnce() -> F) -> Entered<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut state = self.lock();
        match &*state {
            State::Ready(thing) => Entered::Ready(thing.clone()),
            // One that failed after its callers had gone is nobody's answer any more.
            State::Building { attempt, building } if !has_failed(building) => {
                Entered::Building(*attempt, building.clone())
            }
            State::Idle | State::Building { .. } => {
                // In a task of its own it goes on though its callers go away.
                let building =
                    tokio::spawn(build()).map(|built| built.unwrap_or_else(|_| Err(broken_off()))).boxed().shared();
                let attempt = next_attempt();
                *state = State::Building { attempt, building: building.clone() };
                Entered::Building(attempt, building)
            }
        }
    }

    fn settle(&self, attempt: u64, built: &Result<T>) {
        let mut state = self.lock();
        if matches!(&*state, State::Building { attempt: standing, .. } if *standing == attempt) {
            *state = built.as_ref().map_or(State::Idle, |thing| State::Ready(thing.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entered<T> {
    Ready(T),
    Building(u64, Shared<BoxFuture<'static, Result<T>>>),
}

/// Whether an attempt is over in vain, though nobody asked since.
fn has_failed<T: Clone>(building: &Shared<BoxFuture<'static, Result<T>>>) -> bool {
    building.clone().now_or_never().is_some_and(|built| built.is_err())
}

fn broken_off() -> Error {
    Error::internal("connecting was broken off, as it is when the runtime shuts down; call again")
}

fn next_attempt() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f.write_str(match &*state {
            State::Idle => "Slot::Idle",
            State::Building { .. } => "Slot::Building",
            State::Ready(_) => "Slot::Ready",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn callers_share_one_attempt_and_its_failure() {
        let slot: Slot<u32> = Slot::default();
        let attempts = Arc::new(AtomicUsize::new(0));
        let fail = || {
            let attempts = Arc::clone(&attempts);
            async move {
                attempts.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Err(Error::unavailable("down"))
            }
        };
        let (first, second) = tokio::join!(slot.get_or_build(fail), slot.get_or_build(fail));
        assert!(first.is_err() && second.is_err());
        assert_eq!(attempts.load(Ordering::SeqCst), 1);
        assert_eq!(slot.get_or_build(|| async { Ok(7) }).await.unwrap(), 7);
        assert_eq!(slot.ready(), Some(7));
    }

    #[tokio::test]
    async fn an_attempt_that_failed_after_its_callers_had_gone_is_nobodys_answer() {
        let slot: Slot<u32> = Slot::default();
        let fails = slot.get_or_build(|| async {
            tokio::task::yield_now().await;
            Err(Error::unavailable("down"))
        });
        assert!(fails.now_or_never().is_none());
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(slot.get_or_build(|| async { Ok(2) }).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn an_attempt_outlives_its_first_caller() {
        let slot: Slot<u32> = Slot::default();
        let slow = slot.get_or_build(|| async {
            tokio::task::yield_now().await;
            Ok(1)
        });
        assert!(slow.now_or_never().is_none());
        tokio::task::yield_now().await;
        assert_eq!(slot.get_or_build(|| async { Ok(2) }).await.unwrap(), 1);
    }
}

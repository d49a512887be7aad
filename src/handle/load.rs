//! One load a key and runtime, however many ask: the register of loads in flight, and how a write overrules them.
//!
//! A loader runs in a task of its own, so that it ends though its first caller goes away, and no follower waits for a future
//! that nobody polls. A write or delete through any clone of the handle marks the loads of its key as overruled before it is
//! sent, and waits for a fill that is on its way; so what is loaded never lands on top of a newer write or a removal. Writes
//! of other processes are met by filling only a key that is still empty.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::runtime::{Handle, Id};
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::contract::Context;
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::value::Value;

use super::base::Shared;

type Outcome = Option<Result<Value>>;

/// The loads in flight of one store, by the full key as the first handle sees it.
#[derive(Debug, Default)]
pub(super) struct Loads {
    in_flight: Mutex<HashMap<Key, Vec<Arc<Load>>>>,
    count: AtomicUsize,
}

/// One load in flight.
#[derive(Debug)]
struct Load {
    overruled: AtomicBool,
    /// Where it runs.
    runtime: Id,
    /// Held while the loaded value is written, so that a write can wait for it and then win.
    filling: AsyncMutex<()>,
    outcome: watch::Receiver<Outcome>,
}

impl Load {
    /// Not one that was overruled, nor one in another runtime, which may rest, so that the outcome does not come.
    fn can_be_joined(&self, runtime: Id) -> bool {
        self.runtime == runtime && !self.overruled.load(Ordering::SeqCst) && self.outcome.has_changed().is_ok()
    }
}

/// What a finished loader may do: write its value unless it was overruled meanwhile.
#[derive(Debug)]
pub(super) struct FillPermit {
    load: Arc<Load>,
}

impl FillPermit {
    /// Runs the fill if no write came in between; `None` if one did.
    pub(super) async fn fill<T>(self, fill: impl Future<Output = T>) -> Option<T> {
        let _filling = self.load.filling.lock().await;
        if self.load.overruled.load(Ordering::SeqCst) { None } else { Some(fill.await) }
    }
}

impl Loads {
    /// Waits for the load of a key that is in flight, or starts it. `work` gets the permit to fill.
    pub(super) async fn join<W, F>(shared: &Arc<Shared>, key: Key, work: W) -> Result<Value>
    where
        W: FnOnce(FillPermit) -> F + Send + 'static,
        F: Future<Output = Result<Value>> + Send + 'static,
    {
        let mut outcome = match shared.loads.enter(&key) {
            Entered::Following(load) => load.outcome.clone(),
            Entered::Leading(load, sender) => {
                let outcome = load.outcome.clone();
                let leading = Leading { shared: Arc::clone(shared), key, load };
                tokio::spawn(lead(leading, sender, work));
                outcome
            }
        };
        let ended = || Error::internal("the load ended without an outcome, as it does when the runtime shuts down");
        let outcome = outcome.wait_for(Option::is_some).await.map_err(|_| ended())?.clone();
        outcome.unwrap_or_else(|| Err(ended()))
    }

    /// Whether nothing is being loaded, so that there is nothing to overrule.
    pub(super) fn are_none(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Marks the load of a key as overruled, and waits for a fill that is on its way.
    pub(super) async fn overrule(&self, namespace: &KeyPrefix, key: &Key, cx: &Context) -> Result<()> {
        if self.are_none() {
            return Ok(());
        }
        let loads = self.lock().get(&namespace.join(key)?).cloned();
        overrule_each(loads.unwrap_or_default(), cx).await
    }

    /// As [`Loads::overrule`], for every key with a prefix.
    pub(super) async fn overrule_prefix(&self, prefix: &KeyPrefix, cx: &Context) -> Result<()> {
        if self.are_none() {
            return Ok(());
        }
        let in_flight =
            self.lock().iter().filter(|(key, _)| prefix.matches(key)).flat_map(|(_, loads)| loads.clone()).collect();
        overrule_each(in_flight, cx).await
    }

    fn enter(&self, key: &Key) -> Entered {
        let runtime = Handle::current().id();
        let mut in_flight = self.lock();
        let loads = in_flight.entry(key.clone()).or_default();
        if let Some(load) = loads.iter().find(|load| load.can_be_joined(runtime)) {
            return Entered::Following(Arc::clone(load));
        }
        let (sender, outcome) = watch::channel(None);
        let (overruled, filling) = (AtomicBool::new(false), AsyncMutex::new(()));
        let load = Arc::new(Load { overruled, runtime, filling, outcome });
        loads.push(Arc::clone(&load));
        self.count.store(in_flight.len(), Ordering::SeqCst);
        Entered::Leading(load, sender)
    }

    fn leave(&self, key: &Key, load: &Arc<Load>) {
        let mut in_flight = self.lock();
        if let Some(loads) = in_flight.get_mut(key) {
            loads.retain(|standing| !Arc::ptr_eq(standing, load));
            if loads.is_empty() {
                in_flight.remove(key);
            }
        }
        self.count.store(in_flight.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Arc<Load>>>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entered {
    Following(Arc<Load>),
    Leading(Arc<Load>, watch::Sender<Outcome>),
}

async fn overrule_each(loads: Vec<Arc<Load>>, cx: &Context) -> Result<()> {
    for load in loads {
        load.overruled.store(true, Ordering::SeqCst);
        if cx.limit(load.filling.lock()).await.is_none() {
            return Err(Error::unavailable("a loaded value was still being written at the deadline"));
        }
    }
    Ok(())
}

/// A load that is registered until it ends, also with its runtime.
struct Leading {
    shared: Arc<Shared>,
    key: Key,
    load: Arc<Load>,
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.shared.loads.leave(&self.key, &self.load);
    }
}

async fn lead<W, F>(leading: Leading, sender: watch::Sender<Outcome>, work: W)
where
    W: FnOnce(FillPermit) -> F + Send,
    F: Future<Output = Result<Value>> + Send,
{
    let permit = FillPermit { load: Arc::clone(&leading.load) };
    let outcome = AssertUnwindSafe(async { work(permit).await }).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err(Error::internal("the loader panicked")));
    drop(leading);
    let _ = sender.send(Some(outcome));
}

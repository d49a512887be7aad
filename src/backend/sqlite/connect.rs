//! Opening on first use, once for all who ask at the same time; a failed attempt is not remembered.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OnceCell, watch};

use crate::config::SqliteConfig;
use crate::contract::Context;
use crate::engine::sqlite::{Admission, Engine, Options};
use crate::error::{Error, Result};

use super::batch::InFlight;
use super::migrate::LAYOUT;
use super::session::Shared;
use super::sweep;

type Slot = Arc<OnceCell<Arc<Engine>>>;

/// The engine behind a database, opened on first use and anew after a commit failed on the disk.
pub(super) struct Connector {
    config: SqliteConfig,
    shared: Shared,
    slot: Mutex<Slot>,
    closed: AtomicBool,
    /// Each call that takes several jobs holds a receiver.
    calls: watch::Sender<()>,
}

impl Connector {
    pub(super) fn new(config: SqliteConfig, shared: Shared) -> Self {
        Self { config, shared, slot: Mutex::default(), closed: AtomicBool::new(false), calls: watch::Sender::new(()) }
    }

    /// Makes closing wait for a call. It asks for the engine after that, which says whether the database is closed already.
    pub(super) fn enter(&self) -> InFlight {
        self.calls.subscribe()
    }

    /// The open engine; one that failed is opened anew.
    pub(super) async fn engine(&self, cx: &Context) -> Result<Arc<Engine>> {
        let slot = self.slot();
        let engine = self.engine_in(&slot, cx).await?;
        if !engine.has_failed() {
            return Ok(engine);
        }
        self.engine_in(&self.slot_after(&slot), cx).await
    }

    async fn engine_in(&self, slot: &Slot, cx: &Context) -> Result<Arc<Engine>> {
        if self.is_closed() {
            return Err(Error::closed());
        }
        if cx.is_expired() {
            return Err(Error::unavailable("the deadline had passed before the call began"));
        }
        match cx.limit(slot.get_or_try_init(|| self.open(cx))).await {
            Some(engine) => engine.map(Arc::clone),
            None => Err(Error::unavailable("the SQLite database could not be opened before the deadline")),
        }
    }

    /// Closes the engine, if there is one, once the calls under way have sent their last job or the deadline has come.
    pub(super) async fn close(&self, cx: &Context) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        cx.limit(self.calls.closed()).await;
        match self.slot().get() {
            Some(engine) => engine.close(cx.deadline).await,
            None => Ok(()),
        }
    }

    async fn open(&self, cx: &Context) -> Result<Arc<Engine>> {
        let SqliteConfig { path, synchronous, readers, busy_timeout, tombstone_retention } = self.config.clone();
        let options = Options {
            path,
            synchronous,
            readers: usize::try_from(readers).unwrap_or(usize::MAX),
            busy_timeout,
            layout: LAYOUT,
            admission: self.admission(),
            maintenance: Some(sweep::maintenance(self.shared.clone(), tombstone_retention)),
        };
        let engine = Arc::new(Engine::open(options, cx.deadline).await?);
        // Whoever closed in the meantime found nothing to close.
        if self.is_closed() { Err(Error::closed()) } else { Ok(engine) }
    }

    /// While a certain database is expected, no other is made in its place.
    fn admission(&self) -> Option<Admission> {
        let expected = Arc::clone(&self.shared.expected);
        expected.get().map(|_| Box::new(move |connection: &Connection| expected.check_file(connection)) as Admission)
    }

    /// The slot that replaces a failed one, whoever comes first.
    fn slot_after(&self, failed: &Slot) -> Slot {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&slot, failed) {
            *slot = Slot::default();
        }
        Arc::clone(&slot)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn slot(&self) -> Slot {
        Arc::clone(&self.slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("config", &self.config).field("closed", &self.closed).finish_non_exhaustive()
    }
}

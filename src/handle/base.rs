//! The [`Handle`]: what cache and database handles have in common.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::contract::{CacheBackend, Capabilities, Context, DatabaseBackend, Ping, Store};
use crate::error::Result;
use crate::key::KeyPrefix;
use crate::layer::Prefix;
use crate::stamp::{HybridClock, Stamp};

use super::load::Loads;

/// How long a call of a handle may take unless set otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to a backend, cheap to clone. [`Cache`](super::Cache) and [`Database`](super::Database) are its two forms.
pub struct Handle<B: ?Sized> {
    pub(super) backend: Arc<B>,
    /// What stands before this handle's keys in the eyes of the handle it was made from.
    pub(super) namespace: KeyPrefix,
    pub(super) shared: Arc<Shared>,
    timeout: Duration,
}

/// What all clones of a handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stamps: Arc<HybridClock>,
    pub(super) loads: Loads,
}

impl<B: ?Sized> Clone for Handle<B> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            namespace: self.namespace.clone(),
            shared: Arc::clone(&self.shared),
            timeout: self.timeout,
        }
    }
}

impl<B: Store + ?Sized> fmt::Debug for Handle<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("backend", &self.backend.capabilities().backend)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A side of the contract that a handle can stand for: `dyn CacheBackend` or `dyn DatabaseBackend`.
pub trait HandleBackend: Store + sealed::Sealed {
    /// Wraps a backend so that its keys begin with a prefix.
    #[doc(hidden)]
    fn prefixed(inner: Arc<Self>, prefix: KeyPrefix) -> Arc<Self>;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for dyn CacheBackend {}
impl sealed::Sealed for dyn DatabaseBackend {}

impl HandleBackend for dyn CacheBackend {
    fn prefixed(inner: Arc<Self>, prefix: KeyPrefix) -> Arc<Self> {
        Arc::new(Prefix::new(prefix, inner))
    }
}

impl HandleBackend for dyn DatabaseBackend {
    fn prefixed(inner: Arc<Self>, prefix: KeyPrefix) -> Arc<Self> {
        Arc::new(Prefix::new(prefix, inner))
    }
}

impl<B: HandleBackend + ?Sized> Handle<B> {
    /// Makes a handle to a backend, with a timeout of 5 seconds a call.
    #[must_use]
    pub fn new(backend: Arc<B>) -> Self {
        let shared = Shared { stamps: HybridClock::process(), loads: Loads::default() };
        Self { backend, namespace: KeyPrefix::empty(), shared: Arc::new(shared), timeout: DEFAULT_TIMEOUT }
    }

    /// Sets how long each call of this handle may take, its retries included; 5 seconds by default.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes a handle to a namespace of this one: it sees only keys that begin with the prefix, without it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the prefix is too long or holds a control character.
    ///
    /// # Examples
    ///
    /// ```
    /// # use agent_storage::StorageManager;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let database = StorageManager::in_memory().database().await?;
    /// let tenant = database.prefixed("tenant:7:")?;
    /// tenant.set_json("title", "hello").await?;
    /// assert!(database.exists("tenant:7:title").await?);
    /// # Ok::<(), agent_storage::Error>(()) }).unwrap();
    /// ```
    pub fn prefixed(&self, prefix: impl AsRef<str>) -> Result<Self> {
        let prefix = KeyPrefix::parse(prefix)?;
        Ok(Self {
            namespace: self.namespace.join_prefix(&prefix)?,
            backend: B::prefixed(Arc::clone(&self.backend), prefix),
            shared: Arc::clone(&self.shared),
            timeout: self.timeout,
        })
    }

    /// The backend behind the handle, for calls of the contract itself.
    #[must_use]
    pub const fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// What the backend can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// Proves that the backend can be used, by writing to it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if it cannot.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn ping(&self) -> Result<Ping> {
        self.backend.ping(&self.context()).await
    }

    pub(super) fn context(&self) -> Context {
        Context::of_call(self.timeout)
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.shared.stamps.issue()
    }
}

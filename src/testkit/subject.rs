//! The store under test with everything a case needs: the [`Subject`].

use std::fmt;
use std::sync::Arc;

use crate::contract::{CacheBackend, DatabaseBackend, Store};
use crate::{HybridClock, Key, Stamp};

use super::elapse::Elapse;

/// A store under test: fresh and empty, or with an empty namespace of its own.
///
/// Its methods are the calls that cases make most, with the namespace put before each key.
pub struct Subject<B: ?Sized> {
    backend: Arc<B>,
    stamps: Arc<HybridClock>,
    elapse: Elapse,
    namespace: String,
    longest_key: usize,
}

impl Subject<dyn CacheBackend> {
    /// Makes a subject of an empty cache.
    #[must_use]
    pub fn cache(backend: Arc<dyn CacheBackend>, elapse: Elapse) -> Self {
        Self::new(backend, elapse)
    }

    /// The same cache as any store.
    #[must_use]
    pub fn into_store(self) -> Subject<dyn Store> {
        let Self { backend, stamps, elapse, namespace, longest_key } = self;
        Subject { backend, stamps, elapse, namespace, longest_key }
    }
}

impl Subject<dyn DatabaseBackend> {
    /// Makes a subject of an empty database.
    #[must_use]
    pub fn database(backend: Arc<dyn DatabaseBackend>, elapse: Elapse) -> Self {
        Self::new(backend, elapse)
    }

    /// The same database as any store.
    #[must_use]
    pub fn into_store(self) -> Subject<dyn Store> {
        let Self { backend, stamps, elapse, namespace, longest_key } = self;
        Subject { backend, stamps, elapse, namespace, longest_key }
    }
}

impl<B: Store + ?Sized> Subject<B> {
    fn new(backend: Arc<B>, elapse: Elapse) -> Self {
        let stamps = Arc::new(HybridClock::new(elapse.clock()));
        Self { backend, stamps, elapse, namespace: String::new(), longest_key: Key::MAX_BYTES }
    }

    /// Gives stamps by the clock that the store uses itself; otherwise the suite has a clock of its own.
    #[must_use]
    pub fn with_stamps(mut self, stamps: Arc<HybridClock>) -> Self {
        self.stamps = stamps;
        self
    }

    /// Keeps to the keys with this prefix, for a store that others use too. At most 64 bytes.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Says how many bytes of a key the store takes, where a configured prefix takes the rest of [`Key::MAX_BYTES`].
    #[must_use]
    pub fn with_longest_key(mut self, bytes: usize) -> Self {
        self.longest_key = bytes;
        self
    }

    /// The store.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The same store with a longer namespace.
    pub(super) fn within(&self, inner: &str) -> Self {
        let namespace = format!("{}{inner}", self.namespace);
        Self {
            backend: Arc::clone(&self.backend),
            stamps: Arc::clone(&self.stamps),
            elapse: self.elapse.clone(),
            namespace,
            longest_key: self.longest_key,
        }
    }

    pub(super) fn elapse(&self) -> &Elapse {
        &self.elapse
    }

    /// How many bytes a name may have.
    pub(super) fn longest_name(&self) -> usize {
        self.longest_key - self.namespace.len()
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamps.issue()
    }

    pub(super) fn stamps(&self) -> &HybridClock {
        &self.stamps
    }
}

impl<B: ?Sized> Clone for Subject<B> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            stamps: Arc::clone(&self.stamps),
            elapse: self.elapse.clone(),
            namespace: self.namespace.clone(),
            longest_key: self.longest_key,
        }
    }
}

impl<B: ?Sized + fmt::Debug> fmt::Debug for Subject<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("backend", &&*self.backend)
            .field("elapse", &self.elapse)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

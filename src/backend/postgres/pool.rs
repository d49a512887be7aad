//! The connections: at most so many, kept for the next call, closed when they are old or in doubt.
//!
//! The client library's own pool sends a ping whenever a connection comes back and waits for its answer without a limit, so
//! that against a server which went silent each call that is given up takes a place for good
//! (<https://github.com/launchbadge/sqlx/issues/4349>). Here a place belongs to a [`Lease`] and is free when the lease is
//! dropped, whatever the server does.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{PoolConfig, PostgresConfig, TlsFiles};
use crate::error::{Error, Result};

use super::error::{Doubt, from_connect, silent};
use super::options::{connect_options, unreadable, used_files};

/// After how long without use a connection is asked whether it is still there. A server that went away is then found before
/// a write is sent to it.
const PING_AFTER: Duration = Duration::from_secs(1);

/// How long the answer to that question, or a farewell, may take.
const PING_WITHIN: Duration = Duration::from_secs(1);

/// The connections of one backend.
pub(super) struct Pool {
    options: PgConnectOptions,
    tls_files: TlsFiles,
    config: PoolConfig,
    connection_timeout: Duration,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: PgConnection,
    /// In which it was made: in another one nobody may be there to hear what comes.
    runtime: Id,
    born: Instant,
    since: Instant,
}

impl Pool {
    pub(super) fn new(config: &PostgresConfig) -> Self {
        let places = usize::try_from(config.pool.max).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            options: connect_options(config),
            tls_files: used_files(config),
            config: config.pool,
            connection_timeout: config.connection_timeout,
            places: Arc::new(Semaphore::new(places)),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Takes a connection: one that is idle, or a new one.
    ///
    /// # Errors
    ///
    /// `Unavailable` if none is free or can be made in time; `Closed` once the pool is closed.
    pub(super) async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease> {
        let patience = deadline.min(Instant::now() + self.config.acquire_timeout);
        let permit = tokio::time::timeout_at(patience.into(), Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_| {
                Error::unavailable("no connection was free in time; raise `maxConnections` if the server has room")
            })?
            .map_err(|_| Error::closed())?;
        while let Some(mut idle) = self.take_idle() {
            if idle.since.elapsed() < PING_AFTER || is_there(&mut idle.connection, deadline).await {
                return Ok(Lease::new(self, permit, idle.connection, idle.born));
            }
            // The others went the same way, or will be asked.
        }
        let connection = self.connect(deadline).await?;
        Ok(Lease::new(self, permit, connection, Instant::now()))
    }

    /// Makes a connection that is not counted.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<PgConnection> {
        let deadline = deadline.min(Instant::now() + self.connection_timeout);
        match tokio::time::timeout_at(deadline.into(), self.options.connect()).await {
            Ok(connected) => {
                connected.map_err(|error| unreadable(&self.tls_files, &error).unwrap_or_else(|| from_connect(error)))
            }
            Err(_) => Err(silent(Doubt::None)),
        }
    }

    /// The one used last in this runtime, so that the others may grow old. If there is none, and no room for a new one beside those of other
    /// runtimes, one of them is closed.
    fn take_idle(&self) -> Option<Idle> {
        let runtime = Handle::current().id();
        let mut idle = self.idle();
        if let Some(ours) = idle.iter().rposition(|idle| idle.runtime == runtime) {
            return Some(idle.remove(ours));
        }
        let max = self.config.max as usize;
        let in_use = max.saturating_sub(self.places.available_permits());
        let is_over = !idle.is_empty() && in_use + idle.len() > max;
        let oldest = is_over.then(|| idle.remove(0));
        drop(idle);
        drop(oldest);
        None
    }

    fn give_back(&self, connection: PgConnection, runtime: Id, born: Instant) {
        if born.elapsed() < self.config.max_lifetime && !self.places.is_closed() {
            self.idle().push(Idle { connection, runtime, born, since: Instant::now() });
        }
    }

    /// Closes what was unused for too long or is too old, and makes up the least number of connections.
    pub(super) async fn tend(self: &Arc<Self>, deadline: Instant) {
        let keep = usize::try_from(self.config.min).unwrap_or(usize::MAX);
        let mut old = Vec::new();
        {
            let mut idle = self.idle();
            let mut index = 0;
            while let Some(candidate) = idle.get(index) {
                let unused = candidate.since.elapsed() >= self.config.idle_timeout && idle.len() > keep;
                if unused || candidate.born.elapsed() >= self.config.max_lifetime {
                    old.push(idle.remove(index));
                } else {
                    index += 1;
                }
            }
            // What their largest message took.
            idle.iter_mut().for_each(|idle| idle.connection.shrink_buffers());
        }
        for idle in old {
            farewell(idle.connection).await;
        }
        while self.idle().len() < keep {
            let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else { return };
            let Ok(connection) = self.connect(deadline).await else { return };
            Lease::new(self, permit, connection, Instant::now()).end();
        }
    }

    /// How often [`Pool::tend`] is worth a call.
    pub(super) fn tending_interval(&self) -> Duration {
        (self.config.idle_timeout.min(self.config.max_lifetime) / 2).clamp(PING_AFTER, Duration::from_secs(30))
    }

    /// Waits until nothing is in use, at most until the deadline; then no lease is given any more. Says whether it came to rest.
    pub(super) async fn close(&self, deadline: Instant) -> bool {
        let all = self.config.max.max(1);
        let at_rest = tokio::time::timeout_at(deadline.into(), self.places.acquire_many(all)).await.is_ok();
        self.places.close();
        let idle = std::mem::take(&mut *self.idle());
        for idle in idle {
            farewell(idle.connection).await;
        }
        at_rest
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options hold the password.
        f.debug_struct("Pool").field("config", &self.config).finish_non_exhaustive()
    }
}

async fn is_there(connection: &mut PgConnection, deadline: Instant) -> bool {
    let deadline = deadline.min(Instant::now() + PING_WITHIN);
    matches!(tokio::time::timeout_at(deadline.into(), connection.ping()).await, Ok(Ok(())))
}

async fn farewell(connection: PgConnection) {
    // A server that does not take it finds the connection closed.
    let _ = tokio::time::timeout(PING_WITHIN, connection.close()).await;
}

/// One place in the pool, with its connection for as long as that is usable.
///
/// Dropped, or ended after the connection was given up, it closes the connection; only [`Lease::end`] keeps one.
pub(super) struct Lease {
    connection: Option<PgConnection>,
    runtime: Id,
    born: Instant,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    fn new(pool: &Arc<Pool>, permit: OwnedSemaphorePermit, connection: PgConnection, born: Instant) -> Self {
        let runtime = Handle::current().id();
        Self { connection: Some(connection), runtime, born, pool: Arc::clone(pool), _permit: permit }
    }

    /// The connection.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it was given up: nothing more can be sent.
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection> {
        self.connection.as_mut().ok_or_else(|| Error::unavailable("the connection to the server was lost"))
    }

    pub(super) fn is_usable(&self) -> bool {
        self.connection.is_some()
    }

    /// Closes the connection at once, without a word: the server may not be listening.
    pub(super) fn give_up(&mut self) {
        self.connection = None;
    }

    /// Closes the connection and all that are idle.
    pub(super) fn give_up_all(&mut self) {
        self.give_up();
        let idle = std::mem::take(&mut *self.pool.idle());
        drop(idle);
    }

    /// Keeps the connection for the next call.
    pub(super) fn end(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection, self.runtime, self.born);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("usable", &self.is_usable()).finish_non_exhaustive()
    }
}

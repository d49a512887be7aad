//! Making a backend usable on first use, and running calls on it: the [`Connector`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as SharedFuture};
use sqlx::Connection;
use tokio::runtime::{Handle, Id};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinHandle};

use crate::config::PostgresConfig;
use crate::contract::{Context, Identity};
use crate::error::{Error, Result};
use crate::stamp::HybridClock;

use super::error::{Doubt, silent, timed_out};
use super::migrate::Target;
use super::options::{quoted_schema, shortest_limit, timeouts};
use super::pool::Pool;
use super::session::{Session, Shared};
use super::sql::{Sql, Text};
use super::sweep::{self, Sweeper};

/// How long connecting and migrating may take together, waiting for other processes that migrate included.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What a call needs of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// That the schema is up to date.
    Tables,
    Nothing,
}

/// One attempt to connect and migrate, shared by all who wait for it.
#[derive(Clone, Debug)]
struct Attempt {
    outcome: SharedFuture<BoxFuture<'static, Result<()>>>,
    task: AbortHandle,
    runtime: Id,
}

impl Attempt {
    /// Whether something comes of it here: not if it is done, it panicked, or the runtime that it ran on is gone; and another runtime
    /// may rest.
    fn goes_on(&self) -> bool {
        !self.task.is_finished() && self.runtime == Handle::current().id()
    }
}

/// What the calls of one backend share.
#[derive(Debug)]
pub(super) struct Connector {
    pool: Arc<Pool>,
    shared: Shared,
    target: Target,
    sweeper: Sweeper,
    /// Whether no further call is let in.
    closing: watch::Sender<bool>,
    ready: AtomicBool,
    attempt: Mutex<Option<Attempt>>,
    background: Mutex<Option<JoinHandle<()>>>,
}

impl Connector {
    /// Connects nothing.
    pub(super) fn new(config: &PostgresConfig, clock: Arc<HybridClock>) -> Result<Self> {
        // The client library picks `ring` itself; others in the process that go by the default find the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let quoted = quoted_schema(&config.schema)?;
        let shared = Shared {
            sql: Arc::new(Sql::new(&quoted)),
            clock,
            expected: Arc::default(),
            server_clock: Arc::default(),
            begin: begin(config),
            wrap: config.transaction_pooler,
            shortest_limit: shortest_limit(config),
        };
        let sweeper = Sweeper::new(config);
        let target = Target { quoted, name: config.schema.clone() };
        Ok(Self {
            pool: Arc::new(Pool::new(config)),
            shared,
            target,
            sweeper,
            closing: watch::Sender::new(false),
            ready: AtomicBool::new(false),
            attempt: Mutex::new(None),
            background: Mutex::new(None),
        })
    }

    /// Runs a call on a connection of its own, in a task of its own: a caller that goes away interrupts nothing.
    ///
    /// What the call left to be cleaned is cleaned after its answer.
    pub(super) async fn run<T, F>(self: &Arc<Self>, cx: &Context, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.run_where(Needs::Tables, cx, call).await
    }

    /// As [`Connector::run`], of a call that any database may answer.
    pub(super) async fn run_anywhere<T, F>(self: &Arc<Self>, cx: &Context, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        // No tables are made where another database answers than the expected one.
        let needs = if self.shared.expected.get().is_some() { Needs::Nothing } else { Needs::Tables };
        self.run_where(needs, cx, call).await
    }

    async fn run_where<T, F>(self: &Arc<Self>, needs: Needs, cx: &Context, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        tokio::spawn(Arc::clone(self).serve(needs, cx.deadline, call, answer));
        answered.await.unwrap_or_else(|_| Err(unanswered()))
    }

    /// As [`Connector::run`], of a call that may be sent again: a close does not wait for it, but breaks it off.
    pub(super) async fn run_repeatable<T, F>(self: &Arc<Self>, cx: &Context, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (serving, mut closing) =
            (Arc::clone(self).serve(Needs::Tables, cx.deadline, call, answer), self.closing.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = serving => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
        answered.await.unwrap_or_else(|_| Err(if *self.closing.borrow() { Error::closed() } else { unanswered() }))
    }

    async fn serve<T, F>(self: Arc<Self>, needs: Needs, deadline: Instant, call: F, answer: oneshot::Sender<Result<T>>)
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let mut session = match self.session(needs, deadline).await {
            Ok(session) => session,
            Err(error) => return drop(answer.send(Err(error))),
        };
        let outcome = call(&mut session).await;
        // An open transaction is an error's; otherwise the call ended it.
        session.rollback().await;
        if session.is_clean() {
            // Before the answer: once the caller has that, its runtime may rest.
            session.end();
            return drop(answer.send(outcome));
        }
        // Nobody may be waiting any more.
        drop(answer.send(outcome));
        sweep::clean_up(&mut session).await;
        session.end();
    }

    async fn session(self: &Arc<Self>, needs: Needs, deadline: Instant) -> Result<Session> {
        if *self.closing.borrow() {
            return Err(Error::closed());
        }
        let began = Instant::now();
        if began >= deadline {
            return Err(timed_out(Doubt::None));
        }
        if needs == Needs::Tables {
            self.ready(deadline).await?;
        }
        let lease = self.pool.lease(deadline).await?;
        Ok(Session::new(lease, self.shared.clone(), [began, deadline]))
    }

    /// Waits until the schema is up to date. All who come meanwhile share one attempt; one that is over counts no more.
    async fn ready(self: &Arc<Self>, deadline: Instant) -> Result<()> {
        if self.ready.load(Ordering::Acquire) {
            self.begin_background();
            return Ok(());
        }
        let outcome = self.attempt().outcome;
        tokio::time::timeout_at(deadline.into(), outcome).await.map_err(|_| silent(Doubt::None))?
    }

    /// The attempt under way, or a new one.
    fn attempt(self: &Arc<Self>) -> Attempt {
        let mut attempt = lock(&self.attempt);
        match attempt.as_ref().filter(|attempt| attempt.goes_on()) {
            Some(attempt) => attempt.clone(),
            None => attempt.insert(self.begin_attempt()).clone(),
        }
    }

    fn begin_attempt(self: &Arc<Self>) -> Attempt {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let outcome = this.make_ready().await;
            if outcome.is_ok() {
                this.begin_background();
                this.ready.store(true, Ordering::Release);
            }
            outcome
        });
        let handle = task.abort_handle();
        let outcome = task.map(|ended| ended.unwrap_or_else(|ended| Err(broken_off(&ended)))).boxed().shared();
        Attempt { outcome, task: handle, runtime: Handle::current().id() }
    }

    async fn make_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut connection = self.pool.connect(deadline).await?;
        let migrated =
            tokio::time::timeout_at(deadline.into(), self.target.migrate(&mut connection, &self.shared.expected)).await;
        migrated.map_err(|_| silent(Doubt::None))??;
        // It was a connection of its own; what it held on the server ends with it.
        let _ = tokio::time::timeout_at(deadline.into(), connection.close()).await;
        Ok(())
    }

    /// Has somebody clean up in the background. Whoever did may have ended with its runtime.
    fn begin_background(&self) {
        let mut background = lock(&self.background);
        if !*self.closing.borrow() && background.as_ref().is_none_or(JoinHandle::is_finished) {
            let task = sweep::run(self.sweeper.clone(), Arc::clone(&self.pool), self.shared.clone());
            *background = Some(tokio::spawn(task));
        }
    }

    /// Says which database must answer from now on. Where it may be any, the one that answers may have no tables yet.
    pub(super) fn expect(&self, identity: Option<Identity>) {
        self.shared.expected.set(identity);
        if identity.is_none() {
            *lock(&self.attempt) = None;
            self.ready.store(false, Ordering::Release);
        }
    }

    /// Lets no further call in, and waits for those that are.
    pub(super) async fn close(&self, cx: &Context) -> Result<()> {
        self.closing.send_replace(true);
        self.end_background();
        if self.pool.close(cx.deadline).await {
            return Ok(());
        }
        Err(Error::unavailable("calls were still under way at the deadline of the close; they end by their own"))
    }

    fn end_background(&self) {
        if let Some(task) = lock(&self.background).take() {
            task.abort();
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.end_background();
    }
}

fn unanswered() -> Error {
    Error::internal("a call to the server ended without an answer")
}

/// What begins a transaction. Behind a transaction pooler nothing of a session lasts, so it carries the settings.
fn begin(config: &PostgresConfig) -> Text {
    let mut begin = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
    if config.transaction_pooler {
        for (name, value) in timeouts(config) {
            begin.push_str(&format!("; SET LOCAL {name} = {value}"));
        }
    }
    Text::from(begin)
}

/// Makes an error of an attempt that never came to an outcome.
fn broken_off(ended: &JoinError) -> Error {
    if ended.is_cancelled() {
        return Error::unavailable("the runtime ended while it connected to the server");
    }
    Error::internal("connecting to the server panicked")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

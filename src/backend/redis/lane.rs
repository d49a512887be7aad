//! Where calls wait for a connection, share it, and get a new one when it is gone: [`Lane`] and [`Lanes`].

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::{Cmd, Pipeline, Value as Reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::connect::Connector;
use super::error::{self, Effect};
use super::link::{Link, Peer};
use crate::config::RedisConfig;
use crate::contract::Context;
use crate::error::{Error, Result};

/// The pause after a failed attempt to connect, doubled with each further failure, and its longest. It is short enough
/// that a call with a deadline of a second sees a server that came back, and keeps a crowd of callers from hammering one
/// that did not.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// More calls than can be in flight at once; closing waits for all of these permits.
const PERMITS: u32 = 1 << 24;

/// The connections of a cache, and the door that closing shuts.
pub(super) struct Lanes {
    write: Arc<Lane>,
    read: Vec<Arc<Lane>>,
    turn: AtomicUsize,
    closed: AtomicBool,
    in_flight: Arc<Semaphore>,
}

/// Shows [`Lanes::close`] that a call is in flight.
pub(super) type InFlight = OwnedSemaphorePermit;

impl Lanes {
    /// Makes the lanes without connecting any: one for writes, the others for reads; a single one serves both.
    pub(super) fn new(config: &RedisConfig) -> Result<Self> {
        let connector = Arc::new(Connector::new(config)?);
        let writes = Arc::new(Writes::default());
        let lane = |is_for_writes| {
            let (connector, writes) = (Arc::clone(&connector), Arc::clone(&writes));
            Arc::new(Lane { connector, writes, is_for_writes, state: Mutex::default() })
        };
        let write = lane(true);
        let read = match config.max_connections {
            0 | 1 => vec![Arc::clone(&write)],
            several => (1..several).map(|_| lane(false)).collect(),
        };
        let in_flight = Arc::new(Semaphore::new(PERMITS as usize));
        Ok(Self { write, read, turn: AtomicUsize::new(0), closed: AtomicBool::new(false), in_flight })
    }

    /// Lets a call in, unless the cache is closed.
    pub(super) fn enter(&self) -> Result<InFlight> {
        let permit = Arc::clone(&self.in_flight).try_acquire_owned();
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::closed());
        }
        permit.map_err(|_| Error::unavailable("too many calls to Redis are in flight"))
    }

    /// Sends a command that writes, after all writes that were sent.
    pub(super) async fn write(&self, command: &Cmd, cx: &Context) -> Result<Reply> {
        self.write_link(cx).await?.send_one(command, Effect::Write, cx).await
    }

    /// Sends commands that write, after all writes that were sent.
    pub(super) async fn write_all(&self, pipeline: &Pipeline, cx: &Context) -> Result<Vec<Reply>> {
        self.write_link(cx).await?.send(pipeline, Effect::Write, cx).await
    }

    /// The connection for reads whose turn it is. What is read there comes after all writes that were acknowledged.
    pub(super) async fn read_link(&self, cx: &Context) -> Result<Arc<Link>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let lane = self.read.get(turn % self.read.len().max(1)).unwrap_or(&self.write);
        lane.link(cx).await
    }

    /// The connection for writes. What is read there comes after all writes that were sent, acknowledged or not.
    pub(super) async fn write_link(&self, cx: &Context) -> Result<Arc<Link>> {
        self.write.link(cx).await
    }

    /// Lets no further call in, waits for those in flight, and drops the connections.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if calls were still in flight at the deadline; they end by
    /// their own.
    pub(super) async fn close(&self, cx: &Context) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        let idle = cx.limit(self.in_flight.acquire_many(PERMITS)).await;
        self.write.close();
        self.read.iter().for_each(|lane| lane.close());
        match idle {
            Some(_) => Ok(()),
            None => {
                Err(Error::unavailable("calls were still in flight at the deadline of closing; they end by their own"))
            }
        }
    }
}

/// The server that the connection for writes leads to.
///
/// After a failover the address may lead to another server while connections to the former one stay open, and that answers reads with
/// what it knew. So each connection for writes begins an era, and one for reads is of use in a later era only if it leads to the same
/// server. One that was made in this era is of use wherever it leads: the address may stand for several servers.
#[derive(Debug, Default)]
struct Writes {
    era: AtomicU64,
    server: Mutex<Option<String>>,
}

impl Writes {
    /// The era, for a connection that is about to be made.
    fn era(&self) -> u64 {
        self.era.load(Ordering::SeqCst)
    }

    /// From now on writes go there.
    fn go_to(&self, link: &Link) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        *server = link.server().map(str::to_owned);
        link.era().store(self.era.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    }

    /// Whether a connection leads where the writes go, as far as that is known.
    fn agree_with(&self, link: &Link) -> bool {
        if link.era().load(Ordering::SeqCst) == self.era() {
            return true;
        }
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = server.is_some() && server.as_deref() == link.server();
        if is_same {
            link.era().store(self.era(), Ordering::SeqCst);
        }
        is_same
    }
}

/// One connection after the other.
struct Lane {
    connector: Arc<Connector>,
    writes: Arc<Writes>,
    is_for_writes: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    link: Option<Arc<Link>>,
    attempt: Option<Attempt>,
    /// What the server called the last connection that this lane had.
    last_peer: Option<Peer>,
    failures: u32,
    last_failure: Option<(Instant, Error)>,
}

/// An attempt to connect, which all callers share and none can cancel.
struct Attempt {
    outcome: Shared<BoxFuture<'static, Result<Arc<Link>>>>,
    task: AbortHandle,
}

impl Lane {
    /// The connection, made or replaced first if need be.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if there is none before the deadline. A failure answers
    /// those who waited for the attempt; the next caller makes another, after a short pause.
    async fn link(self: &Arc<Self>, cx: &Context) -> Result<Arc<Link>> {
        let outcome = {
            let mut state = self.state();
            if state.closed {
                return Err(Error::closed());
            }
            if let Some(link) = state.link.as_ref().filter(|link| link.is_usable() && self.writes.agree_with(link)) {
                return Ok(Arc::clone(link));
            }
            state.link = None;
            // An attempt whose runtime was shut down ended without a word; one that is over has cleared itself.
            let current = state.attempt.take().filter(|attempt| !attempt.task.is_finished());
            let current = current.unwrap_or_else(|| self.attempt(&state));
            state.attempt.insert(current).outcome.clone()
        };
        let asked = Instant::now();
        match cx.limit(outcome).await {
            Some(outcome) => outcome,
            None => {
                let waited_in_vain = || error::no_connection(asked.elapsed());
                Err(self.state().last_failure.as_ref().map_or_else(waited_in_vain, |(_, failure)| failure.clone()))
            }
        }
    }

    fn attempt(self: &Arc<Self>, state: &State) -> Attempt {
        let pause = state.last_failure.as_ref().map_or(Duration::ZERO, |(at, _)| {
            let doubled = FIRST_PAUSE.saturating_mul(1 << state.failures.min(8));
            doubled.min(LONGEST_PAUSE).saturating_sub(at.elapsed())
        });
        let task = tokio::spawn(Arc::clone(self).connect(pause, state.last_peer.clone()));
        let abort = task.abort_handle();
        let outcome = task.map(|outcome| outcome.unwrap_or_else(|_| Err(error::connecting_cut_off())));
        Attempt { outcome: outcome.boxed().shared(), task: abort }
    }

    async fn connect(self: Arc<Self>, pause: Duration, replaced: Option<Peer>) -> Result<Arc<Link>> {
        tokio::time::sleep(pause).await;
        let outcome = self.connect_where_writes_go(replaced.as_ref()).await.map(Arc::new);
        let mut state = self.state();
        state.attempt = None;
        match &outcome {
            Ok(_) if state.closed => {}
            Ok(link) => {
                state.last_peer = link.peer().cloned();
                state.link = Some(Arc::clone(link));
                state.failures = 0;
                state.last_failure = None;
            }
            Err(failure) => {
                state.failures = state.failures.saturating_add(1);
                state.last_failure = Some((Instant::now(), failure.clone()));
            }
        }
        outcome
    }

    /// Connects, once more where writes begin to go to another server meanwhile: whoever waits for it may have been told that one of them
    /// was applied there.
    async fn connect_where_writes_go(&self, replaced: Option<&Peer>) -> Result<Link> {
        loop {
            let era = self.writes.era();
            let link = self.connector.connect(replaced).await?;
            if self.is_for_writes {
                self.writes.go_to(&link);
                return Ok(link);
            }
            link.era().store(era, Ordering::SeqCst);
            if self.writes.agree_with(&link) {
                return Ok(link);
            }
        }
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.link = None;
        if let Some(attempt) = state.attempt.take() {
            attempt.task.abort();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

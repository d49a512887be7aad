//! The [`Connector`]: makes a session on first use and whenever the last one was lost, one attempt at a time.

use std::future::Ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ReconnectToServer, ServerAddr, ServerError};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use secrecy::ExposeSecret;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config::{JetstreamConfig, NatsAuth, NatsServer};
use crate::contract::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Clock;

use super::bucket::{self, value_limit};
use super::codec;
use super::error::{connect_failure, no_connection};
use super::fence::Fence;
use super::session::{Denied, Link, Session};

/// How often an idle connection is checked. The client gives it up at the third check without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// How long to wait after a failed attempt before the next, doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The largest message of a server that is not configured otherwise.
const DEFAULT_MAX_PAYLOAD: usize = 1 << 20;

/// An address that no server can have: port 0. See [`one_life`].
const NOWHERE: &str = "nats://127.0.0.1:0";

/// Makes sessions.
#[derive(Debug)]
pub(super) struct Connector {
    config: JetstreamConfig,
    clock: Clock,
    /// Which of all caches this is, for its fence.
    cache: u64,
    max_value_bytes: AtomicUsize,
    state: Mutex<State>,
}

type Attempt = Shared<BoxFuture<'static, Result<Arc<Session>>>>;

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    attempt: Option<(Attempt, AbortHandle)>,
    failures: u32,
    not_before: Option<Instant>,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("session", &self.session)
            .field("failures", &self.failures)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Checks the configuration; connects nothing.
    pub(super) fn new(config: JetstreamConfig, clock: Clock) -> Result<Self> {
        check(&config)?;
        let max_value_bytes = AtomicUsize::new(value_limit(DEFAULT_MAX_PAYLOAD, &config));
        let no_randomness =
            |error| Error::new(ErrorKind::Internal, "the system gave no random number").with_source(error);
        let cache = getrandom::u64().map_err(no_randomness)?;
        Ok(Self { config, clock, cache, max_value_bytes, state: Mutex::default() })
    }

    /// The clock that judges expiry.
    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The largest value: that of the last session, or what a default server takes.
    pub(super) fn max_value_bytes(&self) -> usize {
        self.max_value_bytes.load(Ordering::Relaxed)
    }

    /// The session, made if there is none that can be used.
    ///
    /// Callers that come while it is being made share the attempt; it runs on though they go away. A failure is not kept: the
    /// next call makes another attempt, after a short pause that grows with every failure.
    pub(super) async fn session(self: &Arc<Self>, cx: &Context) -> Result<Arc<Session>> {
        let attempt = {
            let mut state = self.state();
            if state.closed {
                return Err(Error::new(ErrorKind::Closed, "the cache was closed"));
            }
            if let Some(session) = state.session.as_ref().filter(|session| session.is_usable()) {
                return Ok(Arc::clone(session));
            }
            match &state.attempt {
                Some((attempt, _)) if attempt.peek().is_none() => attempt.clone(),
                _ => self.start(&mut state),
            }
        };
        let asked = Instant::now();
        cx.limit(attempt).await.unwrap_or_else(|| Err(no_connection(asked.elapsed())))
    }

    /// Gives up the session and any attempt to make one, for ever.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let session = state.session.take();
        if let Some((_, task)) = state.attempt.take() {
            task.abort();
        }
        drop(state);
        drop(session);
    }

    fn start(self: &Arc<Self>, state: &mut State) -> Attempt {
        // What a lost session still holds goes with it.
        state.session = None;
        let pause = state.not_before;
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            if let Some(moment) = pause {
                tokio::time::sleep_until(moment).await;
            }
            let outcome = this.connect().await;
            this.finish(&outcome);
            outcome
        });
        let abort = task.abort_handle();
        let stopped = |_| Err(Error::new(ErrorKind::Closed, "the cache was closed while it connected"));
        let attempt = task.map(move |joined| joined.unwrap_or_else(stopped)).boxed().shared();
        state.attempt = Some((attempt.clone(), abort));
        attempt
    }

    fn finish(&self, outcome: &Result<Arc<Session>>) {
        let mut state = self.state();
        match outcome {
            Ok(session) => {
                self.max_value_bytes.store(session.bucket.max_value_bytes, Ordering::Relaxed);
                state.session = (!state.closed).then(|| Arc::clone(session));
                (state.failures, state.not_before) = (0, None);
            }
            Err(_) => {
                let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(state.failures).unwrap_or(u32::MAX));
                state.failures = (state.failures + 1).min(16);
                state.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
            }
        }
        // The attempt is kept for those who wait for it; it must not keep the session alive.
        state.attempt = None;
    }

    /// Tries each server once.
    async fn connect(&self) -> Result<Arc<Session>> {
        // Refused where the application chose a provider before; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut failure = Error::config("no server is configured");
        for server in &self.config.servers {
            match self.connect_to(server).await {
                Ok(session) => return Ok(Arc::new(session)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, server: &NatsServer) -> Result<Session> {
        let addresses = [address(server)?, parse_address(NOWHERE)?];
        let denied = Denied::default();
        let options = one_life(self.options().await?, addresses.clone()).event_callback(watch_denials(&denied));
        let client = options.connect(addresses.as_slice()).await.map_err(connect_failure)?;
        let cx = Context::with_timeout(self.config.connection_timeout);
        let link = Link::new(client, denied).await?;
        let bucket = bucket::open(&link, &self.config, &cx).await?;
        let fence = Fence::new(
            [codec::fence(self.cache), codec::behind_fence(self.cache)].map(|subject| bucket.subject_of(&subject)),
        );
        Ok(Session::new(link, bucket, fence))
    }

    async fn options(&self) -> Result<ConnectOptions> {
        let options = ConnectOptions::new()
            .name("agent-storage")
            .connection_timeout(self.config.connection_timeout)
            .ping_interval(PING_INTERVAL);
        let mut options = match &self.config.auth {
            NatsAuth::None => options,
            NatsAuth::User { username, password } => {
                options.user_and_password(username.clone(), password.expose_secret().to_owned())
            }
            NatsAuth::Token(token) => options.token(token.expose_secret().to_owned()),
            NatsAuth::NkeySeed(seed) => options.nkey(seed.expose_secret().to_owned()),
            NatsAuth::CredentialsFile(path) => options.credentials_file(path).await.map_err(|error| {
                Error::config(format!("cannot use the credentials file {}", path.display())).with_source(error)
            })?,
        };
        if let Some(files) = self.config.tls.files() {
            options = options.require_tls(true);
            if let Some(authorities) = &files.ca_file {
                options = options.add_root_certificates(authorities.clone());
            }
            if let Some((certificate, key)) = files.cert_file.clone().zip(files.key_file.clone()) {
                options = options.add_client_certificate(certificate, key);
            }
        }
        Ok(options)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes options for a client that connects to a server once, and ends when that connection is lost.
///
/// The client has no such option: it reconnects at least once, and then sends what was handed to it meanwhile. So its second
/// attempt is led to an address where nobody can be, and there is no third.
fn one_life(options: ConnectOptions, [address, nowhere]: [ServerAddr; 2]) -> ConnectOptions {
    let first = Mutex::new(Some(address));
    let next = move |_, _| {
        let address = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let addr = address.unwrap_or_else(|| nowhere.clone());
        std::future::ready(Some(ReconnectToServer { addr, delay: Some(Duration::ZERO) }))
    };
    options.ignore_discovered_servers().max_reconnects(1).reconnect_to_server_callback(next)
}

/// Makes a callback that takes note when the server denies us a subject.
fn watch_denials(denied: &Denied) -> impl Fn(Event) -> Ready<()> + Send + Sync + 'static {
    let denied = Arc::clone(denied);
    move |event| {
        let is_denial = |text: &str| text.to_ascii_lowercase().starts_with("permissions violation");
        if matches!(event, Event::ServerError(ServerError::Other(text)) if is_denial(&text)) {
            denied.store(true, Ordering::Relaxed);
        }
        std::future::ready(())
    }
}

fn address(server: &NatsServer) -> Result<ServerAddr> {
    let (host, port) = (&server.host, server.port);
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    parse_address(&if is_bare_ipv6 { format!("nats://[{host}]:{port}") } else { format!("nats://{host}:{port}") })
}

fn parse_address(text: &str) -> Result<ServerAddr> {
    let invalid =
        |error| Error::config("the address of a NATS server is not valid; check host and port").with_source(error);
    text.parse().map_err(invalid)
}

fn check(config: &JetstreamConfig) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    // A server keeps a stream in a folder of its name.
    if config.bucket.is_empty() || config.bucket.len() > 128 || !config.bucket.bytes().all(allowed) {
        return Err(Error::config("a bucket's name has 1 to 128 letters, digits, `_` and `-`"));
    }
    if !(1..=5).contains(&config.replicas) {
        return Err(Error::config("a bucket has 1 to 5 replicas"));
    }
    if config.servers.is_empty() {
        return Err(Error::config("name at least one NATS server"));
    }
    config.servers.iter().try_for_each(|server| address(server).map(drop))
}

//! One connection that any number of calls use at once: [`Link`].

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value as Reply};

use super::error::{self, Effect};
use crate::contract::Context;
use crate::error::Result;

/// How many calls in a row must have waited in vain, and since when, for a connection to count as silent. A frozen server
/// and a black hole look alike: the socket stays open, and the client library would keep it.
const SILENT_CALLS: u32 = 3;
const SILENT_FOR: Duration = Duration::from_millis(500);

/// How long a connection to a replica is kept. A primary that was demoted answers as one; its address may lead to the new
/// primary by now.
const DEMOTED_AFTER: Duration = Duration::from_secs(1);

/// One connection to the server.
///
/// The client library matches replies to commands by their order and drops those that nobody waits for, so a call that
/// was given up never answers another.
pub(super) struct Link {
    connection: MultiplexedConnection,
    health: Arc<Health>,
    peer: Option<Peer>,
    /// Which server it leads to, where it may be asked; another one after each restart.
    server: Option<String>,
    /// How many connections for writes there had been when this one was last known to lead where they did; the lanes keep it.
    era: AtomicU64,
    opened: Instant,
    version: OnceLock<String>,
    /// Whether the keys that were last asked for were all there.
    found_all: AtomicBool,
    /// Whether each key must be asked for in a command of its own.
    apart: AtomicBool,
}

/// What the server calls one of our connections.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    id: String,
    address: String,
}

/// Whether a connection is still of use.
#[derive(Debug, Default)]
pub(super) struct Health {
    retired: AtomicBool,
    unanswered: AtomicU32,
    silent_since: Mutex<Option<Instant>>,
}

impl Link {
    /// Learns our name at the server and its own, and has it drop the connection that this one replaces.
    ///
    /// The server may hold commands of that connection that it has not run yet, as after a freeze. Were they to run later,
    /// an old write could end up over a newer one. Number and address together name it beyond doubt, also if the server was
    /// restarted and counts anew. Where access rules forbid it, the server merely finds that connection closed.
    pub(super) async fn introduce(
        mut connection: MultiplexedConnection,
        health: Arc<Health>,
        replaced: Option<&Peer>,
    ) -> Result<Self> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("CLIENT").arg("INFO").cmd("INFO").arg("server");
        if let Some(Peer { id, address }) = replaced {
            pipeline.cmd("CLIENT").arg("KILL").arg("ID").arg(id).arg("ADDR").arg(address);
        }
        let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        let mut texts = replies.map_err(error::connecting)?.into_iter().map(redis::from_redis_value::<String>);
        let mut text = || texts.next().and_then(|text| text.ok());
        let peer = text().as_deref().and_then(Peer::parse);
        let server = text().as_deref().and_then(run_id);
        let era = AtomicU64::new(0);
        let (opened, version) = (Instant::now(), OnceLock::new());
        let (found_all, apart) = (AtomicBool::new(true), AtomicBool::new(false));
        Ok(Self { connection, health, peer, server, era, opened, version, found_all, apart })
    }

    /// Sends commands in a row and awaits a reply to each; an error of the server is the reply to its command alone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if nothing was sent, or nothing would have been changed;
    /// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if the replies to a write were lost.
    pub(super) async fn send(&self, pipeline: &Pipeline, effect: Effect, cx: &Context) -> Result<Vec<Reply>> {
        let mut connection = self.connection.clone();
        let replies = connection.send_packed_commands(pipeline, 0, pipeline.len());
        self.watch(replies, |replies| replies.iter().any(is_read_only), effect, cx).await
    }

    /// Sends one command and awaits its reply, which an error of the server is too.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub(super) async fn send_one(&self, command: &Cmd, effect: Effect, cx: &Context) -> Result<Reply> {
        let mut connection = self.connection.clone();
        self.watch(connection.send_packed_command(command), is_read_only, effect, cx).await
    }

    /// Awaits what was not sent yet, and judges the connection by what comes of it.
    async fn watch<T: Send>(
        &self,
        replies: impl Future<Output = RedisResult<T>> + Send,
        has_read_only: impl FnOnce(&T) -> bool + Send,
        effect: Effect,
        cx: &Context,
    ) -> Result<T> {
        let sent = Instant::now();
        if sent >= cx.deadline {
            return Err(error::not_sent());
        }
        match cx.limit(replies).await {
            Some(Ok(replies)) => {
                self.health.answered();
                if has_read_only(&replies) && self.opened.elapsed() >= DEMOTED_AFTER {
                    self.health.retire();
                }
                Ok(replies)
            }
            Some(Err(failure)) => {
                self.health.retire();
                Err(error::connection_lost(failure, effect))
            }
            None => {
                self.health.unanswered(sent);
                Err(error::no_reply(effect, sent.elapsed()))
            }
        }
    }

    /// Whether calls may still be sent here.
    pub(super) fn is_usable(&self) -> bool {
        !self.health.retired.load(Ordering::SeqCst)
    }

    /// What the server calls this connection, if it says.
    pub(super) const fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Which server it leads to, if that says.
    pub(super) fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The number of the connection for writes that it was last known to agree with.
    pub(super) const fn era(&self) -> &AtomicU64 {
        &self.era
    }

    /// Whether one command may ask for several keys, and they are likely to be all there.
    pub(super) fn may_ask_together(&self) -> bool {
        self.found_all.load(Ordering::Relaxed) && !self.apart.load(Ordering::Relaxed)
    }

    /// Has each key asked for by itself from now on.
    pub(super) fn ask_apart(&self) {
        self.apart.store(true, Ordering::Relaxed);
    }

    /// Takes note whether all keys were there.
    pub(super) fn found(&self, all: bool) {
        self.found_all.store(all, Ordering::Relaxed);
    }

    /// The server's version, once it was asked for.
    pub(super) const fn version(&self) -> &OnceLock<String> {
        &self.version
    }
}

impl Peer {
    /// Reads the line that `CLIENT INFO` answers: `id=3 addr=127.0.0.1:50000 ...`.
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| {
            let field = line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            field.map(str::to_owned)
        };
        Some(Self { id: field("id")?, address: field("addr")? })
    }
}

impl Health {
    /// Takes the connection out of use; calls that wait on it may still be answered.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }

    fn answered(&self) {
        if self.unanswered.swap(0, Ordering::SeqCst) > 0 {
            *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn unanswered(&self, sent: Instant) {
        let mut since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = self.unanswered.fetch_add(1, Ordering::SeqCst) + 1;
        if since.get_or_insert(sent).elapsed() >= SILENT_FOR && calls >= SILENT_CALLS {
            self.retire();
        }
    }
}

/// What a server calls itself from its start to its end, within the answer to `INFO server`.
fn run_id(info: &str) -> Option<String> {
    info.lines().find_map(|line| line.trim_end().strip_prefix("run_id:")).map(str::to_owned)
}

fn is_read_only(reply: &Reply) -> bool {
    matches!(reply, Reply::ServerError(error) if error::is_read_only(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_server_is_read() {
        let peer = Peer::parse("id=24 addr=127.0.0.1:46842 laddr=127.0.0.1:7391 fd=8 name= db=0\n").unwrap();
        assert_eq!((peer.id.as_str(), peer.address.as_str()), ("24", "127.0.0.1:46842"));
        assert!(Peer::parse("").is_none());
        assert_eq!(
            run_id("# Server\r\nredis_version:7.0.15\r\nrun_id:5a1b\r\ntcp_port:1\r\n").as_deref(),
            Some("5a1b")
        );
        assert_eq!(run_id(""), None);
    }

    #[test]
    fn a_connection_is_silent_only_after_several_calls_over_some_time() {
        let long_ago = Instant::now().checked_sub(SILENT_FOR).unwrap();
        let health = Health::default();
        (0..100).for_each(|_| health.unanswered(Instant::now()));
        assert!(!health.retired.load(Ordering::SeqCst), "a burst of short deadlines is no silence");
        health.answered();
        (1..SILENT_CALLS).for_each(|_| health.unanswered(long_ago));
        assert!(!health.retired.load(Ordering::SeqCst));
        health.unanswered(long_ago);
        assert!(health.retired.load(Ordering::SeqCst));
    }
}

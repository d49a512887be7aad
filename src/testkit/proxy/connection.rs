//! One connection through the proxy: two pumps, one a direction, which look at the rule before each chunk they pass on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::fault::{Direction, NetworkFault, Point};
use super::rule::{Rule, Shared};

/// The most bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// A client that was accepted, and the server it wants.
pub(super) struct Connection {
    shared: Arc<Shared>,
    resets: watch::Receiver<u64>,
    client: TcpStream,
    server: SocketAddr,
}

/// The connection is to be reset on both sides.
struct Reset;

impl Connection {
    /// Takes a connection; a reset from now on ends it.
    pub(super) fn new(shared: Arc<Shared>, client: TcpStream, server: SocketAddr) -> Self {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let resets = shared.resets.subscribe();
        Self { shared, resets, client, server }
    }

    /// Carries the traffic until both sides are done, or one or the proxy resets it.
    pub(super) async fn run(mut self) {
        let server = tokio::select! {
            biased;
            _ = self.resets.changed() => None,
            server = TcpStream::connect(self.server) => server.ok(),
        };
        let Some(mut server) = server else { return reset(&self.client) };
        let ended = self.carry(&mut server).await;
        if ended.is_err() {
            reset(&self.client);
            reset(&server);
        }
    }

    async fn carry(&mut self, server: &mut TcpStream) -> Result<(), Reset> {
        // What waits for more to be sent along would look like a latency nobody asked for.
        server.set_nodelay(true).map_err(|_| Reset)?;
        self.client.set_nodelay(true).map_err(|_| Reset)?;
        let silent_under = AtomicU64::new(0);
        let (from_client, to_client) = self.client.split();
        let (from_server, to_server) = server.split();
        let up = Pump::new(Direction::ToServer, from_client, to_server, &self.shared, &silent_under);
        let down = Pump::new(Direction::ToClient, from_server, to_client, &self.shared, &silent_under);
        tokio::select! {
            biased;
            _ = self.resets.changed() => Err(Reset),
            ended = async { tokio::try_join!(up.run(), down.run()) } => ended.map(|_| ()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Makes the system send a reset when the stream is dropped.
fn reset(stream: &TcpStream) {
    // It fails only for a connection that is already gone.
    let _ = stream.set_zero_linger();
}

/// How a side stopped sending.
#[derive(Clone, Copy)]
enum End {
    Finished,
    Broken,
}

/// One direction of a connection.
struct Pump<'a> {
    direction: Direction,
    reader: ReadHalf<'a>,
    writer: WriteHalf<'a>,
    shared: &'a Shared,
    rules: watch::Receiver<Arc<Rule>>,
    /// The number of the rule under which this connection lost bytes; 0 while it lost none.
    silent_under: &'a AtomicU64,
    /// What was read and not yet passed on.
    pending: BytesMut,
    end: Option<End>,
    /// Whether the receiver was told that nothing more comes.
    finished: bool,
    progress: Progress,
}

impl<'a> Pump<'a> {
    fn new(
        direction: Direction,
        reader: ReadHalf<'a>,
        writer: WriteHalf<'a>,
        shared: &'a Shared,
        silent_under: &'a AtomicU64,
    ) -> Self {
        let rules = shared.rule.subscribe();
        let (pending, progress) = (BytesMut::new(), Progress::default());
        Self { direction, reader, writer, shared, rules, silent_under, pending, end: None, finished: false, progress }
    }

    async fn run(mut self) -> Result<(), Reset> {
        loop {
            // Looked at after each read, so that what was read before a change goes by the rule after it.
            let rule = Arc::clone(&self.rules.borrow_and_update());
            let silent_under = self.silent_under.load(Ordering::SeqCst);
            if silent_under != 0 {
                if rule.number > silent_under {
                    return Err(Reset);
                }
                self.swallow().await;
            } else if rule.fault == NetworkFault::Stall {
                self.changed().await;
            } else if !self.pending.is_empty() {
                self.pass(&rule).await?;
            } else if let Some(end) = self.end {
                match end {
                    _ if rule.fault == NetworkFault::BlackHole => self.changed().await,
                    End::Broken => return Err(Reset),
                    End::Finished => return self.finish().await,
                }
            } else {
                if rule.fault == NetworkFault::HalfClose(self.direction) {
                    self.finish().await?;
                }
                self.read().await;
            }
        }
    }

    /// Passes on what is pending, or as much of it as the rule lets through before it is looked at again.
    async fn pass(&mut self, rule: &Rule) -> Result<(), Reset> {
        match &rule.fault {
            _ if self.finished => self.pending.clear(),
            NetworkFault::HalfClose(direction) if *direction == self.direction => self.finish().await?,
            NetworkFault::BlackHole => self.silent_under.store(rule.number, Ordering::SeqCst),
            NetworkFault::Latency(delay) => {
                if self.undisturbed_for(*delay).await {
                    self.write(self.pending.len()).await?;
                }
            }
            NetworkFault::Slice { bytes, pause } => {
                self.write(self.pending.len().min((*bytes).max(1))).await?;
                self.undisturbed_for(*pause).await;
            }
            NetworkFault::CutAt(direction, point) | NetworkFault::LoseFrom(direction, point)
                if *direction == self.direction =>
            {
                let found = self.progress.advance(rule.number, point, &self.pending);
                self.write(found.unwrap_or(self.pending.len())).await?;
                if found.is_some() {
                    self.hit(rule)?;
                }
            }
            _ => self.write(self.pending.len()).await?,
        }
        Ok(())
    }

    fn hit(&self, rule: &Rule) -> Result<(), Reset> {
        match (self.shared.hit(rule), &rule.fault) {
            // Somebody changed the rule meanwhile; the rest goes by the new one.
            (None, _) => Ok(()),
            (Some(number), NetworkFault::LoseFrom(..)) => {
                self.silent_under.store(number, Ordering::SeqCst);
                Ok(())
            }
            (Some(_), _) => Err(Reset),
        }
    }

    /// Reads until there is something pending, the sender ends, or the rule changes.
    async fn read(&mut self) {
        self.pending.reserve(CHUNK);
        tokio::select! {
            biased;
            _ = self.rules.changed() => {}
            read = self.reader.read_buf(&mut self.pending) => match read {
                Ok(0) => self.end = Some(End::Finished),
                Ok(_) => {}
                Err(_) => self.end = Some(End::Broken),
            },
        }
    }

    /// Takes what comes and passes nothing on.
    async fn swallow(&mut self) {
        self.shared.lost.fetch_add(self.pending.len() as u64, Ordering::SeqCst);
        self.pending.clear();
        match self.end {
            None => self.read().await,
            Some(_) => self.changed().await,
        }
    }

    async fn write(&mut self, length: usize) -> Result<(), Reset> {
        let bytes = self.pending.split_to(length);
        self.writer.write_all(&bytes).await.map_err(|_: io::Error| Reset)
    }

    async fn finish(&mut self) -> Result<(), Reset> {
        if !std::mem::replace(&mut self.finished, true) {
            self.writer.shutdown().await.map_err(|_| Reset)?;
        }
        Ok(())
    }

    async fn changed(&mut self) {
        // It fails only when the proxy is gone, and this pump with it.
        let _ = self.rules.changed().await;
    }

    /// Waits; false if the rule changed meanwhile.
    async fn undisturbed_for(&mut self, delay: Duration) -> bool {
        tokio::time::timeout(delay, self.changed()).await.is_err()
    }
}

/// How far one direction of a connection has come under a rule.
#[derive(Default)]
struct Progress {
    rule: u64,
    passed: u64,
    /// The last bytes that passed: one fewer than the pattern has.
    tail: Vec<u8>,
}

impl Progress {
    /// Says where in a chunk the point lies, and else counts the chunk as passed.
    fn advance(&mut self, rule: u64, point: &Point, chunk: &[u8]) -> Option<usize> {
        if self.rule != rule {
            *self = Self { rule, ..Self::default() };
        }
        match point {
            Point::Bytes(limit) => {
                let left = usize::try_from(limit.saturating_sub(self.passed)).unwrap_or(usize::MAX);
                self.passed = self.passed.saturating_add(chunk.len() as u64);
                (left <= chunk.len()).then_some(left)
            }
            Point::Pattern(pattern) if pattern.is_empty() => None,
            Point::Pattern(pattern) => {
                let before = self.tail.len();
                self.tail.extend_from_slice(chunk);
                let found = self.tail.windows(pattern.len()).position(|window| window == pattern);
                self.tail.drain(..self.tail.len().saturating_sub(pattern.len() - 1));
                found.map(|position| position.saturating_sub(before))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_torn_in_two_is_met_in_its_second_half() {
        let mut progress = Progress::default();
        let point = Point::Pattern(b"COMMIT".to_vec());
        assert_eq!(progress.advance(1, &point, b"..COM"), None);
        assert_eq!(progress.advance(1, &point, b"MIT.."), Some(0));
    }

    #[test]
    fn a_pattern_is_met_where_it_begins() {
        let mut progress = Progress::default();
        let point = Point::Pattern(b"bc".to_vec());
        assert_eq!(progress.advance(1, &point, b"aaa"), None);
        assert_eq!(progress.advance(1, &point, b"aabcbc"), Some(2));
    }

    #[test]
    fn bytes_are_counted_anew_under_each_rule() {
        let mut progress = Progress::default();
        assert_eq!(progress.advance(1, &Point::Bytes(5), b"abc"), None);
        assert_eq!(progress.advance(1, &Point::Bytes(5), b"abc"), Some(2));
        assert_eq!(progress.advance(2, &Point::Bytes(5), b"abc"), None);
    }
}

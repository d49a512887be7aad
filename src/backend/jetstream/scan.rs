//! Walking over the keys of a bucket: an ephemeral consumer that delivers headers only, in the order of sequences.
//!
//! A bucket keeps one message a subject, so that the stream from some sequence on is every key that was last written since. A key
//! that is written during the walk moves to its end, and comes (again) there.
//!
//! The end itself is asked of the stream ([`tail`]). What a consumer says is left falls short while keys are overwritten: the
//! server takes off the old message before it adds the new one (seen with nats-server 2.15.1).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull::Config as Consumer;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, IntoConsumerConfig};
use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use serde::Serialize;

use crate::contract::Context;
use crate::error::{Error, Result};
use crate::key::Key;

use super::codec::Filter;
use super::error::{Failure, api_failure, lost, publish_failure};
use super::record::Record;
use super::session::Session;
use super::tail::{self, Tail};

/// The most messages asked for at once.
pub(super) const BATCH: u64 = 4096;

/// How long the server keeps a consumer that nobody asks.
pub(super) const CONSUMER_IDLE: Duration = Duration::from_secs(30);

/// How long the removal of a consumer may take.
const REMOVAL: Duration = Duration::from_secs(5);

/// How long no message may come before the server is asked again, if the way there and back is short. It lowers what it was
/// asked for to what it has at that moment, and does not say so: where messages went away since it last told how many are left,
/// fewer come than were asked for.
const SILENCE: Duration = Duration::from_millis(200);

/// A message on the way.
pub(super) struct Seen {
    pub(super) sequence: u64,
    /// `None` where the subject is no key's.
    pub(super) key: Option<Key>,
    pub(super) record: Record,
}

/// A walk over the keys beneath a filter.
pub(super) struct Scan {
    session: Arc<Session>,
    consumer: EphemeralConsumer,
    inbox: String,
    replies: Subscriber,
    filter: String,
    /// The sequence of the last message.
    last: u64,
    delivered: u64,
    asked: u64,
    pending: u64,
    /// How long no message may come: [`SILENCE`], or more where the server is far away.
    silence: Duration,
    /// From when the consumer had no more: what comes after its last message, and is not looked at yet.
    tail: Option<VecDeque<Seen>>,
    is_tail_whole: bool,
}

impl Scan {
    /// Begins after a sequence, 0 for the beginning.
    pub(super) async fn after(session: &Arc<Session>, filter: &Filter, sequence: u64, cx: &Context) -> Result<Self> {
        cx.limit(Self::begin(session, filter, sequence, cx)).await.unwrap_or_else(|| Err(late()))
    }

    async fn begin(session: &Arc<Session>, filter: &Filter, sequence: u64, cx: &Context) -> Result<Self> {
        #[derive(Serialize)]
        struct Create<'b> {
            stream_name: &'b str,
            config: async_nats::jetstream::consumer::Config,
            action: &'static str,
        }
        let client = session.client();
        let inbox = client.new_inbox();
        let name = inbox.rsplit('.').next().unwrap_or_default().to_owned();
        let stream = session.bucket.stream();
        let filter = session.bucket.filter(filter);
        let config = Consumer {
            name: Some(name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 },
            ack_policy: AckPolicy::None,
            filter_subject: filter.clone(),
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: CONSUMER_IDLE,
            ..Consumer::default()
        };
        let request = Create { stream_name: stream, config: config.into_consumer_config(), action: "create" };
        // The guard first: a consumer whose creation is not answered is removed too.
        let consumer = EphemeralConsumer { client: client.clone(), stream: stream.to_owned(), name };
        let operation = format!("CONSUMER.CREATE.{stream}.{}", consumer.name);
        let began = Instant::now();
        let info = session.api::<_, Info>(&operation, Some(&request), cx).await.map_err(Failure::of_read)?;
        let info = info.map_err(api_failure)?;
        let silence = SILENCE.max(began.elapsed() * 4);
        let replies = client.subscribe(inbox.clone()).await.map_err(|error| lost().with_source(error))?;
        let session = Arc::clone(session);
        let pending = info.num_pending;
        Ok(Self {
            session,
            consumer,
            inbox,
            replies,
            filter,
            last: sequence,
            delivered: 0,
            asked: 0,
            pending,
            silence,
            tail: None,
            is_tail_whole: false,
        })
    }

    /// How many messages are left, as far as the server has said.
    pub(super) const fn pending(&self) -> u64 {
        self.pending
    }

    /// Whether the walk can go on later: nothing is on the way that would grow old.
    pub(super) fn is_at_rest(&self) -> bool {
        self.asked == 0 && self.tail.is_none() && self.session.is_usable()
    }

    /// Whether it walks on this connection.
    pub(super) fn is_on(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.session, session)
    }

    /// The next message; `None` at the end. The server is asked for at most so many at once.
    pub(super) async fn next(&mut self, wanted: u64, cx: &Context) -> Result<Option<Seen>> {
        cx.limit(self.advance(wanted, cx)).await.unwrap_or_else(|| Err(late()))
    }

    /// Whether no message comes after the last one. So many are wanted if some do.
    pub(super) async fn is_at_end(&mut self, wanted: u64, cx: &Context) -> Result<bool> {
        if self.pending > 0 || self.tail.as_ref().is_some_and(|tail| !tail.is_empty()) {
            return Ok(false);
        }
        if self.is_tail_whole {
            return Ok(true);
        }
        if self.session.bucket.is_replicated {
            let at_end = !tail::is_any_after(&self.session, &self.filter, self.last, cx).await?;
            if at_end {
                self.asked = 0;
            }
            return Ok(at_end);
        }
        let Tail { messages, is_whole } = tail::after(&self.session, &self.filter, self.last, wanted, cx).await?;
        self.is_tail_whole = is_whole;
        let seen = messages.into_iter().map(|(subject, record)| Seen {
            sequence: record.sequence,
            key: self.session.bucket.key(&subject),
            record,
        });
        let tail: VecDeque<_> = seen.collect();
        let at_end = is_whole && tail.is_empty();
        self.tail = Some(tail);
        Ok(at_end)
    }

    async fn advance(&mut self, wanted: u64, cx: &Context) -> Result<Option<Seen>> {
        loop {
            if self.is_at_end(wanted, cx).await? {
                return Ok(None);
            }
            if let Some(tail) = &mut self.tail {
                let Some(seen) = tail.pop_front() else { continue };
                self.last = seen.sequence;
                return Ok(Some(seen));
            }
            if self.asked == 0 {
                self.ask(wanted).await?;
            }
            let Ok(message) = tokio::time::timeout(self.silence, self.replies.next()).await else {
                (self.asked, self.pending) = (0, 0);
                continue;
            };
            let message = message.ok_or_else(lost)?;
            match message.status {
                None => return self.take(message).map(Some),
                // What was counted went away meanwhile.
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => (self.asked, self.pending) = (0, 0),
                Some(status) => {
                    return Err(Error::unavailable(format!(
                        "the server broke off a listing with status {}",
                        status.as_u16()
                    )));
                }
            }
        }
    }

    async fn ask(&mut self, wanted: u64) -> Result<()> {
        #[derive(Serialize)]
        struct Ask {
            batch: u64,
            no_wait: bool,
        }
        if !self.session.is_connected() {
            return Err(lost());
        }
        self.asked = self.pending.min(wanted).clamp(1, BATCH);
        // Without an expiry: with one, `no_wait` waits for it where nothing is left.
        let ask = Ask { batch: self.asked, no_wait: true };
        let payload = serde_json::to_vec(&ask)
            .map_err(|error| Error::new(crate::ErrorKind::Internal, "cannot write a request").with_source(error))?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.consumer.stream, self.consumer.name);
        let client = self.session.client();
        client.publish_with_reply(subject, self.inbox.clone(), payload.into()).await.map_err(publish_failure)
    }

    fn take(&mut self, message: Message) -> Result<Seen> {
        let position = message.reply.as_deref().and_then(Position::parse);
        let position = position.ok_or_else(|| Error::unavailable("the server's answer is not understood"))?;
        self.delivered += 1;
        self.asked = self.asked.saturating_sub(1);
        self.pending = position.pending;
        self.last = position.sequence;
        if position.delivered != self.delivered {
            return Err(Error::unavailable("the server's answers did not all arrive"));
        }
        Ok(Seen {
            sequence: position.sequence,
            key: self.session.bucket.key(&message.subject),
            record: Record::new(position.sequence, message.headers.as_ref(), message.payload),
        })
    }
}

/// What a delivered message's reply subject says: `$JS.ACK.<stream>.<consumer>.<times>.<sequence>.<delivered>.<time>.<pending>`,
/// and in newer servers domain and account before the stream, and a random token at the end (NATS ADR-15).
struct Position {
    sequence: u64,
    delivered: u64,
    pending: u64,
}

impl Position {
    fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.split('.').collect();
        let first = match tokens.len() {
            9 => 5,
            11.. => 7,
            _ => return None,
        };
        let number = |at: usize| tokens.get(at).and_then(|token| token.parse().ok());
        Some(Self { sequence: number(first)?, delivered: number(first + 1)?, pending: number(first + 3)? })
    }
}

/// A consumer that is removed when it is dropped; one whose removal is lost ends by itself.
struct EphemeralConsumer {
    client: Client,
    stream: String,
    name: String,
}

impl Drop for EphemeralConsumer {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.stream, self.name);
        let client = self.client.clone();
        runtime.spawn(tokio::time::timeout(REMOVAL, async move {
            // Nobody waits for the answer: it goes to an inbox that nobody reads.
            let sent = client.publish_with_reply(subject, client.new_inbox(), "".into()).await;
            // The last handle of a client must not go before what it sent has left.
            if sent.is_ok() {
                let _ = client.flush().await;
            }
        }));
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("consumer", &self.consumer).field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl fmt::Debug for EphemeralConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EphemeralConsumer({})", self.name)
    }
}

fn late() -> Error {
    Error::unavailable("the server did not answer before the deadline")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_reply_subject_are_understood() {
        for reply in ["$JS.ACK.KV_b.name.1.42.3.1795166750788672570.7", "$JS.ACK._.hash.KV_b.name.1.42.3.1795.7.random"]
        {
            let position = Position::parse(reply).unwrap();
            assert_eq!((position.sequence, position.delivered, position.pending), (42, 3, 7), "{reply}");
        }
        for reply in ["", "$JS.ACK.KV_b", "$JS.ACK.KV_b.name.1.x.3.1.7"] {
            assert!(Position::parse(reply).is_none(), "{reply}");
        }
    }
}

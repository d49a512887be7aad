//! The [`Session`]: one connection, used until it is lost and never again.
//!
//! A client that reconnects by itself keeps what was handed to it and sends it when the server is back, long after its caller
//! was told that it failed. So a session's client never reconnects: what a lost connection had not sent yet is gone with it.
//! The session routes replies itself, so that a request whose reply never comes leaves nothing behind.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_nats::connection::State;
use async_nats::jetstream::response::Response;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use foldhash::quality::RandomState;
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::AbortHandle;

use crate::contract::Context;
use crate::error::{Error, Outage, Result};

use super::bucket::Bucket;
use super::error::{Failure, lost, no_responders, publish_failure, silence};
use super::fence::Fence;
use super::unanswered::Unanswered;

/// The most requests that wait for their replies at once; further ones queue. The client buffers 65536 replies.
const IN_FLIGHT: usize = 8192;

/// One connection and what is known of the server at its other end.
pub(super) struct Session {
    link: Link,
    /// The bucket, made or checked on this connection.
    pub(super) bucket: Bucket,
    /// What keeps earlier connections from writing.
    pub(super) fence: Fence,
}

impl Session {
    /// Takes a connection on which the bucket was made or checked.
    pub(super) const fn new(link: Link, bucket: Bucket, fence: Fence) -> Self {
        Self { link, bucket, fence }
    }
}

impl std::ops::Deref for Session {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("bucket", &self.bucket)
            .field("fence", &self.fence)
            .field("usable", &self.is_usable())
            .finish_non_exhaustive()
    }
}

/// One connection: requests and their replies.
pub(super) struct Link {
    client: Client,
    version: String,
    inbox: String,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    places: Semaphore,
    retired: AtomicBool,
    denied: Denied,
    router: AbortHandle,
    /// The writes that were given up.
    pub(super) unanswered: Unanswered,
}

/// A message to be stored.
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

type Reply = oneshot::Receiver<Message>;

/// Whether the server said of a connection that a subject is not allowed. It does not answer such a request.
pub(super) type Denied = Arc<AtomicBool>;

impl Link {
    /// Starts to route replies on a connection that was just made.
    pub(super) async fn new(client: Client, denied: Denied) -> Result<Self> {
        let inbox = client.new_inbox();
        let replies = client.subscribe(format!("{inbox}.*")).await;
        let replies = replies.map_err(|error| lost().with_source(error))?;
        let waiting = Arc::new(Waiting::default());
        let router = tokio::spawn(route(replies, Arc::clone(&waiting))).abort_handle();
        Ok(Self {
            version: client.server_info().version,
            client,
            inbox,
            waiting,
            next: AtomicU64::new(0),
            places: Semaphore::new(IN_FLIGHT),
            retired: AtomicBool::new(false),
            denied,
            router,
            unanswered: Unanswered::default(),
        })
    }

    /// Whether requests may still be sent.
    pub(super) fn is_usable(&self) -> bool {
        self.is_connected() && !self.retired.load(Ordering::Relaxed)
    }

    /// Whether the connection stands, as far as the client knows.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Has the next call make another session, because the bucket must be looked at anew.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether the server denied us a subject.
    pub(super) fn is_denied(&self) -> bool {
        self.denied.load(Ordering::Relaxed)
    }

    /// The client, for what is not a plain request.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// The server's version.
    pub(super) fn server_version(&self) -> &str {
        &self.version
    }

    /// The largest message the server takes, headers included.
    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Sends a message and waits for its reply until the deadline.
    pub(super) async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        cx: &Context,
    ) -> Result<Message, Failure> {
        if cx.is_expired() {
            return Err(Failure::NotSent(Error::unavailable("the deadline passed before the request was sent")));
        }
        let _place = match cx.limit(self.places.acquire()).await {
            Some(Ok(place)) => place,
            Some(Err(_)) => return Err(Failure::NotSent(lost())),
            None => return Err(Failure::NotSent(Error::unavailable("too many requests wait for the server"))),
        };
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let reply = self.waiting.register(token)?;
        // Giving up frees the place, wherever it happens.
        let _ticket = Ticket { waiting: &self.waiting, token };
        if !self.is_connected() {
            return Err(Failure::NotSent(lost()));
        }
        let inbox = format!("{}.{token}", self.inbox);
        let sent_at = Instant::now();
        let sending = async {
            match headers {
                Some(headers) => self.client.publish_with_reply_and_headers(subject, inbox, headers, payload).await,
                None => self.client.publish_with_reply(subject, inbox, payload).await,
            }
        };
        match cx.limit(sending).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(Failure::NotSent(publish_failure(error))),
            // The send waits for room in the client's queue, and puts nothing into it when it is dropped.
            None => return Err(Failure::NotSent(Error::unavailable("the server takes no more for now"))),
        }
        self.judge(cx.limit(reply).await, sent_at)
    }

    /// Sends messages that are to be stored in a row and waits for their replies until the deadline: one answer a message, in order.
    pub(super) async fn request_all(&self, messages: Vec<Outgoing>, cx: &Context) -> Vec<Result<Message, Failure>> {
        let not_sent = |error: &Error| Err(Failure::NotSent(error.clone()));
        let (tickets, replies) = match self.places_for(messages.len(), cx).await {
            Ok(places) => places,
            Err(error) => return messages.iter().map(|_| not_sent(&error)).collect(),
        };
        let (mut sent, sent_at, writes) = (0, Instant::now(), self.unanswered.begin());
        let sending = async {
            for (Outgoing { subject, headers, payload }, token) in messages.into_iter().zip(tickets.first..) {
                let inbox = format!("{}.{token}", self.inbox);
                self.client.publish_with_reply_and_headers(subject, inbox, headers, payload).await?;
                sent += 1;
            }
            Ok(())
        };
        // A message whose sending is dropped was not put into the client's queue.
        let unsent = match cx.limit(sending).await {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(publish_failure(error)),
            None => Some(Error::unavailable("the server takes no more for now")),
        };
        let mut answers = Vec::with_capacity(replies.len());
        for (at, reply) in replies.into_iter().enumerate() {
            answers.push(match &unsent {
                Some(error) if at >= sent => not_sent(error),
                _ => self.judge(cx.limit(reply).await, sent_at),
            });
        }
        if !answers.iter().any(|answer| matches!(answer, Err(Failure::Unanswered(..)))) {
            writes.end();
        }
        answers
    }

    /// Takes places among those that wait.
    async fn places_for(&self, count: usize, cx: &Context) -> Result<(Tickets<'_>, Vec<Reply>)> {
        if cx.is_expired() {
            return Err(Error::unavailable("the deadline passed before the request was sent"));
        }
        let permits = u32::try_from(count).unwrap_or(u32::MAX);
        let places = match cx.limit(self.places.acquire_many(permits)).await {
            Some(places) => places.map_err(|_| lost())?,
            None => return Err(Error::unavailable("too many requests wait for the server")),
        };
        let first = self.next.fetch_add(count as u64, Ordering::Relaxed);
        let tickets = Tickets { waiting: &self.waiting, first, count: count as u64, _places: places };
        let replies = self.waiting.register_all(first, count).ok_or_else(lost)?;
        if self.is_connected() { Ok((tickets, replies)) } else { Err(lost()) }
    }

    /// What the reply to a message that was sent means, or that there is none.
    fn judge(&self, reply: Option<Result<Message, RecvError>>, sent: Instant) -> Result<Message, Failure> {
        match reply {
            Some(Ok(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                self.retire();
                Err(Failure::NotSent(no_responders()))
            }
            Some(Ok(message)) => Ok(message),
            Some(Err(_)) => {
                Err(Failure::Unanswered("the connection was lost before the reply came", Some(Outage::Silent)))
            }
            None if self.is_denied() => Err(Failure::Unanswered(
                "the server did not answer and denies us a subject: allow publishing to $JS.API.> and $KV.>",
                None,
            )),
            None => Err(Failure::Unanswered("the server did not answer before the deadline", silence(sent.elapsed()))),
        }
    }

    /// Calls JetStream's API.
    pub(super) async fn api<Q: Serialize + Sync, T: DeserializeOwned>(
        &self,
        operation: &str,
        request: Option<&Q>,
        cx: &Context,
    ) -> Result<Result<T, async_nats::jetstream::Error>, Failure> {
        let payload = match request.map(serde_json::to_vec).transpose() {
            Ok(payload) => Bytes::from(payload.unwrap_or_default()),
            Err(error) => {
                return Err(Failure::NotSent(
                    Error::new(crate::ErrorKind::Internal, "cannot write a request").with_source(error),
                ));
            }
        };
        let message = self.request(format!("$JS.API.{operation}"), None, payload, cx).await?;
        match serde_json::from_slice(&message.payload) {
            Ok(Response::Ok(answer)) => Ok(Ok(answer)),
            Ok(Response::Err { error }) => Ok(Err(error)),
            Err(_) => Err(Failure::Unanswered("the server's answer is not understood", None)),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It holds the last handle of the client; without it, the connection is closed.
        self.router.abort();
    }
}

/// Hands each reply to the request that waits for it, until the connection is lost.
async fn route(mut replies: Subscriber, waiting: Arc<Waiting>) {
    while let Some(message) = replies.next().await {
        let token = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        if let Some(reply) = token.and_then(|token| waiting.take(token)) {
            // A caller that went away does not want it any more.
            let _ = reply.send(message);
        }
    }
    waiting.close();
}

/// The requests that wait for their replies; `None` once the connection is lost.
struct Waiting(Mutex<Option<Requests>>);

type Requests = HashMap<u64, oneshot::Sender<Message>, RandomState>;

impl Default for Waiting {
    fn default() -> Self {
        Self(Mutex::new(Some(Requests::default())))
    }
}

impl Waiting {
    fn register(&self, token: u64) -> Result<oneshot::Receiver<Message>, Failure> {
        let (sender, receiver) = oneshot::channel();
        match self.lock().as_mut() {
            Some(requests) => requests.insert(token, sender),
            None => return Err(Failure::NotSent(lost())),
        };
        Ok(receiver)
    }

    /// Registers as many requests as that, with tokens in a row; `None` once the connection is lost.
    fn register_all(&self, first: u64, count: usize) -> Option<Vec<Reply>> {
        let mut waiting = self.lock();
        let requests = waiting.as_mut()?;
        let register = |token| {
            let (sender, receiver) = oneshot::channel();
            requests.insert(token, sender);
            receiver
        };
        Some((first..).take(count).map(register).collect())
    }

    fn take(&self, token: u64) -> Option<oneshot::Sender<Message>> {
        self.lock().as_mut().and_then(|requests| requests.remove(&token))
    }

    /// Drops what waits, so that every waiting caller hears of it at once.
    fn close(&self) {
        let requests = self.lock().take();
        drop(requests);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Requests>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place among those that wait, given up when dropped.
struct Ticket<'a> {
    waiting: &'a Waiting,
    token: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.waiting.take(self.token);
    }
}

/// The places of several requests, given up when dropped.
struct Tickets<'a> {
    waiting: &'a Waiting,
    first: u64,
    count: u64,
    _places: SemaphorePermit<'a>,
}

impl Drop for Tickets<'_> {
    fn drop(&mut self) {
        if let Some(requests) = self.waiting.lock().as_mut() {
            (self.first..self.first + self.count).for_each(|token| drop(requests.remove(&token)));
        }
    }
}

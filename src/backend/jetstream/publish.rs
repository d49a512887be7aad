//! Publishing: one message, and what JetStream says to it.

use async_nats::{HeaderMap, Message, jetstream};
use bytes::Bytes;
use serde::Deserialize;

use crate::contract::Context;
use crate::error::Result;
use crate::stamp::Stamp;

use super::codec::RESERVED;
use super::error::{Failure, is_conflict};
use super::record::{MARKER_TTL, marker_headers};
use super::session::Session;

/// What became of a message.
#[derive(Debug)]
pub(super) enum Published {
    /// It is stored, under this sequence.
    Stored(u64),
    /// It is not stored: the last message of the subject is not the one that was expected.
    Conflict,
}

/// Publishes a message and waits until JetStream says something to it.
pub(super) async fn publish(
    session: &Session,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    cx: &Context,
) -> Result<Result<Published, jetstream::Error>, Failure> {
    let sent = session.unanswered.begin();
    let outcome = session.request(subject, Some(headers), payload, cx).await;
    if !matches!(outcome, Err(Failure::Unanswered(..))) {
        sent.end();
    }
    understand(&outcome?)
}

/// Stores a marker under a subject that stands for no key.
pub(super) async fn ping(
    session: &Session,
    stamp: Stamp,
    cx: &Context,
) -> Result<Result<Published, jetstream::Error>, Failure> {
    let subject = session.bucket.subject_of(RESERVED);
    publish(session, subject, marker_headers(stamp, MARKER_TTL), Bytes::new(), cx).await
}

/// Reads what JetStream says to a message.
pub(super) fn understand(reply: &Message) -> Result<Result<Published, jetstream::Error>, Failure> {
    /// An acknowledgement, or an error; the client library's own type is read at three times the cost.
    #[derive(Deserialize)]
    struct Answer {
        seq: Option<u64>,
        error: Option<jetstream::Error>,
    }
    match serde_json::from_slice(&reply.payload) {
        Ok(Answer { error: Some(error), .. }) if is_conflict(&error) => Ok(Ok(Published::Conflict)),
        Ok(Answer { error: Some(error), .. }) => Ok(Err(error)),
        Ok(Answer { seq: Some(sequence), error: None }) => Ok(Ok(Published::Stored(sequence))),
        Ok(Answer { seq: None, error: None }) | Err(_) => {
            Err(Failure::Unanswered("the server's acknowledgement is not understood", None))
        }
    }
}

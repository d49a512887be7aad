//! Publishing: one message, and what JetStream says to it.

use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use bytes::Bytes;

use crate::contract::Context;
use crate::error::Result;

use super::error::{Failure, is_conflict};
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
    let message = session.request(subject, Some(headers), payload, cx).await?;
    match serde_json::from_slice::<Response<PublishAck>>(&message.payload) {
        Ok(Response::Ok(ack)) => Ok(Ok(Published::Stored(ack.sequence))),
        Ok(Response::Err { error }) if is_conflict(&error) => Ok(Ok(Published::Conflict)),
        Ok(Response::Err { error }) => Ok(Err(error)),
        Err(_) => Err(Failure::Unanswered("the server's acknowledgement is not understood")),
    }
}

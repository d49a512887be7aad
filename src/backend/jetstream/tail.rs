//! The end of a walk: what comes after a sequence.
//!
//! Keys that are overwritten move to the stream's end. Whoever asks for what is there and then whether that was all, with a way to
//! the server between, finds more each time as long as somebody writes. So the server is asked once: it walks to where the stream
//! ends at that moment.

use async_nats::StatusCode;
use async_nats::header::NATS_LAST_SEQUENCE;
use async_nats::jetstream::ErrorCode;
use futures_util::StreamExt;
use serde::Serialize;

use crate::contract::Context;
use crate::error::Result;

use super::error::{Failure, api_failure, lost, no_responders};
use super::read::{self, END_OF_BATCH, NUM_PENDING};
use super::record::Record;
use super::session::Session;

/// How many messages one answer may have for one that is wanted: to come to the end before those who write.
const AHEAD: u64 = 16;

/// The most messages of one answer, and how many it may have at least.
const MOST: u64 = 65_536;
const LEAST: u64 = 1024;

/// The most bytes of one answer, but for its last message: they come with their values.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Whether a message beneath a subject filter comes after a sequence, as the leader knows.
pub(super) async fn is_any_after(session: &Session, filter: &str, sequence: u64, cx: &Context) -> Result<bool> {
    #[derive(Serialize)]
    struct Request<'f> {
        seq: u64,
        next_by_subj: &'f str,
    }
    let operation = format!("STREAM.MSG.GET.{}", session.bucket.stream());
    let request = Request { seq: sequence + 1, next_by_subj: filter };
    let answer = session.api::<_, serde::de::IgnoredAny>(&operation, Some(&request), cx).await;
    match answer.map_err(Failure::of_read)? {
        Ok(_) => Ok(true),
        Err(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(false),
        Err(error) => Err(api_failure(error)),
    }
}

/// What comes after a sequence.
pub(super) struct Tail {
    /// With their subjects, in the order of their sequences.
    pub(super) messages: Vec<(String, Record)>,
    /// Whether that was all, at one moment since it was asked.
    pub(super) is_whole: bool,
}

/// Reads the messages beneath a subject filter that come after a sequence, the first of them if they are many. They come from the
/// one server of a bucket without replicas: of several, another than the leader may answer, and be behind.
pub(super) async fn after(session: &Session, filter: &str, sequence: u64, wanted: u64, cx: &Context) -> Result<Tail> {
    let batch = wanted.saturating_mul(AHEAD).clamp(LEAST, MOST);
    read::in_time(walk(session, filter, sequence, batch, cx), cx).await
}

async fn walk(session: &Session, filter: &str, sequence: u64, batch: u64, cx: &Context) -> Result<Tail> {
    #[derive(Serialize)]
    struct Request<'f> {
        seq: u64,
        next_by_subj: &'f str,
        batch: u64,
        max_bytes: usize,
    }
    let request = Request { seq: sequence + 1, next_by_subj: filter, batch, max_bytes: MAX_BYTES };
    let mut replies = read::send(session, &request, cx).await?;
    let (mut messages, mut previous) = (Vec::new(), None);
    loop {
        let message = replies.next().await.ok_or_else(lost)?;
        let headers = message.headers.unwrap_or_default();
        match message.status.map(|status| (status, status.as_u16())) {
            None => {
                let (subject, record) = read::following(&headers, message.payload, &mut previous)?;
                messages.push((subject.to_owned(), record));
            }
            Some((_, END_OF_BATCH)) => {
                if read::number(&headers, &NATS_LAST_SEQUENCE) != previous {
                    return Err(read::gap());
                }
                // It breaks off at its limits, or where nothing comes next. What is left it counts afterwards.
                let is_whole = (messages.len() as u64) < batch && read::number(&headers, &NUM_PENDING) == Some(0);
                return Ok(Tail { messages, is_whole });
            }
            Some((StatusCode::NOT_FOUND, _)) => return Ok(Tail { messages, is_whole: true }),
            Some((StatusCode::NO_RESPONDERS, _)) => {
                session.retire();
                return Err(no_responders());
            }
            Some((status, _)) => return Err(read::refused(status)),
        }
    }
}

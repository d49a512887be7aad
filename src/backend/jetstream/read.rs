//! Reading: the last message of one subject, or of many in one round trip.

use std::collections::HashMap;
use std::future::Future;
use std::time::Instant;

use async_nats::header::{NATS_LAST_SEQUENCE, NATS_SUBJECT};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, StatusCode};
use bytes::Bytes;
use foldhash::quality::RandomState;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::contract::Context;
use crate::error::{Error, Result};
use crate::key::Key;

use super::error::{Failure, api_failure, lost, no_responders, publish_failure, silence};
use super::record::Record;
use super::session::Session;

/// The most subjects a server answers for in one direct get (nats-server's `JSMaxMultiGetSubjects`).
const SUBJECTS_A_REQUEST: usize = 1024;

/// The most of such requests under way at once for one call.
const REQUESTS: usize = 8;

/// The most bytes of one answer, but for its last message. All that one call asks for at once is less than what a server holds for
/// a connection (`max_pending`, 64 MiB): a connection with more is closed. The server's own limit for an answer is all of that.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The most single reads sent at once where a server cannot answer for many.
const PIPELINED: usize = 256;

pub(super) const NUM_PENDING: HeaderName = HeaderName::from_static("Nats-Num-Pending");

/// The end of a batch.
pub(super) const END_OF_BATCH: u16 = 204;

/// Reads the last message of a key from the servers that the configuration names; `None` if there is none.
pub(super) async fn last(session: &Session, key: &Key, cx: &Context) -> Result<Option<Record>> {
    single(session, session.bucket.subject(key), session.bucket.reads_from_leader, cx).await
}

/// Reads the last message of a key for a write that depends on it; `None` if there is none.
///
/// The leader answers, whatever the configuration says of reads: from a replica that is behind, a delete would learn that there
/// is nothing to delete.
pub(super) async fn last_for_write(session: &Session, key: &Key, cx: &Context) -> Result<Option<Record>> {
    single(session, session.bucket.subject(key), session.bucket.is_replicated, cx).await
}

async fn single(session: &Session, subject: String, from_leader: bool, cx: &Context) -> Result<Option<Record>> {
    if from_leader { leader(session, subject, cx).await } else { direct(session, subject, cx).await }
}

/// Reads the last messages of several keys: one answer a key, in their order.
pub(super) async fn last_many(session: &Session, keys: &[Key], cx: &Context) -> Vec<Result<Option<Record>>> {
    if let [key] = keys {
        return vec![last(session, key, cx).await];
    }
    let subjects: Vec<String> = keys.iter().map(|key| session.bucket.subject(key)).collect();
    let mut places = Places::with_capacity_and_hasher(subjects.len(), RandomState::default());
    let mut unique: Vec<&str> = Vec::with_capacity(subjects.len());
    for subject in &subjects {
        places.entry(subject).or_insert_with(|| {
            unique.push(subject);
            unique.len() - 1
        });
    }
    let answers = if session.bucket.reads_from_leader {
        one_by_one(session, &unique, cx).await
    } else {
        let mut requests = Vec::new();
        let mut first = 0;
        for subjects in chunks(&unique, session.max_payload() / 2) {
            requests.push(chunk_of(session, Chunk { subjects, first, places: &places }, cx));
            first += subjects.len();
        }
        stream::iter(requests).buffered(REQUESTS).concat().await
    };
    if answers.len() == subjects.len() {
        return answers;
    }
    let answer = |subject: &String| {
        let found = places.get(subject.as_str()).and_then(|place| answers.get(*place));
        found.cloned().unwrap_or_else(|| Err(unanswered()))
    };
    subjects.iter().map(answer).collect()
}

/// The answers to reads, in the order of their subjects.
type Answers = Vec<Result<Option<Record>>>;

/// Where in its request each subject stands.
type Places<'a> = HashMap<&'a str, usize, RandomState>;

async fn direct(session: &Session, subject: String, cx: &Context) -> Result<Option<Record>> {
    let stream = session.bucket.stream();
    let request = session.request(format!("$JS.API.DIRECT.GET.{stream}.{subject}"), None, Bytes::new(), cx);
    let message = request.await.map_err(Failure::of_read)?;
    match message.status {
        None => Record::from_direct(message.headers.as_ref(), message.payload).map(Some),
        Some(StatusCode::NOT_FOUND) => Ok(None),
        Some(status) => Err(refused(status)),
    }
}

async fn leader(session: &Session, subject: String, cx: &Context) -> Result<Option<Record>> {
    #[derive(Serialize)]
    struct Request {
        last_by_subj: String,
    }
    #[derive(Deserialize)]
    struct Answer {
        message: RawMessage,
    }
    let operation = format!("STREAM.MSG.GET.{}", session.bucket.stream());
    let answer = session.api::<_, Answer>(&operation, Some(&Request { last_by_subj: subject }), cx).await;
    match answer.map_err(Failure::of_read)? {
        Ok(answer) => {
            let message = StreamMessage::try_from(answer.message)
                .map_err(|_| Error::corrupt("the server's record is not understood; write the key anew"))?;
            Ok(Some(Record::new(message.sequence, Some(&message.headers), message.payload)))
        }
        Err(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Err(error) => Err(api_failure(error)),
    }
}

async fn one_by_one(session: &Session, subjects: &[&str], cx: &Context) -> Answers {
    let mut reads = Vec::with_capacity(subjects.len());
    for subject in subjects {
        reads.push(single(session, (*subject).to_owned(), session.bucket.reads_from_leader, cx));
    }
    stream::iter(reads).buffered(PIPELINED).collect().await
}

/// Cuts subjects into requests that the server takes, by number and by bytes.
fn chunks<'s, 'a>(mut subjects: &'s [&'a str], max_bytes: usize) -> Vec<&'s [&'a str]> {
    let mut chunks = Vec::new();
    while !subjects.is_empty() {
        let mut bytes = 0;
        let fits = |subject: &&&str| {
            // Two quotes and a comma.
            bytes += subject.len() + 3;
            bytes <= max_bytes
        };
        let count = subjects.iter().take(SUBJECTS_A_REQUEST).take_while(fits).count().max(1);
        let (chunk, rest) = subjects.split_at(count);
        chunks.push(chunk);
        subjects = rest;
    }
    chunks
}

/// Subjects of one request.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    subjects: &'a [&'a str],
    /// Where the first of them stands among those of all requests, which `places` tells of.
    first: usize,
    places: &'a Places<'a>,
}

async fn chunk_of(session: &Session, chunk: Chunk<'_>, cx: &Context) -> Answers {
    let subjects = chunk.subjects;
    match in_time(many(session, chunk, cx), cx).await {
        Ok(Batch { records, complete: true }) => records.into_iter().map(Ok).collect(),
        Ok(Batch { records, complete: false }) => {
            let mut answers = one_by_one(session, &absent(subjects, &records), cx).await.into_iter();
            let mut answer = |record: Option<Record>| match record {
                Some(record) => Ok(Some(record)),
                None => answers.next().unwrap_or_else(|| Err(unanswered())),
            };
            records.into_iter().map(&mut answer).collect()
        }
        Err(error) => subjects.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// The subjects without a record.
fn absent<'a>(subjects: &[&'a str], records: &[Option<Record>]) -> Vec<&'a str> {
    let absent = subjects.iter().zip(records).filter(|(_, record)| record.is_none());
    absent.map(|(subject, _)| *subject).collect()
}

/// What a direct get of many subjects answered.
struct Batch {
    /// In the order of the subjects.
    records: Vec<Option<Record>>,
    /// Whether a subject that is not among the records has no message.
    complete: bool,
}

#[derive(Serialize)]
struct MultiLast<'a> {
    multi_last: &'a [&'a str],
    max_bytes: usize,
}

/// How a server's answer goes on.
enum Next {
    Message,
    /// It broke off after some messages: at its limit of bytes, or where one was replaced after its sequence had been looked up.
    More,
    End {
        complete: bool,
    },
}

async fn many(session: &Session, chunk: Chunk<'_>, cx: &Context) -> Result<Batch> {
    let mut records = Vec::new();
    records.resize_with(chunk.subjects.len(), || None);
    let mut wanted = chunk.subjects.to_vec();
    while !wanted.is_empty() {
        let mut replies = send(session, &MultiLast { multi_last: &wanted, max_bytes: MAX_BYTES }, cx).await?;
        // Each message names the one before it, so that a lost one is noticed: it must not pass for an absent key.
        let mut previous = None;
        let next = loop {
            let message = replies.next().await.ok_or_else(lost)?;
            match take(session, message, &mut previous, chunk, &mut records)? {
                Next::Message => {}
                next => break next,
            }
        };
        match next {
            // The rest is asked for by name. To go on by sequences would leave out what was replaced since: its only message is
            // newer than the last one that was to come.
            Next::More | Next::Message => wanted = absent(chunk.subjects, &records),
            Next::End { complete } => return Ok(Batch { records, complete }),
        }
    }
    Ok(Batch { records, complete: true })
}

/// Waits for an answer of several messages until the deadline.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T>>, cx: &Context) -> Result<T> {
    let asked = Instant::now();
    let late = || Failure::Unanswered("the server did not answer before the deadline", silence(asked.elapsed()));
    cx.limit(answer).await.unwrap_or_else(|| Err(late().of_read()))
}

/// Sends a direct get that is answered by several messages.
pub(super) async fn send(
    session: &Session,
    request: &(impl Serialize + Sync),
    cx: &Context,
) -> Result<async_nats::Subscriber> {
    if cx.is_expired() || !session.is_connected() {
        return Err(lost());
    }
    let payload = serde_json::to_vec(request)
        .map_err(|error| Error::new(crate::ErrorKind::Internal, "cannot write a request").with_source(error))?;
    let client = session.client();
    let inbox = client.new_inbox();
    let replies = client.subscribe(inbox.clone()).await.map_err(|error| lost().with_source(error))?;
    let subject = format!("$JS.API.DIRECT.GET.{}", session.bucket.stream());
    client.publish_with_reply(subject, inbox, payload.into()).await.map_err(publish_failure)?;
    Ok(replies)
}

fn take(
    session: &Session,
    message: Message,
    previous: &mut Option<u64>,
    chunk: Chunk<'_>,
    records: &mut [Option<Record>],
) -> Result<Next> {
    let headers = message.headers.unwrap_or_default();
    let named = number(&headers, &NATS_LAST_SEQUENCE);
    match message.status.map(|status| (status, status.as_u16())) {
        None => {
            let (subject, record) = following(&headers, message.payload, previous)?;
            let place = chunk.places.get(subject).and_then(|place| place.checked_sub(chunk.first));
            if let Some(found) = place.and_then(|place| records.get_mut(place)) {
                *found = Some(record);
            }
            Ok(Next::Message)
        }
        Some((_, END_OF_BATCH)) => match number(&headers, &NUM_PENDING) {
            _ if previous.is_none() || named != *previous => Err(gap()),
            Some(0) => Ok(Next::End { complete: true }),
            _ => Ok(Next::More),
        },
        // What matched was replaced meanwhile, or nothing matches.
        Some((StatusCode::NOT_FOUND, _)) if previous.is_some() => Ok(Next::More),
        Some((StatusCode::NOT_FOUND, _)) => {
            let nothing = message.description.as_deref().is_some_and(|text| text.eq_ignore_ascii_case("No Results"));
            Ok(Next::End { complete: nothing })
        }
        Some((StatusCode::NO_RESPONDERS, _)) => {
            session.retire();
            Err(no_responders())
        }
        Some((status, _)) => Err(refused(status)),
    }
}

/// Takes a message that names the one before it, with its subject.
pub(super) fn following<'h>(
    headers: &'h HeaderMap,
    payload: Bytes,
    previous: &mut Option<u64>,
) -> Result<(&'h str, Record)> {
    if previous.is_some() && number(headers, &NATS_LAST_SEQUENCE) != *previous {
        return Err(gap());
    }
    let record = Record::from_direct(Some(headers), payload)?;
    *previous = Some(record.sequence);
    let subject = headers.get(NATS_SUBJECT).map(HeaderValue::as_str);
    let subject = subject.ok_or_else(|| Error::unavailable("the server answered a read without a subject"))?;
    Ok((subject, record))
}

/// A message of an answer was lost.
pub(super) fn gap() -> Error {
    Error::unavailable("the server's answers did not all arrive")
}

/// A number in the headers.
pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name.clone()).and_then(|value| value.as_str().parse().ok())
}

fn unanswered() -> Error {
    Error::unavailable("the server did not answer for every key")
}

/// A status that is none of those that are known.
pub(super) fn refused(status: StatusCode) -> Error {
    Error::unavailable(format!("the server refused to read with status {}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_by_number_and_by_bytes() {
        let subjects: Vec<String> = (0..2500).map(|number| format!("{number:04}")).collect();
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let lengths = |chunks: Vec<&[&str]>| chunks.iter().map(|chunk| chunk.len()).collect::<Vec<_>>();
        assert_eq!(lengths(chunks(&subjects, usize::MAX)), [1024, 1024, 452]);
        assert_eq!(lengths(chunks(&subjects[..5], 14)), [2, 2, 1]);
        assert_eq!(lengths(chunks(&subjects[..2], 1)), [1, 1]);
        assert!(chunks(&[], 10).is_empty());
    }
}

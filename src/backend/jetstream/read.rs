//! Reading: the last message of one subject, or of many in one round trip.

use std::collections::HashMap;
use std::time::Instant;

use async_nats::header::{NATS_LAST_SEQUENCE, NATS_SEQUENCE, NATS_SUBJECT};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderMap, HeaderName, Message, StatusCode};
use bytes::Bytes;
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
const REQUESTS: usize = 16;

/// The most single reads sent at once where a server cannot answer for many.
const PIPELINED: usize = 256;

const NUM_PENDING: HeaderName = HeaderName::from_static("Nats-Num-Pending");
const UP_TO_SEQUENCE: HeaderName = HeaderName::from_static("Nats-UpTo-Sequence");

/// The end of a batch.
const END_OF_BATCH: u16 = 204;

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
    let mut unique: Vec<&str> = subjects.iter().map(String::as_str).collect();
    unique.sort_unstable();
    unique.dedup();
    let answers = if session.bucket.reads_from_leader {
        one_by_one(session, unique, cx).await
    } else {
        let limit = session.max_payload() / 2;
        let mut requests = Vec::new();
        for chunk in chunks(unique, limit) {
            requests.push(chunk_of(session, chunk, cx));
        }
        let answers: Vec<_> = stream::iter(requests).buffer_unordered(REQUESTS).collect().await;
        answers.into_iter().flatten().collect()
    };
    let answer = |subject: &String| {
        let unanswered = || Err(Error::unavailable("the server did not answer for every key"));
        answers.get(subject.as_str()).cloned().unwrap_or_else(unanswered)
    };
    subjects.iter().map(answer).collect()
}

type Answers<'a> = HashMap<&'a str, Result<Option<Record>>>;

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

async fn one_by_one<'a>(session: &Session, subjects: Vec<&'a str>, cx: &Context) -> Answers<'a> {
    let mut reads = Vec::with_capacity(subjects.len());
    for subject in subjects {
        reads.push(one(session, subject, cx));
    }
    stream::iter(reads).buffer_unordered(PIPELINED).collect().await
}

async fn one<'a>(session: &Session, subject: &'a str, cx: &Context) -> (&'a str, Result<Option<Record>>) {
    (subject, single(session, subject.to_owned(), session.bucket.reads_from_leader, cx).await)
}

/// Cuts subjects into requests that the server takes, by number and by bytes.
fn chunks(subjects: Vec<&str>, max_bytes: usize) -> Vec<Vec<&str>> {
    let mut chunks: Vec<Vec<&str>> = Vec::new();
    let mut bytes = 0;
    for subject in subjects {
        // Two quotes and a comma.
        bytes += subject.len() + 3;
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < SUBJECTS_A_REQUEST && bytes <= max_bytes => chunk.push(subject),
            _ => {
                bytes = subject.len() + 3;
                chunks.push(vec![subject]);
            }
        }
    }
    chunks
}

async fn chunk_of<'a>(session: &Session, subjects: Vec<&'a str>, cx: &Context) -> Answers<'a> {
    let asked = Instant::now();
    let outcome = cx.limit(many(session, &subjects, cx)).await;
    let late = || Failure::Unanswered("the server did not answer before the deadline", silence(asked.elapsed()));
    match outcome.unwrap_or_else(|| Err(late().of_read())) {
        Ok(Batch { mut records, complete }) => {
            let mut answers: Answers<'a> = HashMap::with_capacity(subjects.len());
            let (found, absent): (Vec<&str>, Vec<&str>) =
                subjects.into_iter().partition(|subject| records.contains_key(*subject));
            answers.extend(found.into_iter().map(|subject| (subject, Ok(records.remove(subject)))));
            if complete {
                answers.extend(absent.into_iter().map(|subject| (subject, Ok(None))));
            } else {
                answers.extend(one_by_one(session, absent, cx).await);
            }
            answers
        }
        Err(error) => subjects.into_iter().map(|subject| (subject, Err(error.clone()))).collect(),
    }
}

/// What a direct get of many subjects answered.
struct Batch {
    records: HashMap<String, Record>,
    /// Whether a subject that is not among the records has no message. A batch breaks off where a message was replaced after
    /// the server had looked up its sequence.
    complete: bool,
}

#[derive(Serialize)]
struct MultiLast<'a> {
    multi_last: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to_seq: Option<u64>,
}

/// How a server's answer goes on.
enum Next {
    Message,
    /// The server stopped at its limit of bytes; the rest begins after this sequence, and ends with the other.
    More {
        after: u64,
        up_to: u64,
    },
    End {
        complete: bool,
    },
}

async fn many(session: &Session, subjects: &[&str], cx: &Context) -> Result<Batch> {
    let mut batch = Batch { records: HashMap::with_capacity(subjects.len()), complete: true };
    let mut request = MultiLast { multi_last: subjects, seq: None, up_to_seq: None };
    loop {
        let mut replies = send(session, &request, cx).await?;
        // Each message names the one before it, so that a lost one is noticed: it must not pass for an absent key.
        let mut previous = None;
        let next = loop {
            let message = replies.next().await.ok_or_else(lost)?;
            match take(session, message, &mut previous, &mut batch.records)? {
                Next::Message => {}
                next => break next,
            }
        };
        match next {
            Next::More { after, up_to } => {
                (request.seq, request.up_to_seq) = (Some(after + 1), Some(up_to));
            }
            Next::End { complete } => {
                batch.complete = complete;
                return Ok(batch);
            }
            Next::Message => {}
        }
    }
}

async fn send(session: &Session, request: &MultiLast<'_>, cx: &Context) -> Result<async_nats::Subscriber> {
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
    records: &mut HashMap<String, Record>,
) -> Result<Next> {
    let headers = message.headers.unwrap_or_default();
    let named = number(&headers, &NATS_LAST_SEQUENCE);
    match message.status.map(|status| (status, status.as_u16())) {
        None => {
            if previous.is_some() && named != *previous {
                return Err(Error::unavailable("the server's answers did not all arrive"));
            }
            *previous = number(&headers, &NATS_SEQUENCE);
            let subject = headers.get(NATS_SUBJECT).map(|subject| subject.as_str().to_owned());
            let subject = subject.ok_or_else(|| Error::unavailable("the server answered a read without a subject"))?;
            records.insert(subject, Record::from_direct(Some(&headers), message.payload)?);
            Ok(Next::Message)
        }
        Some((_, END_OF_BATCH)) => match (named, number(&headers, &UP_TO_SEQUENCE)) {
            _ if named != *previous => Err(Error::unavailable("the server's answers did not all arrive")),
            (Some(after), Some(up_to)) if number(&headers, &NUM_PENDING).unwrap_or(0) > 0 => {
                Ok(Next::More { after, up_to })
            }
            _ => Ok(Next::End { complete: true }),
        },
        // Nothing matches, or what matched was replaced meanwhile.
        Some((StatusCode::NOT_FOUND, _)) => {
            let nothing = message.description.as_deref().is_some_and(|text| text.eq_ignore_ascii_case("No Results"));
            Ok(Next::End { complete: nothing && previous.is_none() })
        }
        Some((StatusCode::NO_RESPONDERS, _)) => {
            session.retire();
            Err(no_responders())
        }
        Some((status, _)) => Err(refused(status)),
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name.clone()).and_then(|value| value.as_str().parse().ok())
}

fn refused(status: StatusCode) -> Error {
    Error::unavailable(format!("the server refused to read with status {}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_by_number_and_by_bytes() {
        let subjects: Vec<String> = (0..2500).map(|number| format!("{number:04}")).collect();
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let lengths = |chunks: Vec<Vec<&str>>| chunks.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(chunks(subjects.clone(), usize::MAX)), [1024, 1024, 452]);
        assert_eq!(lengths(chunks(subjects[..5].to_vec(), 14)), [2, 2, 1]);
        assert_eq!(lengths(chunks(subjects[..2].to_vec(), 1)), [1, 1]);
        assert!(chunks(Vec::new(), 10).is_empty());
    }
}

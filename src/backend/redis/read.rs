//! Reads: one `GET` a key in one pipeline, so that a key of another type fails alone, which `MGET` would hide.

use redis::{Pipeline, Value as Reply};

use super::codec;
use super::error;
use super::lane::Lanes;
use super::script::{self, Calls};
use crate::contract::{Context, Entry, GetOptions, Lookup};
use crate::error::Result;
use crate::key::Key;
use crate::time::Timestamp;

/// The most keys of one pipeline. A larger one saves no time, and the server holds its replies until the last is written.
const CHUNK: usize = 1000;

/// Reads one value.
pub(super) async fn get(lanes: &Lanes, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
    let answers = get_many(lanes, std::slice::from_ref(key), options, cx).await;
    answers.into_iter().next().unwrap_or_else(|| Err(error::unexpected_reply()))
}

/// Reads several values, one answer a key.
pub(super) async fn get_many(lanes: &Lanes, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
    let mut answers = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(CHUNK) {
        match get_chunk(lanes, chunk, options, cx).await {
            Ok(found) => answers.extend(found),
            Err(failure) => answers.extend(chunk.iter().map(|_| Err(failure.clone()))),
        }
    }
    answers
}

/// Says of each key whether anything is there.
pub(super) async fn exists(lanes: &Lanes, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
    let mut answers = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(CHUNK) {
        let mut pipeline = Pipeline::with_capacity(chunk.len());
        for key in chunk {
            pipeline.cmd("EXISTS").arg(key.as_bytes());
        }
        match lanes.read(&pipeline, cx).await {
            Ok(replies) => answers.extend(replies.into_iter().map(|reply| match reply {
                Reply::Int(count) => Ok(count > 0),
                Reply::ServerError(refusal) => Err(error::refused(refusal)),
                _ => Err(error::unexpected_reply()),
            })),
            Err(failure) => answers.extend(chunk.iter().map(|_| Err(failure.clone()))),
        }
    }
    answers
}

async fn get_chunk(lanes: &Lanes, keys: &[Key], options: &GetOptions, cx: &Context) -> Result<Vec<Result<Lookup>>> {
    let calls = if keys.len() == 1 { Calls::by_digest() } else { Calls::in_full() };
    let mut replies = lanes.read(&pipeline(keys, options, calls), cx).await?;
    if let [Reply::ServerError(refusal)] = replies.as_slice()
        && error::is_unknown_script(refusal)
    {
        replies = lanes.read(&pipeline(keys, options, Calls::in_full()), cx).await?;
    }
    if replies.len() != keys.len() {
        return Err(error::unexpected_reply());
    }
    let bytes = replies.iter().map(size).sum();
    codec::compute(bytes, move || replies.into_iter().map(lookup).collect()).await
}

fn pipeline(keys: &[Key], options: &GetOptions, mut calls: Calls) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(keys.len());
    for key in keys {
        if options.expiry {
            // In one script, or another client's write could come between value and expiry.
            pipeline.add_command(calls.call(&script::READ, key));
        } else {
            pipeline.cmd("GET").arg(key.as_bytes());
        }
    }
    pipeline
}

/// The bytes of values in a reply.
fn size(reply: &Reply) -> usize {
    match reply {
        Reply::BulkString(bytes) => bytes.len(),
        Reply::Array(replies) => replies.iter().map(size).sum(),
        _ => 0,
    }
}

/// Reads the reply to one key: the value, or the value and its expiry.
fn lookup(reply: Reply) -> Result<Lookup> {
    match reply {
        Reply::Nil => Ok(Lookup::missing()),
        Reply::BulkString(stored) => entry(stored).map(Lookup::Found),
        Reply::Array(parts) => match <[Reply; 2]>::try_from(parts) {
            Ok([Reply::BulkString(stored), Reply::Int(at)]) => {
                // The only negative number is that of an entry which stays.
                let expiry = u64::try_from(at).ok().map(Timestamp::from_millis);
                Ok(Lookup::Found(entry(stored)?.with_expiry(expiry)))
            }
            _ => Err(error::unexpected_reply()),
        },
        Reply::ServerError(refusal) => Err(error::refused(refusal)),
        _ => Err(error::unexpected_reply()),
    }
}

fn entry(stored: Vec<u8>) -> Result<Entry> {
    let revision = codec::revision(&stored);
    Ok(Entry::new(codec::decode(stored)?, revision))
}

//! Reads: one `GET` a key in one pipeline, so that a key of another type fails alone, which `MGET` would hide.

use redis::{Pipeline, Value as Reply};

use super::codec;
use super::error;
use super::lane::Lanes;
use crate::contract::{Context, Entry, GetOptions, Lookup};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::time::{Clock, Timestamp};

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
    let mut pipeline = Pipeline::with_capacity(keys.len());
    for key in keys {
        if options.expiry {
            // In one transaction, or another client's write could come between value and expiry.
            pipeline.cmd("MULTI").cmd("GET").arg(key.as_bytes()).cmd("PTTL").arg(key.as_bytes()).cmd("EXEC");
        } else {
            pipeline.cmd("GET").arg(key.as_bytes());
        }
    }
    let replies = lanes.read(&pipeline, cx).await?;
    let now = options.expiry.then(|| Clock::system().now());
    // Of each transaction, the last of its four replies holds the results.
    let every = if options.expiry { 4 } else { 1 };
    let replies: Vec<Reply> = replies.into_iter().skip(every - 1).step_by(every).collect();
    let bytes = replies.iter().map(size).sum();
    let answers: Vec<_> =
        codec::compute(bytes, move || replies.into_iter().map(|reply| lookup(reply, now)).collect()).await?;
    if answers.len() == keys.len() { Ok(answers) } else { Err(error::unexpected_reply()) }
}

/// The bytes of values in a reply.
fn size(reply: &Reply) -> usize {
    match reply {
        Reply::BulkString(bytes) => bytes.len(),
        Reply::Array(replies) => replies.iter().map(size).sum(),
        _ => 0,
    }
}

/// Reads the reply to one key; `now` is given where the expiry was asked.
fn lookup(reply: Reply, now: Option<Timestamp>) -> Result<Lookup> {
    let Some(now) = now else {
        return Ok(entry(reply)?.map_or(Lookup::missing(), Lookup::Found));
    };
    let results = match reply {
        Reply::Array(results) => <[Reply; 2]>::try_from(results).map_err(|_| error::unexpected_reply())?,
        Reply::ServerError(refusal) => return Err(error::refused(refusal)),
        _ => return Err(error::unexpected_reply()),
    };
    let [value, remaining] = results;
    let Some(entry) = entry(value)? else { return Ok(Lookup::missing()) };
    let expiry = match remaining {
        Reply::Int(-1) => None,
        // It expired between the two commands.
        Reply::Int(-2) => return Ok(Lookup::missing()),
        Reply::Int(left) => {
            let left = u64::try_from(left).map_err(|_| error::unexpected_reply())?;
            Some(Timestamp::from_millis(now.as_millis().saturating_add(left)))
        }
        _ => return Err(error::unexpected_reply()),
    };
    Ok(Lookup::Found(entry.with_expiry(expiry)))
}

fn entry(reply: Reply) -> Result<Option<Entry>, Error> {
    match reply {
        Reply::Nil => Ok(None),
        Reply::BulkString(stored) => {
            let revision = codec::revision(&stored);
            Ok(Some(Entry::new(codec::decode(stored)?, revision)))
        }
        Reply::ServerError(refusal) => Err(error::refused(refusal)),
        _ => Err(error::unexpected_reply()),
    }
}

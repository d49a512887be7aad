//! Reads: one `GET` a key in one pipeline, so that a key of another type fails alone; or one `MGET`, with a second look at what it
//! does not find.

use redis::{Cmd, Pipeline, Value as Reply};

use super::codec;
use super::error::{self, Effect};
use super::lane::Lanes;
use super::link::Link;
use super::script::{self, Calls};
use crate::contract::{Context, Entry, GetOptions, Lookup};
use crate::error::Result;
use crate::key::Key;
use crate::revision::Revision;
use crate::time::Timestamp;

/// The most keys of one pipeline. A larger one saves no time, and the server holds its replies until the last is written.
const CHUNK: usize = 1000;

/// Reads one value.
pub(super) async fn get(lanes: &Lanes, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
    let link = lanes.read_link(cx).await?;
    let mut reply = link.send_one(&question(key, options, &mut Calls::by_digest()), Effect::Read, cx).await?;
    if matches!(&reply, Reply::ServerError(refusal) if error::is_unknown_script(refusal)) {
        reply = link.send_one(&question(key, options, &mut Calls::in_full()), Effect::Read, cx).await?;
    }
    let options = *options;
    codec::compute(size(&reply), move || lookup(reply, options)).await?
}

/// Reads several values, one answer a key.
pub(super) async fn get_many(lanes: &Lanes, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
    if let [key] = keys {
        return vec![get(lanes, key, options, cx).await];
    }
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
        let replies = async { lanes.read_link(cx).await?.send(&pipeline, Effect::Read, cx).await };
        match replies.await {
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
    let link = lanes.read_link(cx).await?;
    let replies = if options.expiry || !link.may_ask_together() {
        apart(&link, keys, options, cx).await?
    } else {
        together(&link, keys, cx).await?
    };
    let bytes = replies.iter().map(size).sum();
    let options = *options;
    codec::compute(bytes, move || replies.into_iter().map(|reply| lookup(reply, options)).collect()).await
}

/// Asks for each key in a command of its own.
async fn apart(link: &Link, keys: &[Key], options: &GetOptions, cx: &Context) -> Result<Vec<Reply>> {
    let mut calls = Calls::in_full();
    let mut pipeline = Pipeline::with_capacity(keys.len());
    for key in keys {
        pipeline.add_command(question(key, options, &mut calls));
    }
    let replies = link.send(&pipeline, Effect::Read, cx).await?;
    if replies.len() != keys.len() {
        return Err(error::unexpected_reply());
    }
    link.found(!replies.iter().any(is_nil));
    Ok(replies)
}

/// Asks for all keys in one `MGET`, which costs server and client a good deal less.
///
/// But it passes a key of another type off as missing. So each key that it does not find is asked for again, which costs a
/// round trip; therefore not where the last keys were not all found.
async fn together(link: &Link, keys: &[Key], cx: &Context) -> Result<Vec<Reply>> {
    let options = GetOptions::default();
    let bytes = keys.iter().map(|key| key.as_bytes().len()).sum::<usize>();
    let mut command = Cmd::with_capacity(keys.len() + 1, bytes + "MGET".len());
    command.arg("MGET");
    for key in keys {
        command.arg(key.as_bytes());
    }
    let mut replies = match link.send_one(&command, Effect::Read, cx).await? {
        Reply::Array(replies) if replies.len() == keys.len() => replies,
        Reply::ServerError(refusal) => {
            // Access rules may forbid the command, or one of the keys.
            if !error::refused(refusal).is_transient() {
                link.ask_apart();
            }
            return apart(link, keys, &options, cx).await;
        }
        _ => return Err(error::unexpected_reply()),
    };
    let absent = keys.iter().zip(&replies).filter(|(_, reply)| is_nil(reply)).map(|(key, _)| key.clone());
    let absent: Vec<Key> = absent.collect();
    if !absent.is_empty() {
        let again = apart(link, &absent, &options, cx).await?;
        link.found(false);
        replies.iter_mut().filter(|reply| is_nil(reply)).zip(again).for_each(|(reply, again)| *reply = again);
    }
    Ok(replies)
}

/// The command that asks for one key.
fn question(key: &Key, options: &GetOptions, calls: &mut Calls) -> Cmd {
    if options.expiry {
        // In one script, or another client's write could come between value and expiry.
        return calls.call(&script::READ, key);
    }
    let mut command = Cmd::with_capacity(2, key.as_bytes().len() + "GET".len());
    command.arg("GET").arg(key.as_bytes());
    command
}

fn is_nil(reply: &Reply) -> bool {
    matches!(reply, Reply::Nil)
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
fn lookup(reply: Reply, options: GetOptions) -> Result<Lookup> {
    match reply {
        Reply::Nil => Ok(Lookup::missing()),
        Reply::BulkString(stored) => entry(stored, options).map(Lookup::Found),
        Reply::Array(parts) => match <[Reply; 2]>::try_from(parts) {
            Ok([Reply::BulkString(stored), Reply::Int(at)]) => {
                // The only negative number is that of an entry which stays.
                let expiry = u64::try_from(at).ok().map(Timestamp::from_millis);
                Ok(Lookup::Found(entry(stored, options)?.with_expiry(expiry)))
            }
            _ => Err(error::unexpected_reply()),
        },
        Reply::ServerError(refusal) => Err(error::refused(refusal)),
        _ => Err(error::unexpected_reply()),
    }
}

fn entry(stored: Vec<u8>, options: GetOptions) -> Result<Entry> {
    let revision = if options.without_revision { Revision::NOT_ASKED } else { codec::revision(&stored) };
    Ok(Entry::new(codec::decode(stored)?, revision))
}

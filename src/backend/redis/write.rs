//! Writes: each one command, conditional ones a script, several in one pipeline.
//!
//! Nothing is sent twice but a script that the server answered not to know: without a guard against late arrivals, a write
//! whose reply was lost is the caller's to judge.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value as Reply};

use super::codec;
use super::error;
use super::lane::{InFlight, Lanes};
use super::script::{self, Calls};
use crate::contract::{Context, IncrementOptions, Write, WriteAck, WriteMode, WriteOp};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::revision::Revision;
use crate::time::Ttl;
use crate::value::Value;

/// The most writes and bytes of values in one pipeline; a larger value goes alone. Redis closes a connection whose unread
/// input reaches a gibibyte.
const CHUNK_WRITES: usize = 1000;
const CHUNK_BYTES: usize = 8 << 20;

/// From this size on a value is put by a script. `SET .. GET` tells whether there was a value, and refuses to replace
/// another type, at a fraction of a script's cost; but its reply is the old value, which tends to be as large as the new.
const PUT_BY_SCRIPT: usize = 64 << 10;

/// Applies one write.
pub(super) async fn write(lanes: &Lanes, write: Write, cx: &Context) -> Result<WriteAck> {
    let (reply, answer) = send_one(lanes, write.clone(), Calls::by_digest(), cx).await?;
    match reply {
        Reply::ServerError(refusal) if error::is_unknown_script(&refusal) => {
            let (reply, answer) = send_one(lanes, write, Calls::in_full(), cx).await?;
            answer.read(reply)
        }
        reply => answer.read(reply),
    }
}

/// Applies several writes in order, one answer a write. One pipeline is sent whole or not at all; several are in a task that
/// outlives a caller who goes away.
pub(super) async fn write_many(
    lanes: Arc<Lanes>,
    call: InFlight,
    writes: Vec<Write>,
    cx: Context,
) -> Vec<Result<WriteAck>> {
    let count = writes.len();
    if fits_one_chunk(&writes) {
        return write_chunk(&lanes, writes, &cx).await;
    }
    let task = tokio::spawn(async move {
        let mut answers = Vec::with_capacity(count);
        for chunk in chunks(writes) {
            answers.extend(write_chunk(&lanes, chunk, &cx).await);
        }
        drop(call);
        answers
    });
    task.await.unwrap_or_else(|_| {
        let cut_off = Error::outcome_unknown("the batch was cut off in the middle; some of it may be applied");
        vec![Err(cut_off); count]
    })
}

/// Adds to a counter.
pub(super) async fn increment(
    lanes: &Lanes,
    key: &Key,
    by: i64,
    options: &IncrementOptions,
    cx: &Context,
) -> Result<i64> {
    let send = async |mut calls: Calls| {
        let command = match options.ttl {
            None => command("INCRBY", key).arg(by).take(),
            Some(ttl) => calls.call(&script::INCREMENT, key).arg(by).arg(ttl.as_millis()).take(),
        };
        lanes.write(&command, cx).await
    };
    let reply = match send(Calls::by_digest()).await? {
        Reply::ServerError(refusal) if error::is_unknown_script(&refusal) => send(Calls::in_full()).await?,
        reply => reply,
    };
    match reply {
        Reply::Int(sum) => Ok(sum),
        Reply::BulkString(text) => {
            let sum = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            sum.ok_or_else(error::unexpected_reply)
        }
        Reply::ServerError(refusal) => Err(error::increment_refused(refusal)),
        _ => Err(error::unexpected_reply()),
    }
}

async fn send_one(lanes: &Lanes, write: Write, mut calls: Calls, cx: &Context) -> Result<(Reply, Answer)> {
    let (command, answer) = codec::compute(write.value_bytes(), move || prepare(&write, &mut calls)).await??;
    Ok((lanes.write(&command, cx).await?, answer))
}

/// Applies the writes of one pipeline, one answer a write.
async fn write_chunk(lanes: &Lanes, chunk: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
    let count = chunk.len();
    let answers = send_chunk(lanes, chunk, cx).await;
    answers.unwrap_or_else(|failure| vec![Err(failure); count])
}

async fn send_chunk(lanes: &Lanes, chunk: Vec<Write>, cx: &Context) -> Result<Vec<Result<WriteAck>>> {
    let bytes = chunk.iter().map(Write::value_bytes).sum();
    let prepare = move || {
        let mut calls = Calls::in_full();
        let mut pipeline = Pipeline::with_capacity(chunk.len());
        let answers = chunk.iter().map(|write| {
            let (command, answer) = prepare(write, &mut calls)?;
            pipeline.add_command(command);
            Ok(answer)
        });
        let answers: Vec<Result<Answer>> = answers.collect();
        (pipeline, answers)
    };
    let (pipeline, answers) = codec::compute(bytes, prepare).await?;
    let replies = if pipeline.is_empty() { Vec::new() } else { lanes.write_all(&pipeline, cx).await? };
    let mut replies = replies.into_iter();
    Ok(answers.into_iter().map(|answer| answer?.read(replies.next().ok_or_else(error::unexpected_reply)?)).collect())
}

fn fits_one_chunk(writes: &[Write]) -> bool {
    writes.len() <= CHUNK_WRITES && writes.iter().map(Write::value_bytes).sum::<usize>() <= CHUNK_BYTES
}

/// Cuts a batch up, in order.
fn chunks(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut chunks: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let size = write.value_bytes();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_WRITES && bytes + size <= CHUNK_BYTES => {
                bytes += size;
                chunk.push(write);
            }
            _ => {
                bytes = size;
                chunks.push(vec![write]);
            }
        }
    }
    chunks
}

/// What the reply to a write means.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Put(Revision),
    Created(Revision),
    Updated(Revision),
    Deleted,
    DeletedIf,
    Touched,
}

/// The command of a write, and how to read its reply.
fn prepare(write: &Write, calls: &mut Calls) -> Result<(Cmd, Answer)> {
    let Write { key, op, .. } = write;
    Ok(match op {
        WriteOp::Put { value, mode, ttl } => {
            if value.len() > Value::MAX_BYTES {
                let limit = Value::MAX_BYTES;
                return Err(Error::too_large(format!("a value may have at most {limit} bytes")));
            }
            put(key, value, *mode, *ttl, calls)
        }
        WriteOp::Delete { only_if: None } => (command("UNLINK", key), Answer::Deleted),
        WriteOp::Delete { only_if: Some(revision) } => {
            (calls.call(&script::DELETE, key).arg(revision.to_string()).take(), Answer::DeletedIf)
        }
        WriteOp::Touch { ttl } => (calls.call(&script::TOUCH, key).arg(millis(*ttl)).take(), Answer::Touched),
    })
}

fn put(key: &Key, value: &Value, mode: WriteMode, ttl: Option<Ttl>, calls: &mut Calls) -> (Cmd, Answer) {
    let stored = codec::encode(value);
    let stored = stored.as_ref();
    let revision = codec::revision(stored);
    match mode {
        WriteMode::Upsert if stored.len() < PUT_BY_SCRIPT => {
            (set(key, stored, ttl).arg("GET").take(), Answer::Put(revision))
        }
        WriteMode::Upsert => (calls.call(&script::PUT, key).arg(stored).arg(millis(ttl)).take(), Answer::Put(revision)),
        WriteMode::Create => (set(key, stored, ttl).arg("NX").take(), Answer::Created(revision)),
        WriteMode::Update(expected) => {
            let mut update = calls.call(&script::UPDATE, key);
            (update.arg(expected.to_string()).arg(stored).arg(millis(ttl)).take(), Answer::Updated(revision))
        }
        WriteMode::Replace(expected) => {
            let mut update = calls.call(&script::UPDATE, key);
            (update.arg(expected.to_string()).arg(stored).arg(script::KEEP_TTL).take(), Answer::Updated(revision))
        }
    }
}

fn set(key: &Key, stored: &[u8], ttl: Option<Ttl>) -> Cmd {
    // With room for the longest TTL and the option that follows.
    let mut set = Cmd::with_capacity(6, key.as_bytes().len() + stored.len() + 32);
    set.arg("SET").arg(key.as_bytes()).arg(stored);
    if let Some(ttl) = ttl {
        set.arg("PX").arg(ttl.as_millis());
    }
    set
}

/// A TTL as the scripts take it: empty for none.
fn millis(ttl: Option<Ttl>) -> String {
    ttl.map(|ttl| ttl.as_millis().to_string()).unwrap_or_default()
}

fn command(name: &str, key: &Key) -> Cmd {
    let mut command = Cmd::with_capacity(3, name.len() + key.as_bytes().len() + 24);
    command.arg(name).arg(key.as_bytes());
    command
}

impl Answer {
    fn read(self, reply: Reply) -> Result<WriteAck> {
        match (self, reply) {
            (_, Reply::ServerError(refusal)) => Err(error::refused(refusal)),
            (Self::Put(revision), Reply::Nil | Reply::Int(0)) => Ok(WriteAck::primary(Some(revision), Some(false))),
            (Self::Put(revision), Reply::BulkString(_) | Reply::Int(_)) => {
                Ok(WriteAck::primary(Some(revision), Some(true)))
            }
            (Self::Created(revision), Reply::Okay) => Ok(WriteAck::primary(Some(revision), Some(false))),
            (Self::Created(_), Reply::Nil) => Err(Error::conflict("there is an entry under the key already")),
            (Self::Updated(revision), Reply::Int(1)) => Ok(WriteAck::primary(Some(revision), Some(true))),
            (Self::DeletedIf, Reply::Int(1)) => Ok(WriteAck::primary(None, Some(true))),
            (Self::Updated(_) | Self::DeletedIf, Reply::Int(_)) => {
                Err(Error::conflict("the entry is gone or has another revision"))
            }
            (Self::Deleted, Reply::Int(count)) => Ok(WriteAck::primary(None, Some(count > 0))),
            (Self::Touched, Reply::Nil) => Ok(WriteAck::primary(None, Some(false))),
            (Self::Touched, Reply::BulkString(digest)) => {
                let revision = std::str::from_utf8(&digest).ok().and_then(|digest| digest.parse().ok());
                Ok(WriteAck::primary(Some(revision.ok_or_else(error::unexpected_reply)?), Some(true)))
            }
            _ => Err(error::unexpected_reply()),
        }
    }
}

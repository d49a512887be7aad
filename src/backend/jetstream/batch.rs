//! Puts of several keys: all sent, one right after the other, before the first acknowledgement is awaited.

use std::collections::HashSet;

use async_nats::jetstream;
use futures_util::future;

use crate::contract::{Context, Write, WriteAck, WriteMode, WriteOp};
use crate::error::{Error, Result};
use crate::revision::Revision;

use super::error::Failure;
use super::publish::{Published, understand};
use super::session::Session;
use super::write::{Target, Writer};

/// The most messages that wait for their acknowledgements at once.
const PIPELINED: usize = 1024;

/// Whether nothing but the fence stands between the writes and the store, so that they need not wait for each other.
pub(super) fn are_puts_of_distinct_keys(writes: &[Write]) -> bool {
    let is_put = |write: &Write| matches!(write.op, WriteOp::Put { mode: WriteMode::Upsert, .. });
    let mut keys = HashSet::with_capacity(writes.len());
    writes.iter().all(|write| is_put(write) && keys.insert(&write.key))
}

impl Writer {
    /// Applies puts of distinct keys, one answer a put.
    pub(super) async fn put_all(&self, puts: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        let mut answers = Vec::with_capacity(puts.len());
        for chunk in puts.chunks(PIPELINED) {
            match self.session(cx).await {
                Ok(session) => answers.extend(self.put_chunk(&session, chunk, cx).await),
                Err(error) => answers.extend(chunk.iter().map(|_| Err(error.clone()))),
            }
        }
        answers
    }

    async fn put_chunk(&self, session: &Session, puts: &[Write], cx: &Context) -> Vec<Result<WriteAck>> {
        let fence = session.fence.sequence().filter(|_| session.bucket.is_fenced);
        let mut messages = Vec::with_capacity(puts.len());
        let refused: Vec<Option<Error>> = puts
            .iter()
            .map(|put| {
                let WriteOp::Put { value, ttl, .. } = &put.op else { return Some(Error::internal("not a put")) };
                let target = Target { key: &put.key, stamp: put.stamp, cx };
                let message = self.message(session, target, value, self.expiry(*ttl), None, fence);
                message.map(|message| messages.push(message)).err()
            })
            .collect();
        let mut replies = session.request_all(messages, cx).await.into_iter();
        let mut answers = Vec::with_capacity(puts.len());
        let mut unsettled = Vec::new();
        for (at, (put, refused)) in puts.iter().zip(refused).enumerate() {
            let unanswered = || Err(Failure::Unanswered("the batch gave fewer answers than it had puts", None));
            answers.push(match refused {
                Some(error) => Err(error),
                None => match replies.next().unwrap_or_else(unanswered).and_then(|reply| understand(&reply)) {
                    Ok(Ok(Published::Stored(sequence))) => Ok(stored(sequence)),
                    outcome => {
                        unsettled.push(async move { (at, self.settle_put(session, put, outcome, fence, cx).await) });
                        Err(Error::internal("a put was not settled"))
                    }
                },
            });
        }
        for (at, settled) in future::join_all(unsettled).await {
            answers.get_mut(at).into_iter().for_each(|answer| *answer = settled.clone());
        }
        answers
    }

    async fn settle_put(
        &self,
        session: &Session,
        put: &Write,
        outcome: Result<Result<Published, jetstream::Error>, Failure>,
        fence: Option<u64>,
        cx: &Context,
    ) -> Result<WriteAck> {
        let target = Target { key: &put.key, stamp: put.stamp, cx };
        match self.settle(target, outcome).await? {
            Published::Stored(sequence) => Ok(stored(sequence)),
            Published::Conflict => {
                // It was not stored, as the fence was gone; by itself it is sent again behind a new one.
                fence.into_iter().for_each(|sequence| session.fence.is_gone(sequence));
                self.write(put.clone(), cx).await
            }
        }
    }
}

fn stored(sequence: u64) -> WriteAck {
    WriteAck::primary(Some(Revision::from_sequence(sequence)), None)
}

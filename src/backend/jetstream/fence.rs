//! The [`Fence`]: keeps out what an earlier connection still has on the way.
//!
//! A server that hung, or a network, can hold what a connection sent until long after its caller was told that it failed, and
//! deliver it when a newer connection has written. So each cache has a subject of its own in the bucket. A connection stores a
//! message there before its first write, and every put of it names that message's sequence as the last one of the subject: a
//! put of an earlier connection names an older one, and is refused. That costs no round trip a put.
//!
//! What has an expectation of its own (a creation, an update, a delete, a counter) names no fence, because a message can have
//! one expectation only. It is refused if the entry changed meanwhile. What remains is a creation or a first count: late, it
//! can land where nothing is yet, or nothing again. And a fence is one cache's: it says nothing of what other processes wrote.
//!
//! The message is a marker of a delete, so that other clients see no key, and ends by itself, so that caches that are gone
//! leave nothing. If it is gone, by its time or by somebody's purge, puts are refused, and the fence is raised anew.
//!
//! A second message is stored right behind it, under another subject, which nobody reads. To find where a message ends, the
//! server looks for the next one that is still there (nats-server 2.15, `msgBlock.slotInfo`), and it looks the fence up for each
//! put. Alone, the fence came to have thousands of messages behind it that had been replaced, and a put took twice the time.
//!
//! A bucket with replicas has no fence. Of messages that name one subject its leader takes one at a time and refuses the
//! others (nats-server 2.12, `checkMsgHeadersPreClusteredProposal`): puts would wait for each other, and were seen to take
//! fifteen times as long.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::contract::Context;
use crate::error::{Error, Result};
use crate::stamp::Stamp;

use super::error::{Failure, api_failure, is_full};
use super::publish::{Published, publish};
use super::record::marker_headers;
use super::session::Session;

/// How long a fence stands. A cache that writes on raises another then, at the cost of one put that is sent twice.
const FENCE_TTL: Duration = Duration::from_secs(60 * 60);

/// How long a full bucket is not asked again whether it has room for the fence.
const FULL_PAUSE: Duration = Duration::from_secs(2);

/// The fence of one connection.
#[derive(Debug)]
pub(super) struct Fence {
    subject: String,
    /// That of the message behind it.
    behind: String,
    state: Mutex<State>,
    /// Those who would raise it take turns, so that it is raised once for all of them.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not raised yet.
    Down,
    /// Raised, by the message with this sequence.
    Standing(u64),
    /// Found to be gone. A put that was about to name it still does, and is refused as well: without a fence it could land late.
    Gone(u64),
    /// The bucket was full at this moment. Deleting must still be possible, and replacing by something smaller.
    Without(Instant),
}

impl Fence {
    /// Makes the fence of a new connection, which has yet to raise it, with its subject and that of the message behind it.
    pub(super) fn new([subject, behind]: [String; 2]) -> Self {
        Self { subject, behind, state: Mutex::new(State::Down), turn: tokio::sync::Mutex::const_new(()) }
    }

    /// The subject of its messages.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The sequence that puts must name, if the fence stands.
    pub(super) fn sequence(&self) -> Option<u64> {
        match *self.state() {
            State::Standing(sequence) | State::Gone(sequence) => Some(sequence),
            State::Down | State::Without(_) => None,
        }
    }

    /// Takes note that a put was refused which named this sequence.
    pub(super) fn is_gone(&self, sequence: u64) {
        let mut state = self.state();
        // Somebody else may have raised it again already.
        if *state == State::Standing(sequence) {
            *state = State::Gone(sequence);
        }
    }

    /// Takes note that something was removed, so that there may be room for it.
    pub(super) fn has_room(&self) {
        let mut state = self.state();
        if matches!(*state, State::Without(_)) {
            *state = State::Down;
        }
    }

    fn is_missing(&self) -> bool {
        match *self.state() {
            State::Down | State::Gone(_) => true,
            State::Standing(_) => false,
            State::Without(since) => since.elapsed() >= FULL_PAUSE,
        }
    }

    /// Raises it unless it stands.
    pub(super) async fn raise(&self, session: &Session, stamp: Stamp, cx: &Context) -> Result<()> {
        if self.is_missing() {
            let _turn = self.turn(cx).await?;
            if self.is_missing() {
                self.store(session, stamp, cx).await?;
            }
        }
        Ok(())
    }

    /// Raises it though it may stand. Says its sequence, which is after all that was acknowledged before; `None` if the bucket is
    /// full.
    pub(super) async fn renew(&self, session: &Session, stamp: Stamp, cx: &Context) -> Result<Option<u64>> {
        let _turn = self.turn(cx).await?;
        self.store(session, stamp, cx).await?;
        Ok(self.sequence())
    }

    async fn turn(&self, cx: &Context) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        let late = || Error::unavailable("the server did not confirm this connection as the one that writes");
        cx.limit(self.turn.lock()).await.ok_or_else(late)
    }

    async fn store(&self, session: &Session, stamp: Stamp, cx: &Context) -> Result<()> {
        let headers = marker_headers(stamp, FENCE_TTL);
        let published = publish(session, self.subject.clone(), headers.clone(), Bytes::new(), cx).await;
        if matches!(published, Ok(Ok(Published::Stored(_)))) {
            // The fence stands without it, only slower, so that nobody waits for an answer.
            let behind = session.client().publish_with_headers(self.behind.clone(), headers, Bytes::new());
            let _ = cx.limit(behind).await;
        }
        *self.state() = match published.map_err(Failure::of_read)? {
            Ok(Published::Stored(sequence)) => State::Standing(sequence),
            // It expects nothing.
            Ok(Published::Conflict) => State::Down,
            Err(error) if is_full(&error) => State::Without(Instant::now()),
            Err(error) => return Err(api_failure(error)),
        };
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_that_was_raised_again_is_not_gone() {
        let fence = Fence::new(["s", "t"].map(str::to_owned));
        *fence.state() = State::Standing(7);
        fence.is_gone(6);
        assert!(!fence.is_missing());
        fence.is_gone(7);
        assert!(fence.is_missing());
        assert_eq!(fence.sequence(), Some(7), "who is about to put names it, and is refused");
    }
}

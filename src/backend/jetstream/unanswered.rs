//! The writes of a connection that went unanswered: [`Unanswered`].
//!
//! The server puts what is published in a queue, and serves reads past it. So it may still have a write whose caller gave it up,
//! when it says to a later read of the same connection that there is nothing. A delete that believed that would be undone. What it
//! has of one connection it stores in the order in which that was sent: once it acknowledges another message, the write is
//! stored, or never will be.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::contract::Context;
use crate::error::{Error, Result};
use crate::stamp::HybridClock;

use super::error::{Failure, api_failure, is_full};
use super::publish::ping;
use super::session::Session;

/// Counts the writes of one connection that were given up without an answer.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    count: AtomicU64,
    /// How many of them were decided when another message was acknowledged.
    decided: AtomicU64,
    /// Those who would have them decided take turns, so that one message does it for all.
    turn: Mutex<()>,
}

impl Unanswered {
    /// Begins a write, which counts as unanswered if what is returned is dropped.
    pub(super) const fn begin(&self) -> Sent<'_> {
        Sent { unanswered: self }
    }

    /// Has those decided that were given up before. It costs nothing if there are none.
    pub(super) async fn decide(&self, session: &Session, stamps: &HybridClock, cx: &Context) -> Result<()> {
        if self.undecided().is_none() {
            return Ok(());
        }
        let late = || Error::unavailable("the server did not confirm what became of an earlier write");
        let _turn = cx.limit(self.turn.lock()).await.ok_or_else(late)?;
        let Some(count) = self.undecided() else { return Ok(()) };
        match ping(session, stamps.issue(), cx).await.map_err(Failure::of_read)? {
            // Where there is no room for it, the server says so in its turn.
            Err(error) if !is_full(&error) => Err(api_failure(error)),
            _ => {
                self.were_decided(count);
                Ok(())
            }
        }
    }

    /// How many there are, if some may still be on their way.
    fn undecided(&self) -> Option<u64> {
        let count = self.count.load(Ordering::Acquire);
        (count > 0 && self.decided.load(Ordering::Acquire) < count).then_some(count)
    }

    /// Takes note that a message was answered that was sent when there were so many.
    fn were_decided(&self, count: u64) {
        self.decided.fetch_max(count, Ordering::Release);
    }
}

/// A write that is under way.
#[must_use]
pub(super) struct Sent<'a> {
    unanswered: &'a Unanswered,
}

impl Sent<'_> {
    /// Ends it: it was answered, or never sent.
    pub(super) const fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.unanswered.count.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_undecided_until_a_later_message_is_answered() {
        let unanswered = Unanswered::default();
        unanswered.begin().end();
        assert_eq!(unanswered.undecided(), None);
        drop(unanswered.begin());
        assert_eq!(unanswered.undecided(), Some(1));
        // Given up while the message was under way.
        drop(unanswered.begin());
        unanswered.were_decided(1);
        assert_eq!(unanswered.undecided(), Some(2));
        unanswered.were_decided(2);
        unanswered.were_decided(1);
        assert_eq!(unanswered.undecided(), None);
    }
}

//! Listing and counting keys.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::contract::{Context, Cursor, KeyPage, ListOptions};
use crate::error::{Error, Result};
use crate::key::KeyPrefix;
use crate::time::Clock;

use super::codec::Filter;
use super::scan::{BATCH, CONSUMER_IDLE, Scan, Seen};
use super::session::Session;

/// The most messages looked at for one page, so that a page of few keys among many ends in time.
const LOOKED_AT_A_PAGE: u64 = 100_000;

/// The most listings whose walks wait for their next page. Each is a consumer at the server and a subscription here.
const RESTING: usize = 16;

/// Lists keys, and keeps the walk of a listing for its next page.
///
/// A cursor is the sequence that its page ended with, and needs nothing kept: but to begin a walk in the middle, the server
/// counts what is left, and a listing of a million keys has a thousand pages.
#[derive(Debug, Default)]
pub(super) struct Lister {
    resting: Mutex<VecDeque<Resting>>,
}

/// A walk that waits for its next page.
#[derive(Debug)]
struct Resting {
    prefix: KeyPrefix,
    after: u64,
    since: Instant,
    scan: Scan,
}

impl Lister {
    /// Lists one page of the live keys with a prefix.
    pub(super) async fn list(
        &self,
        session: &Arc<Session>,
        prefix: &KeyPrefix,
        options: &ListOptions,
        clock: &Clock,
        cx: &Context,
    ) -> Result<KeyPage> {
        let after = options.cursor.as_ref().map_or(Ok(0), read_cursor)?;
        let limit = options.limit.clamp(1, ListOptions::MAX_LIMIT);
        let mut scan = match self.resume(session, prefix, after) {
            Some(scan) => scan,
            None => Scan::after(session, &Filter::new(prefix), after, cx).await?,
        };
        let mut keys = Vec::new();
        let (mut looked_at, mut in_vain) = (0, 0);
        loop {
            // As many again as were looked at in vain, so that few keys among many do not take a request each.
            let wanted = in_vain.max((limit - keys.len()) as u64).min(LOOKED_AT_A_PAGE - looked_at);
            let Some(Seen { sequence, key, record }) = scan.next(wanted, cx).await? else { break };
            let live = record.is_live(clock.now());
            let found = key.filter(|key| live && prefix.matches(key));
            in_vain = if found.is_some() { 0 } else { in_vain + 1 };
            keys.extend(found);
            looked_at += 1;
            if keys.len() >= limit || looked_at >= LOOKED_AT_A_PAGE {
                if scan.is_at_end(limit as u64, cx).await? {
                    break;
                }
                self.rest(prefix, sequence, scan);
                return Ok(KeyPage::new(keys, Some(Cursor::new(sequence.to_string()))));
            }
        }
        Ok(KeyPage::new(keys, None))
    }

    /// Gives up all walks.
    pub(super) fn close(&self) {
        let resting = std::mem::take(&mut *self.resting());
        drop(resting);
    }

    /// The walk that ended a page there, if it waits and the server has kept it. It is taken out: a cursor that is used twice
    /// begins a walk of its own the second time.
    fn resume(&self, session: &Arc<Session>, prefix: &KeyPrefix, after: u64) -> Option<Scan> {
        let mut resting = self.resting();
        // Half of the time that the server keeps a walk, so that it is not given up on the way.
        resting.retain(|walk| walk.since.elapsed() < CONSUMER_IDLE / 2 && walk.scan.is_at_rest());
        let at = resting.iter().position(|walk| walk.after == after && walk.prefix == *prefix)?;
        let walk = resting.remove(at)?;
        walk.scan.is_on(session).then_some(walk.scan)
    }

    fn rest(&self, prefix: &KeyPrefix, after: u64, scan: Scan) {
        if !scan.is_at_rest() {
            return;
        }
        let mut resting = self.resting();
        resting.push_back(Resting { prefix: prefix.clone(), after, since: Instant::now(), scan });
        let oldest = if resting.len() > RESTING { resting.pop_front() } else { None };
        drop(resting);
        drop(oldest);
    }

    fn resting(&self) -> MutexGuard<'_, VecDeque<Resting>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the live keys with a prefix.
///
/// A key that is written during the walk comes again, so each is remembered by a hash; two of a million keys have the same 64
/// bits with a chance of one in thirty million.
pub(super) async fn count(session: &Arc<Session>, prefix: &KeyPrefix, clock: &Clock, cx: &Context) -> Result<u64> {
    let mut scan = Scan::after(session, &Filter::new(prefix), 0, cx).await?;
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    while let Some(Seen { key, record, .. }) = scan.next(BATCH, cx).await? {
        let Some(key) = key.filter(|key| prefix.matches(key)) else { continue };
        if record.is_live(clock.now()) {
            seen.insert(hasher.hash_one(&key));
        } else {
            seen.remove(&hasher.hash_one(&key));
        }
    }
    Ok(seen.len() as u64)
}

fn read_cursor(cursor: &Cursor) -> Result<u64> {
    let digits = cursor.as_str().bytes().all(|byte| byte.is_ascii_digit());
    let sequence = cursor.as_str().parse().ok().filter(|sequence| digits && *sequence < u64::MAX);
    sequence.ok_or_else(|| Error::invalid_value("the cursor is not one of this cache; use the one its last page gave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_sequence() {
        assert_eq!(read_cursor(&Cursor::new("42")).unwrap(), 42);
        for text in ["", "-1", "+1", "4 2", "x", "18446744073709551615", "99999999999999999999"] {
            assert!(read_cursor(&Cursor::new(text)).is_err(), "{text}");
        }
    }
}

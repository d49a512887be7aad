//! The sweeper: takes tombstones, expired values and the ids of trimmed items once nothing can need them any more.

use std::time::Duration;

use rusqlite::Connection;

use crate::engine::sqlite::{Maintenance, Progress, SqlResult};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::codec;
use super::session::Clocks;

/// Rows of each sort that one portion takes; a few milliseconds at most.
const PORTION: i64 = 500;

/// How often to look: no less often than every minute, so that a portion stays small.
const MAX_REST: Duration = Duration::from_secs(60);

/// No more often than that, however short the retention.
const MIN_REST: Duration = Duration::from_secs(1);

const HAS_WORK: &str = "SELECT EXISTS (SELECT 1 FROM kv WHERE kind = 0 AND stamp < ?1) \
                            OR EXISTS (SELECT 1 FROM kv WHERE expires_at IS NOT NULL AND expires_at < ?2 AND stamp < ?1) \
                            OR EXISTS (SELECT 1 FROM item WHERE kind = 0 AND stamp < ?1)";

const RAISE_FLOOR: &str = "UPDATE meta SET gc_floor = ?1 WHERE gc_floor < ?1";

const TOMBSTONES: &str = "DELETE FROM kv WHERE key IN (SELECT key FROM kv WHERE kind = 0 AND stamp < ?1 LIMIT ?2)";

const EXPIRED: &str = "DELETE FROM kv WHERE key IN \
                       (SELECT key FROM kv WHERE expires_at IS NOT NULL AND expires_at < ?3 AND stamp < ?1 LIMIT ?2)";

const TRIMMED: &str = "DELETE FROM item WHERE (key, position) IN \
                       (SELECT key, position FROM item WHERE kind = 0 AND stamp < ?1 LIMIT ?2)";

/// Sweeps what is older than the retention, from time to time.
pub(super) fn maintenance(clocks: Clocks, retention: Duration) -> Maintenance {
    Maintenance {
        every: (retention / 4).clamp(MIN_REST, MAX_REST),
        portion: Box::new(move |connection| {
            let age = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
            let cutoff = clocks.wall.now().as_millis().saturating_sub(age);
            sweep(connection, Timestamp::from_millis(cutoff))
        }),
    }
}

/// Takes one portion of what is older than a moment.
fn sweep(connection: &Connection, cutoff: Timestamp) -> SqlResult<Progress> {
    let bound = Stamp::earliest(cutoff).to_bytes();
    let millis = codec::millis(cutoff);
    let has_work: bool = connection.prepare_cached(HAS_WORK)?.query_row((bound, millis), |row| row.get(0))?;
    if !has_work {
        return Ok(Progress::Done);
    }
    // Whoever replays older writes must know, before a tombstone is gone, that they are not guarded any more.
    connection.prepare_cached(RAISE_FLOOR)?.execute([bound])?;
    let portion = usize::try_from(PORTION).unwrap_or(usize::MAX);
    let tombstones = connection.prepare_cached(TOMBSTONES)?.execute((bound, PORTION))?;
    let expired = connection.prepare_cached(EXPIRED)?.execute((bound, PORTION, millis))?;
    let trimmed = connection.prepare_cached(TRIMMED)?.execute((bound, PORTION))?;
    let more = [tombstones, expired, trimmed].into_iter().any(|rows| rows == portion);
    Ok(if more { Progress::More } else { Progress::Done })
}

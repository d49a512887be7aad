//! The sweeper: takes tombstones, expired values and the ids of trimmed items once nothing can need them any more.

use std::time::Duration;

use rusqlite::Connection;

use crate::engine::sqlite::{Maintenance, Progress, SqlResult};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::codec;
use super::session::Shared;

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

const TRIMMED: &str = "DELETE FROM item WHERE rowid IN (SELECT rowid FROM item WHERE kind = 0 AND stamp < ?1 LIMIT ?2)";

/// Sweeps what is older than the retention, from time to time.
pub(super) fn maintenance(shared: Shared, retention: Duration) -> Maintenance {
    Maintenance {
        every: (retention / 4).clamp(MIN_REST, MAX_REST),
        portion: Box::new(move |connection| {
            let age = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
            shared.session(connection)?;
            let cutoff = shared.wall.now().as_millis().saturating_sub(age);
            sweep(connection, Timestamp::from_millis(cutoff))
        }),
    }
}

/// Takes one portion of what is older than a moment.
pub(super) fn sweep(connection: &Connection, cutoff: Timestamp) -> SqlResult<Progress> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sqlite::tests::Tables;
    use crate::backend::sqlite::{list, write};
    use crate::contract::{Append, ItemId, ListRange, Write, WriteMode, WriteOp};
    use crate::key::Key;
    use crate::time::Ttl;
    use crate::value::Value;
    use std::ops::Deref;

    struct Database(Tables);

    impl Deref for Database {
        type Target = Tables;

        fn deref(&self) -> &Tables {
            &self.0
        }
    }

    impl Database {
        fn new() -> Self {
            Self(Tables::new())
        }

        fn put(&self, key: &str, ttl: Option<Ttl>) {
            let op = WriteOp::Put { value: Value::json("1").unwrap(), mode: WriteMode::Upsert, ttl };
            let write = Write::new(Key::parse(key).unwrap(), op, self.stamps.issue());
            write::write(&self.session(), &write).unwrap();
        }

        fn delete(&self, key: &str) {
            let stamped = write::Stamped::first(self.stamps.issue());
            write::delete(&self.session(), &Key::parse(key).unwrap(), None, stamped).unwrap();
        }

        fn append(&self, key: &str, id: &str) -> (Option<u64>, Option<bool>) {
            let append = Append::new(Key::parse(key).unwrap(), Value::json("1").unwrap(), self.stamps.issue());
            let ack = list::append(&self.session(), &append.with_item_id(ItemId::parse(id).unwrap())).unwrap();
            (ack.position, ack.existed)
        }

        fn sweep(&self) -> Progress {
            sweep(&self.connection, self.wall.now()).unwrap()
        }

        fn floor(&self) -> Stamp {
            self.connection
                .query_row("SELECT gc_floor FROM meta", [], |row| row.get::<_, [u8; 16]>(0))
                .map(Stamp::from_bytes)
                .unwrap()
        }
    }

    #[test]
    fn old_tombstones_and_expired_values_go_and_the_rest_stays() {
        let database = Database::new();
        database.put("stays", None);
        database.put("long", Some(Ttl::from_secs(60).unwrap()));
        database.put("short", Some(Ttl::from_secs(1).unwrap()));
        database.put("deleted", None);
        database.delete("deleted");
        database.wall.advance(Duration::from_secs(2));
        database.delete("just deleted");
        assert_eq!(database.sweep(), Progress::Done);
        let mut keys = database.connection.prepare("SELECT key FROM kv ORDER BY key").unwrap();
        let keys: Vec<String> = keys.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(keys, ["just deleted", "long", "stays"]);
    }

    #[test]
    fn the_floor_rises_above_what_goes_and_only_then() {
        let database = Database::new();
        database.put("stays", None);
        database.wall.advance(Duration::from_secs(1));
        database.sweep();
        assert_eq!(database.floor(), Stamp::MIN);
        let deleted = database.stamps.issue();
        database.delete("deleted");
        database.wall.advance(Duration::from_secs(1));
        database.sweep();
        assert!(database.floor() > deleted);
    }

    #[test]
    fn an_id_is_kept_from_the_trim_on_and_positions_for_ever() {
        let database = Database::new();
        let key = Key::parse("list").unwrap();
        assert_eq!(database.append("list", "a"), (Some(0), Some(false)));
        database.wall.advance(Duration::from_secs(1));
        list::trim(&database.session(), &key, 0).unwrap();
        database.sweep();
        assert_eq!(database.append("list", "a"), (Some(0), Some(true)));
        database.wall.advance(Duration::from_secs(1));
        database.sweep();
        assert_eq!(database.count("item"), 0);
        assert_eq!(database.append("list", "a"), (Some(1), Some(false)));
        assert_eq!(list::range(&database.session(), &key, ListRange::ALL).unwrap().len(), 1);
    }

    #[test]
    fn a_portion_is_bounded_and_says_so() {
        let database = Database::new();
        for number in 0..=PORTION {
            database.delete(&number.to_string());
        }
        database.wall.advance(Duration::from_secs(1));
        assert_eq!(database.sweep(), Progress::More);
        assert_eq!(database.count("kv"), 1);
        assert_eq!(database.sweep(), Progress::Done);
        assert_eq!(database.count("kv"), 0);
    }

    #[test]
    fn what_is_looked_for_is_found_by_an_index() {
        let database = Database::new();
        for statement in [HAS_WORK, TOMBSTONES, EXPIRED, TRIMMED] {
            let mut plan = database.connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            let mut rows = plan.raw_query();
            while let Some(row) = rows.next().unwrap() {
                let step: String = row.get(3).unwrap();
                assert!(!step.starts_with("SCAN kv") && !step.starts_with("SCAN item"), "{statement}: {step}");
            }
        }
    }
}

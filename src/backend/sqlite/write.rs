//! One write: what stands under the key is looked at, then changed, in the same transaction.

use rusqlite::CachedStatement;

use crate::contract::{Attempt, Refused, Write, WriteAck, WriteMode, WriteOp};
use crate::engine::sqlite::{Atomicity, SqlResult};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::revision::Revision;
use crate::stamp::Stamp;
use crate::time::{Timestamp, Ttl};
use crate::value::Value;

use super::codec::{self, Columns, GONE};
use super::error::of_item;
use super::list;
use super::session::Session;

const STANDING: &str = "SELECT stamp, expires_at, kind FROM kv WHERE key = ?1";

// The tombstone that a value takes the place of is still known to a list that is made later.
pub(super) const PUT: &str = "INSERT INTO kv (key, stamp, expires_at, kind, json, bin) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                              ON CONFLICT (key) DO UPDATE SET stamp = excluded.stamp, \
                              expires_at = excluded.expires_at, kind = excluded.kind, json = excluded.json, \
                              bin = excluded.bin, floor = CASE kv.kind WHEN 0 THEN kv.stamp ELSE kv.floor END";

pub(super) const BURY: &str = "INSERT INTO kv (key, stamp, kind) VALUES (?1, ?2, 0) \
                               ON CONFLICT (key) DO UPDATE SET stamp = excluded.stamp, expires_at = NULL, kind = 0, \
                               json = NULL, bin = NULL, floor = NULL";

const TOUCH: &str = "UPDATE kv SET stamp = ?2, expires_at = ?3 WHERE key = ?1";

/// What stands under a key, without its value.
#[derive(Clone, Copy, Debug)]
struct Standing {
    stamp: Stamp,
    expires_at: Option<Timestamp>,
    kind: i64,
}

impl Standing {
    /// Reads the row of a key. A stamp that was corrupted counts as the oldest, so that a write can mend the record.
    fn of(session: &Session<'_>, key: &Key) -> SqlResult<Option<Self>> {
        Self::read(&mut session.connection.prepare_cached(STANDING)?, key)
    }

    fn read(statement: &mut CachedStatement<'_>, key: &Key) -> SqlResult<Option<Self>> {
        let mut rows = statement.query([key.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let stamp = codec::stamp(row, 0).unwrap_or(Stamp::MIN);
        Ok(Some(Self { stamp, expires_at: codec::moment(row, 1)?, kind: row.get(2)? }))
    }

    fn is_live(&self, now: Timestamp) -> bool {
        self.kind != GONE && self.expires_at.is_none_or(|at| at > now)
    }

    fn revision(&self) -> Revision {
        Revision::from_stamp(self.stamp)
    }
}

/// How much must be undone if the write fails.
pub(super) fn atomicity(write: &Write) -> Atomicity {
    match write.op {
        WriteOp::Put { .. } | WriteOp::Touch { .. } => Atomicity::Statement,
        // It removes the list too.
        WriteOp::Delete { .. } => Atomicity::Savepoint,
    }
}

/// What a write takes of the queue.
pub(super) fn weight(write: &Write) -> usize {
    write.key.as_str().len() + write.value_bytes()
}

/// Applies one write.
pub(super) fn write(session: &Session<'_>, write: &Write) -> SqlResult<WriteAck> {
    apply(session, &mut Puts::new(session)?, write)
}

/// Applies writes in order, each with its own answer.
pub(super) fn write_each(
    session: &Session<'_>,
    writes: &[Write],
    refused: &mut Refused,
) -> SqlResult<Vec<Result<WriteAck>>> {
    let mut puts = Puts::new(session)?;
    let mut one = |write: &Write| of_item(apply(session, &mut puts, write));
    writes.iter().map(|write| refused.guard(&write.key, write.attempt, || one(write))).collect()
}

fn apply(session: &Session<'_>, puts: &mut Puts<'_>, write: &Write) -> SqlResult<WriteAck> {
    let Write { key, op, stamp, attempt } = write;
    let stamped = Stamped { stamp: *stamp, attempt: *attempt };
    match op {
        WriteOp::Put { value, mode, ttl } => puts.put(key, Put { value, mode: *mode, ttl: *ttl }, stamped),
        WriteOp::Delete { only_if } => delete(session, key, *only_if, stamped),
        WriteOp::Touch { ttl } => touch(session, key, *ttl, stamped),
    }
}

/// A stamp, and what becomes of a write that is behind.
#[derive(Clone, Copy)]
pub(super) struct Stamped {
    pub(super) stamp: Stamp,
    pub(super) attempt: Attempt,
}

impl Stamped {
    /// A stamp that was not used before.
    #[cfg(test)]
    pub(super) const fn first(stamp: Stamp) -> Self {
        Self { stamp, attempt: Attempt::First }
    }

    /// Whether an error says that a write is behind and may not be stamped anew.
    pub(super) fn refuses(self, error: &Error) -> bool {
        error.is_behind() || self.attempt == Attempt::Repeat && error.kind() == ErrorKind::OutcomeUnknown
    }

    fn past(self, session: &Session<'_>, standing: Option<Stamp>) -> SqlResult<Stamp> {
        Ok(session.newer_than(standing, self.stamp, self.attempt)?)
    }
}

struct Put<'a> {
    value: &'a Value,
    mode: WriteMode,
    ttl: Option<Ttl>,
}

/// The statements of a put, looked up once for all of a batch.
struct Puts<'a> {
    session: Session<'a>,
    standing: CachedStatement<'a>,
    put: CachedStatement<'a>,
}

impl<'a> Puts<'a> {
    fn new(session: &Session<'a>) -> SqlResult<Self> {
        let (standing, put) = (session.connection.prepare_cached(STANDING)?, session.connection.prepare_cached(PUT)?);
        Ok(Self { session: *session, standing, put })
    }

    fn put(&mut self, key: &Key, put: Put<'_>, stamped: Stamped) -> SqlResult<WriteAck> {
        let session = &self.session;
        let Put { value, mode, ttl } = put;
        let stamp = stamped.stamp;
        let standing = Standing::read(&mut self.standing, key)?;
        if standing.is_some_and(|standing| standing.stamp == stamp) {
            // The same write was applied before; what was there before that is not known any more.
            return Ok(WriteAck::primary(Some(Revision::from_stamp(stamp)), None));
        }
        let live = standing.filter(|standing| standing.is_live(session.now));
        let holds = match mode {
            WriteMode::Upsert => true,
            WriteMode::Create => live.is_none(),
            WriteMode::Update(revision) | WriteMode::Replace(revision) => {
                live.is_some_and(|live| live.revision() == revision)
            }
        };
        if !holds {
            return Err(lost(mode).into());
        }
        let stamp = stamped.past(session, standing.map(|standing| standing.stamp))?;
        let expires_at = match mode {
            WriteMode::Replace(_) => live.and_then(|live| live.expires_at),
            WriteMode::Upsert | WriteMode::Create | WriteMode::Update(_) => ttl.map(|ttl| session.now.after(ttl)),
        };
        let expires_at = expires_at.map(codec::millis);
        let Columns { kind, json, bin } = Columns::from(value);
        let parameters = (key.as_str(), stamp.to_bytes(), expires_at, kind, json, bin);
        self.put.execute(parameters)?;
        Ok(WriteAck::primary(Some(Revision::from_stamp(stamp)), Some(live.is_some())))
    }
}

fn lost(mode: WriteMode) -> Error {
    Error::conflict(match mode {
        WriteMode::Create => "the key has a value already",
        WriteMode::Update(_) | WriteMode::Replace(_) | WriteMode::Upsert => {
            "the value under the key does not have the expected revision"
        }
    })
}

/// Removes value and list, and leaves a tombstone also where nothing was, against an older write that is still to come.
pub(super) fn delete(
    session: &Session<'_>,
    key: &Key,
    only_if: Option<Revision>,
    stamped: Stamped,
) -> SqlResult<WriteAck> {
    let stamp = stamped.stamp;
    let standing = Standing::of(session, key)?;
    if standing.is_some_and(|standing| standing.kind == GONE && standing.stamp == stamp) {
        return Ok(WriteAck::primary(None, None));
    }
    let live = standing.filter(|standing| standing.is_live(session.now));
    if let Some(revision) = only_if
        && live.map(|live| live.revision()) != Some(revision)
    {
        return Err(lost(WriteMode::Update(revision)).into());
    }
    let list = list::Head::to_delete(session, key)?;
    let newest = standing.map(|standing| standing.stamp).max(list.map(|list| list.max_stamp));
    let stamp = stamped.past(session, newest)?;
    session.connection.prepare_cached(BURY)?.execute((key.as_str(), stamp.to_bytes()))?;
    if let Some(list) = list {
        list::delete(session, key, list, stamp)?;
    }
    let existed = live.is_some() || list.is_some_and(|list| list.length() > 0);
    Ok(WriteAck::primary(None, Some(existed)))
}

fn touch(session: &Session<'_>, key: &Key, ttl: Option<Ttl>, stamped: Stamped) -> SqlResult<WriteAck> {
    let stamp = stamped.stamp;
    let Some(standing) = Standing::of(session, key)?.filter(|standing| standing.is_live(session.now)) else {
        return Ok(WriteAck::primary(None, Some(false)));
    };
    let stamp = if standing.stamp == stamp { stamp } else { stamped.past(session, Some(standing.stamp))? };
    let expires_at = ttl.map(|ttl| codec::millis(session.now.after(ttl)));
    session.connection.prepare_cached(TOUCH)?.execute((key.as_str(), stamp.to_bytes(), expires_at))?;
    Ok(WriteAck::primary(Some(Revision::from_stamp(stamp)), Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sqlite::tests::Tables;
    use crate::contract::Append;
    use crate::stamp::HybridClock;
    use crate::time::Clock;
    use std::ops::Deref;
    use std::time::Duration;

    /// A database whose own clock is an hour behind the one that gave `newest`.
    struct Behind {
        tables: Tables,
        newest: Stamp,
    }

    impl Deref for Behind {
        type Target = Tables;

        fn deref(&self) -> &Tables {
            &self.tables
        }
    }

    impl Behind {
        fn new() -> Self {
            let ahead = Clock::manual();
            ahead.advance(Duration::from_secs(3600));
            Self { tables: Tables::new(), newest: HybridClock::new(ahead).issue() }
        }

        fn apply(&self, op: WriteOp, stamp: Stamp) -> WriteAck {
            write(&self.session(), &Write::new(key(), op, stamp)).unwrap()
        }

        fn stored(&self, column: &str, table: &str) -> Stamp {
            let select = format!("SELECT {column} FROM {table}");
            self.connection.query_row(&select, [], |row| row.get(0)).map(Stamp::from_bytes).unwrap()
        }
    }

    fn key() -> Key {
        Key::parse("a").unwrap()
    }

    fn put_op() -> WriteOp {
        WriteOp::Put { value: Value::json("1").unwrap(), mode: WriteMode::Upsert, ttl: None }
    }

    #[test]
    fn a_write_that_is_behind_is_stamped_past_what_stands() {
        for op in [put_op(), WriteOp::Touch { ttl: None }, WriteOp::Delete { only_if: None }] {
            let database = Behind::new();
            database.apply(put_op(), database.newest);
            let ack = database.apply(op, HybridClock::new(database.wall.clone()).issue());
            assert_eq!(ack.existed, Some(true));
            let stored = database.stored("stamp", "kv");
            assert!(stored > database.newest);
            assert!(ack.revision.is_none_or(|revision| revision == Revision::from_stamp(stored)));
            assert!(database.stamps.issue() > stored, "the clock has seen it");
        }
    }

    #[test]
    fn a_write_that_is_ahead_keeps_its_stamp() {
        let database = Behind::new();
        database.apply(put_op(), database.stamps.issue());
        let ack = database.apply(put_op(), database.newest);
        assert_eq!(ack.revision, Some(Revision::from_stamp(database.newest)));
    }

    #[test]
    fn a_list_is_deleted_past_its_newest_item_and_appended_to_past_its_delete() {
        let database = Behind::new();
        let append = |stamp| list::append(&database.session(), &Append::new(key(), Value::json("1").unwrap(), stamp));
        append(database.newest).unwrap();
        database.apply(WriteOp::Delete { only_if: None }, HybridClock::new(database.wall.clone()).issue());
        let floor = database.stored("floor", "list");
        assert!(floor > database.newest && database.stored("stamp", "kv") == floor);
        append(HybridClock::new(database.wall.clone()).issue()).unwrap();
        assert!(database.stored("stamp", "item") > floor);
    }

    #[test]
    fn a_repeated_write_changes_nothing() {
        let database = Behind::new();
        for op in [put_op(), WriteOp::Delete { only_if: None }] {
            let stamp = database.stamps.issue();
            database.apply(op.clone(), stamp);
            assert_eq!(database.apply(op, stamp).existed, None);
            assert_eq!(database.stored("stamp", "kv"), stamp);
        }
    }
}

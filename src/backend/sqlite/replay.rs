//! Replay: steps that may have been applied before, each once in effect.
//!
//! A step looks at all it must before it changes anything, so that one that fails by what it finds leaves nothing behind.

use crate::contract::{
    Append, AppendOrder, LostOperation, ReplayDecision, ReplayOptions, ReplayOutcome, Step, Write, WriteOp,
};
use crate::engine::sqlite::SqlResult;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::Value;

use super::codec::{self, Columns, GONE};
use super::error::of_item;
use super::list::{self, Head};
use super::scan::{self, KeyRange};
use super::session::Session;
use super::{conflict, meta, write};

const STANDING: &str = "SELECT stamp, kind, floor FROM kv WHERE key = ?1";

const OVERWRITTEN: &str = "SELECT expires_at, kind, json, bin FROM kv WHERE key = ?1";

/// Replays steps in order, each with its own answer. What came before them is in `order`.
pub(super) fn replay(
    session: &Session<'_>,
    steps: &[Step],
    options: &ReplayOptions,
    mut order: AppendOrder,
) -> SqlResult<Vec<Result<ReplayOutcome>>> {
    let replay = Replay::new(session, options)?;
    let mut answer = |step: &Step| {
        if order.withholds(step) {
            return Ok(Ok(ReplayOutcome::Withheld));
        }
        let answer = of_item(replay.step(step))?;
        order.note(step, &answer);
        Ok(answer)
    };
    steps.iter().map(&mut answer).collect()
}

/// Replays a clear on the first keys of a range; says where to go on, if there are more.
pub(super) fn clear(
    session: &Session<'_>,
    range: &KeyRange,
    stamp: Stamp,
    options: &ReplayOptions,
) -> SqlResult<(ReplayOutcome, Option<Key>)> {
    let replay = Replay::new(session, options)?;
    if let Some(too_old) = replay.too_old(stamp) {
        return Ok((too_old, None));
    }
    let (keys, more) = scan::keys(session, range, scan::CLEAR_PAGE)?;
    for key in &keys {
        replay.delete(key, stamp, Loss::OfClear)?;
    }
    Ok((ReplayOutcome::Applied, keys.last().filter(|_| more).cloned()))
}

/// What a delete may lose by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Anything of somebody else's that stays.
    OfDelete,
    /// What was written before it and stays; what was written later is none of a clear's matter.
    OfClear,
}

/// What stands under a key, without its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    stamp: Stamp,
    /// The stamp of the last delete.
    pub(super) floor: Option<Stamp>,
}

/// One replay in its transaction.
pub(super) struct Replay<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) options: &'a ReplayOptions,
    /// Deletes before this stamp may be forgotten.
    gc_floor: Stamp,
}

impl<'a> Replay<'a> {
    fn new(session: &'a Session<'a>, options: &'a ReplayOptions) -> SqlResult<Self> {
        Ok(Self { session, options, gc_floor: meta::gc_floor(session)? })
    }

    fn step(&self, step: &Step) -> SqlResult<ReplayOutcome> {
        step.check_replayable()?;
        match step {
            Step::Append(append) => self.append(append),
            Step::Write(Write { key, op: WriteOp::Put { value, ttl, .. }, stamp, .. }) => {
                self.put(key, value, ttl.map(|ttl| self.session.now.after(ttl)), *stamp)
            }
            Step::Expired { key, value, expires_at, stamp } => {
                self.put(key, value, Some(self.session.now.min(*expires_at)), *stamp)
            }
            Step::Write(Write { key, op: WriteOp::Delete { .. }, stamp, .. }) => {
                self.delete(key, *stamp, Loss::OfDelete)
            }
            Step::Write(_) | Step::Trim { .. } | Step::Clear { .. } => {
                Err(Error::internal("a step was replayed as one that it is not").into())
            }
        }
    }

    fn put(&self, key: &Key, value: &Value, expires_at: Option<Timestamp>, stamp: Stamp) -> SqlResult<ReplayOutcome> {
        check_size(value)?;
        let standing = self.standing(key)?.map(|standing| standing.stamp);
        match self.judge(stamp, standing) {
            ReplayDecision::Skip => Ok(ReplayOutcome::AlreadyApplied),
            ReplayDecision::Lose { winner } => {
                self.lose(key, stamp, &LostOperation::Put { value: value.clone(), expires_at }, winner)
            }
            ReplayDecision::Apply { keep_overwritten } => {
                if let Some(too_old) = self.too_old(stamp) {
                    return Ok(too_old);
                }
                self.keep_overwritten(key, standing.filter(|_| keep_overwritten), stamp)?;
                let Columns { kind, json, bin } = Columns::from(value);
                let parameters = (key.as_str(), stamp.to_bytes(), expires_at.map(codec::millis), kind, json, bin);
                self.session.connection.prepare_cached(write::PUT)?.execute(parameters)?;
                Ok(ReplayOutcome::Applied)
            }
        }
    }

    fn append(&self, append: &Append) -> SqlResult<ReplayOutcome> {
        let Append { key, value, item_id, stamp, .. } = append;
        check_size(value)?;
        if list::knows(self.session, key, item_id)? {
            return Ok(ReplayOutcome::AlreadyApplied);
        }
        let head = Head::to_append(self.session, key)?;
        match self.judge(*stamp, head.deleted()) {
            ReplayDecision::Skip => Ok(ReplayOutcome::AlreadyApplied),
            ReplayDecision::Lose { winner } => {
                let lost = LostOperation::Append { value: value.clone(), item_id: item_id.clone() };
                self.lose(key, *stamp, &lost, winner)
            }
            ReplayDecision::Apply { .. } => match self.too_old(*stamp) {
                Some(too_old) => Ok(too_old),
                None => list::push(self.session, append, head).map(|()| ReplayOutcome::Applied),
            },
        }
    }

    /// Value and list are judged apart.
    fn delete(&self, key: &Key, stamp: Stamp, loss: Loss) -> SqlResult<ReplayOutcome> {
        let standing = self.standing(key)?;
        let value = self.judge(stamp, standing.map(|standing| standing.stamp));
        let list = self.judge_list(key, stamp, standing)?;
        let deletes_value = matches!(value, ReplayDecision::Apply { .. });
        let changes = deletes_value || list.removes();
        if changes && let Some(too_old) = self.too_old(stamp) {
            return Ok(too_old);
        }
        if let ReplayDecision::Apply { keep_overwritten } = value {
            let overwritten = standing.map(|standing| standing.stamp).filter(|_| keep_overwritten);
            self.keep_overwritten(key, overwritten, stamp)?;
            self.session.connection.prepare_cached(write::BURY)?.execute((key.as_str(), stamp.to_bytes()))?;
        }
        let newer = if let ReplayDecision::Lose { winner } = value { Some(winner) } else { None };
        let winner = newer.max(list.winner);
        self.execute(key, stamp, list)?;
        match winner {
            Some(winner) if loss == Loss::OfDelete || winner < stamp => {
                self.lose(key, stamp, &LostOperation::Delete, winner)
            }
            _ if changes => Ok(ReplayOutcome::Applied),
            _ => Ok(ReplayOutcome::AlreadyApplied),
        }
    }

    fn standing(&self, key: &Key) -> SqlResult<Option<Standing>> {
        let mut statement = self.session.connection.prepare_cached(STANDING)?;
        let mut rows = statement.query([key.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        // A stamp that was corrupted counts as the oldest, so that a write can mend the record.
        let stamp = codec::stamp(row, 0).unwrap_or(Stamp::MIN);
        let floor = if row.get::<_, i64>(1)? == GONE { Some(stamp) } else { codec::stamp(row, 2).ok() };
        Ok(Some(Standing { stamp, floor }))
    }

    pub(super) fn judge(&self, stamp: Stamp, standing: Option<Stamp>) -> ReplayDecision {
        if let Some(standing) = standing {
            self.session.stamps.observe(standing);
        }
        self.options.decide(stamp, standing)
    }

    fn too_old(&self, stamp: Stamp) -> Option<ReplayOutcome> {
        (stamp < self.gc_floor).then_some(ReplayOutcome::TooOld { floor: self.gc_floor })
    }

    fn lose(&self, key: &Key, stamp: Stamp, lost: &LostOperation, winner: Stamp) -> SqlResult<ReplayOutcome> {
        conflict::keep(self.session, key, stamp, lost, winner)?;
        Ok(ReplayOutcome::Superseded { winner })
    }

    /// Keeps what stands under this stamp, if any, as beaten by another one.
    fn keep_overwritten(&self, key: &Key, standing: Option<Stamp>, winner: Stamp) -> SqlResult<()> {
        let Some(stamp) = standing else { return Ok(()) };
        let mut statement = self.session.connection.prepare_cached(OVERWRITTEN)?;
        let mut rows = statement.query([key.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(()) };
        let lost = match codec::value(row, 1)? {
            Some(value) => LostOperation::Put { value, expires_at: codec::moment(row, 0)? },
            None => LostOperation::Delete,
        };
        conflict::keep(self.session, key, stamp, &lost, winner)
    }
}

fn check_size(value: &Value) -> Result<()> {
    if value.len() <= Value::MAX_BYTES {
        return Ok(());
    }
    Err(Error::too_large(format!("a value may have at most {} bytes", Value::MAX_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sqlite::sweep;
    use crate::backend::sqlite::tests::Tables;
    use crate::contract::{ConflictOptions, WriteMode};
    use crate::key::KeyPrefix;
    use crate::stamp::HybridClock;
    use crate::time::Ttl;
    use std::ops::Deref;
    use std::time::Duration;

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

        fn options(&self) -> ReplayOptions {
            ReplayOptions::new(Stamp::MIN)
        }

        fn replay(&self, step: &Step) -> ReplayOutcome {
            let order = AppendOrder::default();
            replay(&self.session(), std::slice::from_ref(step), &self.options(), order).unwrap().remove(0).unwrap()
        }

        fn put(&self) -> Step {
            Step::Write(Write::put(key(), Value::from_integer(1), self.stamps.issue()))
        }

        fn append(&self) -> Step {
            Step::Append(Append::new(key(), Value::from_integer(1), self.stamps.issue()))
        }

        fn delete(&self) -> Step {
            Step::Write(Write::delete(key(), self.stamps.issue()))
        }

        /// Sweeps what is older than now.
        fn sweep(&self) {
            self.wall.advance(Duration::from_secs(1));
            sweep::sweep(&self.connection, self.wall.now()).unwrap();
        }

        fn assert_too_old(&self, step: &Step) {
            let before = [self.count("kv"), self.count("item"), self.count("conflict")];
            let outcome = self.replay(step);
            let floor = meta::gc_floor(&self.session()).unwrap();
            assert_eq!(outcome, ReplayOutcome::TooOld { floor }, "{step:?}");
            assert_eq!([self.count("kv"), self.count("item"), self.count("conflict")], before, "{step:?}");
        }
    }

    fn key() -> Key {
        Key::parse("k").unwrap()
    }

    #[test]
    fn a_step_older_than_a_swept_tombstone_is_too_old() {
        let database = Database::new();
        let older = [database.put(), database.append(), database.delete()];
        database.replay(&database.put());
        database.replay(&database.delete());
        assert_eq!(database.replay(&older[0]), ReplayOutcome::AlreadyApplied);
        database.sweep();
        assert_eq!(database.count("kv"), 0);
        for step in &older {
            database.assert_too_old(step);
        }
        for step in [database.put(), database.append(), database.delete()] {
            assert_eq!(database.replay(&step), ReplayOutcome::Applied, "{step:?}");
        }
    }

    #[test]
    fn a_step_older_than_a_swept_value_is_too_old() {
        let database = Database::new();
        let older = database.put();
        let op = WriteOp::Put {
            value: Value::from_integer(2),
            mode: WriteMode::Upsert,
            ttl: Some(Ttl::from_millis(1).unwrap()),
        };
        let step = Step::Write(Write::new(key(), op, database.stamps.issue()));
        assert_eq!(database.replay(&step), ReplayOutcome::Applied);
        database.sweep();
        assert_eq!(database.count("kv"), 0);
        database.assert_too_old(&older);
    }

    #[test]
    fn a_step_older_than_a_swept_id_is_too_old() {
        let database = Database::new();
        let step = database.append();
        assert_eq!(database.replay(&step), ReplayOutcome::Applied);
        list::trim(&database.session(), &key(), 0).unwrap();
        database.sweep();
        assert_eq!(database.count("item"), 0);
        database.assert_too_old(&step);
    }

    #[test]
    fn what_is_there_or_beaten_is_not_too_old() {
        let database = Database::new();
        let (older, applied, item) = (database.put(), database.put(), database.append());
        database.replay(&applied);
        database.replay(&item);
        let other = Key::parse("other").unwrap();
        write::delete(&database.session(), &other, None, write::Stamped::first(database.stamps.issue())).unwrap();
        database.sweep();
        assert!(meta::gc_floor(&database.session()).unwrap() > Stamp::MIN);
        for step in [older, applied, item] {
            assert_eq!(database.replay(&step), ReplayOutcome::AlreadyApplied, "{step:?}");
        }
    }

    #[test]
    fn a_clear_older_than_what_was_swept_is_too_old() {
        let database = Database::new();
        let older = database.stamps.issue();
        database.replay(&database.put());
        let other = Key::parse("other").unwrap();
        write::delete(&database.session(), &other, None, write::Stamped::first(database.stamps.issue())).unwrap();
        database.sweep();
        let range = KeyRange::new(&KeyPrefix::empty(), None);
        let (outcome, next) = clear(&database.session(), &range, older, &database.options()).unwrap();
        assert!(matches!(outcome, ReplayOutcome::TooOld { .. }) && next.is_none());
        assert_eq!(database.count("kv"), 1);
    }

    #[test]
    fn conflicts_are_read_in_order_without_sorting_them() {
        let database = Database::new();
        let theirs = HybridClock::new(database.wall.clone());
        let step = database.put();
        let newer = Write::put(key(), Value::from_integer(2), theirs.issue_after(database.stamps.issue()));
        write::write(&database.session(), &newer).unwrap();
        assert_eq!(database.replay(&step), ReplayOutcome::Superseded { winner: newer.stamp });
        assert_eq!(conflict::page(&database.session(), &ConflictOptions::default()).unwrap().len(), 1);
        let mut plan = database.connection.prepare(&format!("EXPLAIN QUERY PLAN {}", conflict::PAGE)).unwrap();
        let mut rows = plan.raw_query();
        while let Some(row) = rows.next().unwrap() {
            let step: String = row.get(3).unwrap();
            assert!(step.starts_with("SEARCH conflict USING PRIMARY KEY"), "{step}");
        }
    }
}

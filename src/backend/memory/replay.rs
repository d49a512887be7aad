//! Replay: steps that may have been applied before, each once in effect.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use crate::contract::{
    Append, AppendOrder, ConflictRecord, Context, LostOperation, ReplayDecision, ReplayOptions, ReplayOutcome, Step,
    Write, WriteOp,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::value::Value;

use super::conflict::Conflicts;
use super::list::{List, Stamped};
use super::record::Cell;
use super::shard::Shard;
use super::table::Table;
use super::write::Moment;

type Shards<'a> = BTreeMap<usize, MutexGuard<'a, Shard>>;

impl Table {
    /// Replays steps in order, under the locks of all shards that they touch.
    pub(super) fn replay(
        &self,
        steps: Vec<Step>,
        options: &ReplayOptions,
        conflicts: &Conflicts,
        cx: &Context,
    ) -> Vec<Result<ReplayOutcome>> {
        let moment = match self.admit(cx) {
            Ok(moment) => moment,
            Err(error) => return steps.iter().map(|_| Err(error.clone())).collect(),
        };
        let clears = steps.iter().any(|step| step.key().is_none());
        let indices = if clears {
            (0..self.shards().len()).collect()
        } else {
            steps.iter().filter_map(Step::key).map(|key| self.shard_index(key)).collect()
        };
        let mut shards = self.lock_shards(indices);
        let replay = Replay { options, conflicts, moment };
        let mut order = AppendOrder::default();
        let mut answer = |step: Step| {
            if order.withholds(&step) {
                return Ok(ReplayOutcome::Withheld);
            }
            let appended = matches!(step, Step::Append(_)).then(|| step.clone());
            let answer = self.replay_step(&mut shards, step, &replay);
            if let Some(append) = appended {
                order.note(&append, &answer);
            }
            answer
        };
        steps.into_iter().map(&mut answer).collect()
    }

    fn replay_step(&self, shards: &mut Shards<'_>, step: Step, replay: &Replay<'_>) -> Result<ReplayOutcome> {
        step.check_replayable()?;
        let index = step.key().map(|key| self.shard_index(key)).unwrap_or_default();
        let shard = shards.get_mut(&index).ok_or_else(|| Error::internal("a step's shard was not locked"))?;
        match step {
            Step::Clear { prefix, stamp } => Ok(self.replay_clear(shards, &prefix, stamp, replay)),
            Step::Append(append) => self.with_guard(shard, |shard| replay.append(shard, append)),
            Step::Write(Write { key, op, stamp, .. }) => self.with_guard(shard, |shard| match op {
                WriteOp::Put { value, ttl, .. } => {
                    let expires_at = ttl.map(|ttl| replay.moment.now.after(ttl));
                    replay.put(shard, &key, Cell::new(value, stamp, expires_at))
                }
                WriteOp::Delete { .. } => Ok(replay.delete(shard, &key, stamp, Loss::OfDelete)),
                WriteOp::Touch { .. } => Err(Error::internal("a touch was taken for a step that can be replayed")),
            }),
            Step::Expired { key, value, expires_at, stamp } => self.with_guard(shard, |shard| {
                let expires_at = Some(expires_at.min(replay.moment.now));
                replay.put(shard, &key, Cell::new(value, stamp, expires_at))
            }),
            Step::Trim { .. } => Err(Error::internal("a trim was taken for a step that can be replayed")),
        }
    }

    fn replay_clear(
        &self,
        shards: &mut Shards<'_>,
        prefix: &KeyPrefix,
        stamp: Stamp,
        replay: &Replay<'_>,
    ) -> ReplayOutcome {
        let forgotten = shards.values().map(|shard| shard.tombstones.forgotten()).max();
        if let Some(floor) = forgotten.filter(|forgotten| stamp <= *forgotten) {
            return ReplayOutcome::TooOld { floor };
        }
        for shard in shards.values_mut() {
            let there = shard.records_after(prefix, None).filter(|(_, record)| record.exists(replay.moment.now));
            let keys: Vec<Key> = there.map(|(key, _)| key.clone()).collect();
            self.with_guard(shard, |shard| {
                for key in &keys {
                    replay.delete(shard, key, stamp, Loss::OfClear);
                }
            });
        }
        ReplayOutcome::Applied
    }
}

/// What a delete may lose by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Anything of somebody else's that stays.
    OfDelete,
    /// What was written before it and stays; what was written later is none of a clear's matter.
    OfClear,
}

/// What a delete does to a list.
#[derive(Debug, Default)]
struct Sentence {
    /// Whether items that it beats go, and its stamp becomes the floor.
    applies: bool,
    /// How many items go.
    removed: usize,
    /// The items of others among them, which were appended meanwhile.
    overwritten: Vec<Stamped>,
    /// The newest stamp of what stays of others.
    winner: Option<Stamp>,
}

/// One replay, at its moment.
struct Replay<'a> {
    options: &'a ReplayOptions,
    conflicts: &'a Conflicts,
    moment: Moment<'a>,
}

impl Replay<'_> {
    fn put(&self, shard: &mut Shard, key: &Key, cell: Cell) -> Result<ReplayOutcome> {
        check_size(&cell.value)?;
        shard.sweep_some(self.moment.now);
        let (stamp, standing) = (cell.stamp, standing(shard, key));
        let forgotten = shard.tombstones.forgotten();
        Ok(match self.judge(stamp, standing) {
            ReplayDecision::Skip => ReplayOutcome::AlreadyApplied,
            ReplayDecision::Lose { winner } => {
                let Cell { value, expires_at, .. } = cell;
                self.lose(key, stamp, LostOperation::Put { value, expires_at }, winner)
            }
            ReplayDecision::Apply { .. } if stamp <= forgotten => ReplayOutcome::TooOld { floor: forgotten },
            ReplayDecision::Apply { keep_overwritten } => {
                self.keep_overwritten(shard, key, standing.filter(|_| keep_overwritten), stamp);
                shard.put_cell(key, cell);
                ReplayOutcome::Applied
            }
        })
    }

    fn append(&self, shard: &mut Shard, append: Append) -> Result<ReplayOutcome> {
        let Append { key, value, item_id, stamp, .. } = append;
        check_size(&value)?;
        shard.sweep_some(self.moment.now);
        let mut forgotten = shard.tombstones.forgotten();
        if let Some(list) = shard.existing_list_mut(&key) {
            list.sweep(self.moment.now);
            if list.knows(&item_id) {
                return Ok(ReplayOutcome::AlreadyApplied);
            }
            forgotten = forgotten.max(list.forgotten());
        }
        let floor = floor(shard, &key);
        Ok(match self.judge(stamp, floor) {
            ReplayDecision::Skip => ReplayOutcome::AlreadyApplied,
            ReplayDecision::Lose { winner } => self.lose(&key, stamp, LostOperation::Append { value, item_id }, winner),
            ReplayDecision::Apply { .. } if stamp <= forgotten => ReplayOutcome::TooOld { floor: forgotten },
            ReplayDecision::Apply { .. } => {
                shard.list_mut(&key).push(item_id, value, stamp);
                ReplayOutcome::Applied
            }
        })
    }

    /// Value and list are judged apart.
    fn delete(&self, shard: &mut Shard, key: &Key, stamp: Stamp, loss: Loss) -> ReplayOutcome {
        shard.sweep_some(self.moment.now);
        let standing = standing(shard, key);
        let value = self.judge(stamp, standing);
        let list = self.judge_list(shard, key, stamp);
        let deletes_value = matches!(value, ReplayDecision::Apply { .. });
        let forgotten = shard.tombstones.forgotten();
        if stamp <= forgotten && (deletes_value || list.removed > 0) {
            return ReplayOutcome::TooOld { floor: forgotten };
        }
        if let ReplayDecision::Apply { keep_overwritten } = value {
            self.keep_overwritten(shard, key, standing.filter(|_| keep_overwritten), stamp);
            shard.take_cell(key);
        }
        for Stamped { item, stamp: appended } in list.overwritten {
            let lost = LostOperation::Append { value: item.value, item_id: item.id };
            self.keep(key, appended, lost, stamp);
        }
        // Beneath a newer value the tombstone is the floor of a list to come.
        if (deletes_value || list.applies) && shard.tombstones.stamp(key).is_none_or(|buried| buried < stamp) {
            shard.tombstones.bury(key, stamp, self.moment.now);
        }
        if list.applies
            && let Some(standing) = shard.existing_list_mut(key)
        {
            standing.delete_some(stamp, |appended| self.beats(stamp, appended));
        }
        let newer = if let ReplayDecision::Lose { winner } = value { Some(winner) } else { None };
        match newer.max(list.winner) {
            Some(winner) if loss == Loss::OfDelete || winner < stamp => {
                self.lose(key, stamp, LostOperation::Delete, winner)
            }
            _ if deletes_value || list.removed > 0 => ReplayOutcome::Applied,
            _ => ReplayOutcome::AlreadyApplied,
        }
    }

    fn judge_list(&self, shard: &Shard, key: &Key, stamp: Stamp) -> Sentence {
        match self.judge(stamp, floor(shard, key)) {
            ReplayDecision::Skip => return Sentence::default(),
            ReplayDecision::Lose { winner } => return Sentence { winner: Some(winner), ..Sentence::default() },
            ReplayDecision::Apply { .. } => {}
        }
        let mut sentence = Sentence { applies: true, ..Sentence::default() };
        for item in list(shard, key).into_iter().flat_map(List::stamped) {
            match self.judge(stamp, Some(item.stamp)) {
                ReplayDecision::Skip => {}
                ReplayDecision::Lose { winner } => sentence.winner = sentence.winner.max(Some(winner)),
                ReplayDecision::Apply { keep_overwritten } => {
                    sentence.removed += 1;
                    sentence.overwritten.extend(keep_overwritten.then(|| item.clone()));
                }
            }
        }
        sentence
    }

    fn beats(&self, stamp: Stamp, standing: Stamp) -> bool {
        matches!(self.options.decide(stamp, Some(standing)), ReplayDecision::Apply { .. })
    }

    fn judge(&self, stamp: Stamp, standing: Option<Stamp>) -> ReplayDecision {
        if let Some(standing) = standing {
            self.moment.stamps.observe(standing);
        }
        self.options.decide(stamp, standing)
    }

    fn lose(&self, key: &Key, stamp: Stamp, operation: LostOperation, winner: Stamp) -> ReplayOutcome {
        self.keep(key, stamp, operation, winner);
        ReplayOutcome::Superseded { winner }
    }

    /// Keeps what stands under this stamp, if any, as beaten by another one.
    fn keep_overwritten(&self, shard: &Shard, key: &Key, standing: Option<Stamp>, winner: Stamp) {
        let Some(stamp) = standing else { return };
        let cell = shard.record(key).and_then(|record| record.cell.as_ref()).filter(|cell| cell.stamp == stamp);
        let lost = match cell {
            Some(cell) => LostOperation::Put { value: cell.value.clone(), expires_at: cell.expires_at },
            None => LostOperation::Delete,
        };
        self.keep(key, stamp, lost, winner);
    }

    fn keep(&self, key: &Key, stamp: Stamp, lost: LostOperation, winner: Stamp) {
        self.conflicts.keep(ConflictRecord::new(key.clone(), stamp, lost, winner, self.moment.now));
    }
}

/// The stamp of the value or tombstone under a key.
pub(super) fn standing(shard: &Shard, key: &Key) -> Option<Stamp> {
    let cell = shard.record(key).and_then(|record| record.cell.as_ref());
    cell.map(|cell| cell.stamp).max(shard.tombstones.stamp(key))
}

/// The stamp of the last delete of the list under a key, if there was one.
fn floor(shard: &Shard, key: &Key) -> Option<Stamp> {
    let floor = list(shard, key).map(List::floor).filter(|floor| *floor > Stamp::MIN);
    floor.max(shard.tombstones.stamp(key))
}

fn list<'a>(shard: &'a Shard, key: &Key) -> Option<&'a List> {
    shard.record(key)?.list.as_deref()
}

fn check_size(value: &Value) -> Result<()> {
    if value.len() <= Value::MAX_BYTES {
        return Ok(());
    }
    Err(Error::too_large(format!("a value may have at most {} bytes", Value::MAX_BYTES)))
}

//! What replayed steps come to, judged by what stands under their keys, one after the other. It sends nothing.

use std::collections::HashMap;

use crate::contract::{
    Append, AppendOrder, ItemId, ReplayDecision, ReplayOptions, ReplayOutcome, Step, Write, WriteOp,
};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::{HybridClock, Stamp};
use crate::time::Timestamp;
use crate::value::Value;

use super::sentence::{List, Overwritten, judge};

/// What a delete may lose by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Anything of somebody else's that stays.
    OfDelete,
    /// What was written before it and stays; what was written later is none of a clear's matter.
    OfClear,
}

/// A value, and when it ends; a tombstone has none.
type Content<'a> = Option<(&'a Value, Option<Timestamp>)>;

/// What is to be stored under a key.
pub(super) type Changed<'a> = (Stamp, Content<'a>);

/// What stands under a key besides its list, as it becomes step by step.
#[derive(Debug, Default)]
pub(super) struct Standing<'a> {
    stamp: Option<Stamp>,
    /// What a step wrote.
    written: Option<Content<'a>>,
}

/// A write that lost.
#[derive(Debug)]
pub(super) struct Lost<'a> {
    pub(super) key: &'a Key,
    pub(super) stamp: Stamp,
    pub(super) operation: Operation<'a>,
    pub(super) winner: Stamp,
}

/// What a write was that lost.
#[derive(Debug)]
pub(super) enum Operation<'a> {
    Put(&'a Value, Option<Timestamp>),
    Delete,
    Append(&'a Value, &'a ItemId),
    /// What is stored under the key, a value or a tombstone.
    StoredValue,
    /// The item that is stored at this position.
    StoredItem(u64),
}

/// The steps of one transaction, and what stands under their keys.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    pub(super) options: &'a ReplayOptions,
    pub(super) clock: &'a HybridClock,
    pub(super) loss: Loss,
    /// Deletes before this stamp may be forgotten.
    pub(super) gc_floor: Stamp,
    pub(super) now: Timestamp,
    pub(super) values: HashMap<&'a Key, Standing<'a>>,
    pub(super) lists: HashMap<&'a Key, List<'a>>,
    pub(super) lost: Vec<Lost<'a>>,
}

impl<'a> Standing<'a> {
    /// What is stored; the oldest stamp stands for nothing.
    pub(super) fn stored(stamp: Option<Stamp>) -> Self {
        Self { stamp: stamp.filter(|stamp| *stamp > Stamp::MIN), written: None }
    }

    /// What is to be stored, if that changed.
    pub(super) fn changed(&self) -> Option<Changed<'a>> {
        self.stamp.zip(self.written)
    }
}

impl<'a> Judge<'a> {
    /// Takes steps in order: what one changes is seen by the next. What became of those before them is in `order`.
    pub(super) fn steps(&mut self, steps: &'a [Step], order: &mut AppendOrder) -> Vec<Result<ReplayOutcome>> {
        let mut answer = |step| {
            if order.withholds(step) {
                return Ok(ReplayOutcome::Withheld);
            }
            let answer = self.step(step);
            order.note(step, &answer);
            answer
        };
        steps.iter().map(&mut answer).collect()
    }

    /// An error is the step's own; it changed nothing then.
    fn step(&mut self, step: &'a Step) -> Result<ReplayOutcome> {
        step.check_replayable()?;
        match step {
            Step::Append(append) => self.append(append),
            Step::Write(Write { key, op: WriteOp::Put { value, ttl, .. }, stamp, .. }) => {
                self.put(key, value, ttl.map(|ttl| self.now.after(ttl)), *stamp)
            }
            Step::Expired { key, value, expires_at, stamp } => {
                let expires_at = Some(self.now.min(*expires_at));
                let outcome = self.put(key, value, expires_at, *stamp)?;
                // It may have landed late, and counted its time from then.
                if outcome == ReplayOutcome::AlreadyApplied && self.stands(key, *stamp) {
                    self.write(key, *stamp, Some((value, expires_at)), false);
                }
                Ok(outcome)
            }
            Step::Write(Write { key, op: WriteOp::Delete { .. }, stamp, .. }) => self.delete(key, *stamp),
            Step::Write(_) | Step::Trim { .. } | Step::Clear { .. } => {
                Err(Error::internal("a step was replayed as one that it is not"))
            }
        }
    }

    fn put(
        &mut self,
        key: &'a Key,
        value: &'a Value,
        expires_at: Option<Timestamp>,
        stamp: Stamp,
    ) -> Result<ReplayOutcome> {
        check_size(value)?;
        match self.judge_value(key, stamp) {
            ReplayDecision::Skip => Ok(ReplayOutcome::AlreadyApplied),
            ReplayDecision::Lose { winner } => Ok(self.lose(key, stamp, Operation::Put(value, expires_at), winner)),
            ReplayDecision::Apply { .. } if stamp < self.gc_floor => Ok(self.too_old()),
            ReplayDecision::Apply { keep_overwritten } => {
                self.write(key, stamp, Some((value, expires_at)), keep_overwritten);
                Ok(ReplayOutcome::Applied)
            }
        }
    }

    fn append(&mut self, append: &'a Append) -> Result<ReplayOutcome> {
        check_size(&append.value)?;
        let (too_old, options, clock) = (append.stamp < self.gc_floor, self.options, self.clock);
        let list = self.lists.get_mut(&append.key).ok_or_else(unread)?;
        if list.corrupt {
            return Err(Error::corrupt("a list begins after its end; delete it to begin anew"));
        }
        if list.knows(append.item_id.as_str()) {
            return Ok(ReplayOutcome::AlreadyApplied);
        }
        match judge(append.stamp, list.floor, options, clock) {
            ReplayDecision::Skip => Ok(ReplayOutcome::AlreadyApplied),
            ReplayDecision::Lose { winner } => {
                let operation = Operation::Append(&append.value, &append.item_id);
                Ok(self.lose(&append.key, append.stamp, operation, winner))
            }
            ReplayDecision::Apply { .. } if too_old => Ok(self.too_old()),
            ReplayDecision::Apply { .. } => {
                list.push(append);
                Ok(ReplayOutcome::Applied)
            }
        }
    }

    /// Value and list are judged apart.
    fn delete(&mut self, key: &'a Key, stamp: Stamp) -> Result<ReplayOutcome> {
        let (options, clock) = (self.options, self.clock);
        let value = self.judge_value(key, stamp);
        let list = self.lists.get_mut(key).ok_or_else(unread)?;
        let sentence = list.judge(stamp, options, clock);
        let changes = matches!(value, ReplayDecision::Apply { .. }) || sentence.removes;
        if changes && stamp < self.gc_floor {
            return Ok(self.too_old());
        }
        let overwritten = list.execute(stamp, &sentence, options);
        self.lost.extend(overwritten.into_iter().map(|item| lost_item(key, item, stamp)));
        let newer = match value {
            ReplayDecision::Apply { keep_overwritten } => {
                self.write(key, stamp, None, keep_overwritten);
                None
            }
            ReplayDecision::Lose { winner } => Some(winner),
            ReplayDecision::Skip => None,
        };
        match newer.max(sentence.winner) {
            Some(winner) if self.loss == Loss::OfDelete || winner < stamp => {
                Ok(self.lose(key, stamp, Operation::Delete, winner))
            }
            _ if changes => Ok(ReplayOutcome::Applied),
            _ => Ok(ReplayOutcome::AlreadyApplied),
        }
    }

    fn stands(&self, key: &Key, stamp: Stamp) -> bool {
        self.values.get(key).is_some_and(|standing| standing.stamp == Some(stamp))
    }

    fn judge_value(&self, key: &Key, stamp: Stamp) -> ReplayDecision {
        judge(stamp, self.values.get(key).and_then(|standing| standing.stamp), self.options, self.clock)
    }

    fn write(&mut self, key: &'a Key, stamp: Stamp, value: Content<'a>, keep_overwritten: bool) {
        let standing = self.values.entry(key).or_default();
        if let Some(overwritten) = standing.stamp.filter(|_| keep_overwritten) {
            let operation = match standing.written {
                None => Operation::StoredValue,
                Some(None) => Operation::Delete,
                Some(Some((value, expires_at))) => Operation::Put(value, expires_at),
            };
            self.lost.push(Lost { key, stamp: overwritten, operation, winner: stamp });
        }
        *standing = Standing { stamp: Some(stamp), written: Some(value) };
    }

    fn lose(&mut self, key: &'a Key, stamp: Stamp, operation: Operation<'a>, winner: Stamp) -> ReplayOutcome {
        self.lost.push(Lost { key, stamp, operation, winner });
        ReplayOutcome::Superseded { winner }
    }

    const fn too_old(&self) -> ReplayOutcome {
        ReplayOutcome::TooOld { floor: self.gc_floor }
    }
}

fn lost_item<'a>(key: &'a Key, item: Overwritten<'a>, winner: Stamp) -> Lost<'a> {
    let operation = match item.item {
        Ok(append) => Operation::Append(&append.value, &append.item_id),
        Err(position) => Operation::StoredItem(position),
    };
    Lost { key, stamp: item.stamp, operation, winner }
}

fn check_size(value: &Value) -> Result<()> {
    if value.len() <= Value::MAX_BYTES {
        return Ok(());
    }
    Err(Error::too_large(format!("a value may have at most {} bytes", Value::MAX_BYTES)))
}

fn unread() -> Error {
    Error::internal("what stands under the key of a step was not read")
}

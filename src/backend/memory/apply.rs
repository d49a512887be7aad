//! Several steps, all or nothing.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use crate::contract::{Context, Step, StepAck};
use crate::error::{Error, Result};

use super::shard::Shard;
use super::table::{Table, lock};
use super::write::{self, Moment, Undo};

impl Table {
    /// Applies steps in order. All shards they touch are locked first, in their order, so that transactions cannot deadlock.
    pub(super) fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        let moment = self.admit(cx)?;
        let mut shards = self.lock_all(&steps)?;
        let mut undos: Vec<(usize, Undo)> = Vec::with_capacity(steps.len());
        let mut acks = Vec::with_capacity(steps.len());
        for step in steps {
            let index = step.key().map(|key| self.shard_index(key)).unwrap_or_default();
            let applied = match shards.get_mut(&index) {
                Some(shard) => self.with_guard(shard, |shard| apply_step(shard, step, moment)),
                None => Err(Error::internal("a step's shard was not locked")),
            };
            match applied {
                Ok((ack, undo)) => {
                    acks.push(ack);
                    undos.push((index, undo));
                }
                Err(error) => {
                    self.take_back(&mut shards, undos);
                    return Err(error);
                }
            }
        }
        Ok(acks)
    }

    fn lock_all(&self, steps: &[Step]) -> Result<BTreeMap<usize, MutexGuard<'_, Shard>>> {
        let mut indices = Vec::with_capacity(steps.len());
        for step in steps {
            let key = step.key().ok_or_else(|| Error::unsupported("a clear cannot be part of a transaction"))?;
            indices.push(self.shard_index(key));
        }
        Ok(self.lock_shards(indices))
    }

    /// Locks shards in their order, each once, so that those who lock several cannot deadlock.
    pub(super) fn lock_shards(&self, mut indices: Vec<usize>) -> BTreeMap<usize, MutexGuard<'_, Shard>> {
        indices.sort_unstable();
        indices.dedup();
        indices.into_iter().filter_map(|index| Some((index, lock(self.shards().get(index)?)))).collect()
    }

    fn take_back(&self, shards: &mut BTreeMap<usize, MutexGuard<'_, Shard>>, undos: Vec<(usize, Undo)>) {
        for (index, undo) in undos.into_iter().rev() {
            if let Some(shard) = shards.get_mut(&index) {
                self.with_guard(shard, |shard| undo.undo(shard));
            }
        }
    }
}

fn apply_step(shard: &mut Shard, step: Step, moment: Moment<'_>) -> Result<(StepAck, Undo)> {
    match step {
        Step::Write(write) => write::write(shard, write, moment).map(|(ack, undo)| (StepAck::Write(ack), undo)),
        Step::Append(append) => {
            let key = append.key.clone();
            let buried = shard.tombstones.stamp(&key);
            let ack = shard.list_mut(&key).append(append, buried, moment)?;
            let undo = if ack.existed == Some(false) { Undo::Append(key) } else { Undo::Nothing };
            Ok((StepAck::Append(ack), undo))
        }
        Step::Trim { key, keep_last } => match shard.existing_list_mut(&key) {
            Some(list) => {
                let trimmed = list.trim(keep_last, moment.now);
                Ok((StepAck::Trim(trimmed.len() as u64), Undo::Trim(key, trimmed)))
            }
            None => Ok((StepAck::Trim(0), Undo::Nothing)),
        },
        Step::Clear { .. } => Err(Error::unsupported("a clear cannot be part of a transaction")),
        Step::Expired { .. } => Err(Error::unsupported("a put that has ended can only be replayed")),
    }
}

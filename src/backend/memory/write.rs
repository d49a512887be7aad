//! One write on one shard, and how to take it back.

use crate::contract::{Attempt, Write, WriteAck, WriteMode, WriteOp};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::revision::Revision;
use crate::stamp::{HybridClock, Stamp};
use crate::time::{Timestamp, Ttl};
use crate::value::Value;

use super::list::{List, Stamped as StampedItem};
use super::record::Cell;
use super::shard::Shard;
use super::tombstones::Tombstone;

/// The present moment, and the clock that stamps a write anew when it is behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    pub(super) now: Timestamp,
    pub(super) stamps: &'a HybridClock,
}

/// How to take a step back. Dropping it keeps the step.
#[derive(Debug)]
pub(super) enum Undo {
    /// Nothing was changed.
    Nothing,
    /// The value was changed; this is the old one.
    Cell(Key, Option<Cell>),
    /// Value and list were deleted; these are the old ones, and the delete before.
    Delete(Key, Option<Cell>, Option<Box<List>>, Option<Tombstone>),
    /// An item was appended.
    Append(Key),
    /// These items were trimmed.
    Trim(Key, Vec<StampedItem>),
}

impl Undo {
    pub(super) fn undo(self, shard: &mut Shard) {
        match self {
            Self::Nothing => {}
            Self::Cell(key, cell) => restore_cell(shard, &key, cell),
            Self::Delete(key, cell, list, tombstone) => {
                restore_cell(shard, &key, cell);
                shard.tombstones.take_back(&key, tombstone);
                if let Some(list) = list {
                    *shard.list_mut(&key) = *list;
                }
            }
            Self::Append(key) => shard.list_mut(&key).take_back(),
            Self::Trim(key, items) => shard.list_mut(&key).untrim(items),
        }
    }
}

fn restore_cell(shard: &mut Shard, key: &Key, cell: Option<Cell>) {
    match cell {
        Some(cell) => drop(shard.put_cell(key, cell)),
        None => drop(shard.take_cell(key)),
    }
}

/// Applies one write to the shard of its key.
pub(super) fn write(shard: &mut Shard, write: Write, moment: Moment<'_>) -> Result<(WriteAck, Undo)> {
    let Write { key, op, stamp, attempt } = write;
    let stamped = Stamped { stamp, attempt };
    match op {
        WriteOp::Put { value, mode, ttl } => put(shard, key, Put { value, mode, ttl }, stamped, moment),
        WriteOp::Delete { only_if } => delete(shard, key, only_if, stamped, moment),
        WriteOp::Touch { ttl } => touch(shard, key, ttl, stamped, moment),
    }
}

/// A stamp, and what becomes of a write that is behind.
#[derive(Clone, Copy)]
pub(super) struct Stamped {
    pub(super) stamp: Stamp,
    pub(super) attempt: Attempt,
}

impl Stamped {
    fn past(self, standing: Option<Stamp>, moment: Moment<'_>) -> Result<Stamp> {
        self.attempt.stamp_past(standing, self.stamp, moment.stamps)
    }
}

struct Put {
    value: Value,
    mode: WriteMode,
    ttl: Option<Ttl>,
}

fn put(shard: &mut Shard, key: Key, put: Put, stamped: Stamped, moment: Moment<'_>) -> Result<(WriteAck, Undo)> {
    let Put { value, mode, ttl } = put;
    let stamp = stamped.stamp;
    let standing = shard.record(&key).and_then(|record| record.cell.as_ref());
    if standing.is_some_and(|cell| cell.stamp == stamp) {
        return Ok((WriteAck::primary(Some(Revision::from_stamp(stamp)), None), Undo::Nothing));
    }
    let live = standing.filter(|cell| cell.is_live(moment.now));
    let existed = live.is_some();
    let holds = match mode {
        WriteMode::Upsert => true,
        WriteMode::Create => !existed,
        WriteMode::Update(revision) | WriteMode::Replace(revision) => {
            live.is_some_and(|cell| cell.revision() == revision)
        }
    };
    if !holds {
        return Err(lost(mode));
    }
    let expires_at = live.and_then(|cell| cell.expires_at);
    let newest = standing.map(|cell| cell.stamp).max(shard.tombstones.stamp(&key));
    let stamp = stamped.past(newest, moment)?;
    let expires_at = match mode {
        WriteMode::Replace(_) => expires_at,
        WriteMode::Upsert | WriteMode::Create | WriteMode::Update(_) => ttl.map(|ttl| moment.now.after(ttl)),
    };
    let old = shard.put_cell(&key, Cell::new(value, stamp, expires_at));
    Ok((WriteAck::primary(Some(Revision::from_stamp(stamp)), Some(existed)), Undo::Cell(key, old)))
}

fn lost(mode: WriteMode) -> Error {
    Error::conflict(match mode {
        WriteMode::Create => "the key has a value already",
        WriteMode::Update(_) | WriteMode::Replace(_) | WriteMode::Upsert => {
            "the value under the key does not have the expected revision"
        }
    })
}

fn delete(
    shard: &mut Shard,
    key: Key,
    only_if: Option<Revision>,
    stamped: Stamped,
    moment: Moment<'_>,
) -> Result<(WriteAck, Undo)> {
    let record = shard.record(&key);
    let buried = shard.tombstones.stamp(&key);
    let newest = record.and_then(|record| record.cell.as_ref()).map(|cell| cell.stamp).max(buried);
    if newest == Some(stamped.stamp) && buried == newest {
        // The same delete was applied before; what was there before that is not known any more.
        return Ok((WriteAck::primary(None, None), Undo::Nothing));
    }
    let existed = record.is_some_and(|record| record.exists(moment.now));
    if let Some(revision) = only_if
        && record.and_then(|record| record.live(moment.now)).map(Cell::revision) != Some(revision)
    {
        return Err(lost(WriteMode::Update(revision)));
    }
    let newest_item = record.and_then(|record| record.list.as_ref()).map(|list| list.newest());
    let stamp = stamped.past(newest.max(newest_item), moment)?;
    let tombstone = shard.tombstones.bury(&key, stamp, moment.now);
    let cell = shard.take_cell(&key);
    let list = shard.existing_list_mut(&key).map(|list| Box::new(list.delete(stamp)));
    Ok((WriteAck::primary(None, Some(existed)), Undo::Delete(key, cell, list, tombstone)))
}

fn touch(
    shard: &mut Shard,
    key: Key,
    ttl: Option<Ttl>,
    stamped: Stamped,
    moment: Moment<'_>,
) -> Result<(WriteAck, Undo)> {
    let stamp = stamped.stamp;
    let Some(cell) = shard.record(&key).and_then(|record| record.live(moment.now)) else {
        return Ok((WriteAck::primary(None, Some(false)), Undo::Nothing));
    };
    let stamp = if cell.stamp == stamp { stamp } else { stamped.past(Some(cell.stamp), moment)? };
    let expires_at = ttl.map(|ttl| moment.now.after(ttl));
    let touched = Cell::new(cell.value.clone(), stamp, expires_at);
    let old = shard.put_cell(&key, touched);
    Ok((WriteAck::primary(Some(Revision::from_stamp(stamp)), Some(true)), Undo::Cell(key, old)))
}

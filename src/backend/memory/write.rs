//! One write on one shard, and how to take it back.

use crate::contract::{Item, Write, WriteAck, WriteMode, WriteOp};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::revision::Revision;
use crate::stamp::{HybridClock, Stamp};
use crate::time::{Timestamp, Ttl};
use crate::value::Value;

use super::list::List;
use super::record::Cell;
use super::shard::Shard;

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
    /// Value and list were deleted; these are the old ones.
    Delete(Key, Option<Cell>, Option<Box<List>>),
    /// An item was appended.
    Append(Key),
    /// These items were trimmed.
    Trim(Key, Vec<Item>),
}

impl Undo {
    pub(super) fn undo(self, shard: &mut Shard) {
        match self {
            Self::Nothing => {}
            Self::Cell(key, cell) => restore_cell(shard, &key, cell),
            Self::Delete(key, cell, list) => {
                restore_cell(shard, &key, cell);
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
    let Write { key, op, stamp } = write;
    match op {
        WriteOp::Put { value, mode, ttl } => put(shard, key, value, mode, ttl, stamp, moment),
        WriteOp::Delete { only_if } => delete(shard, key, only_if, moment),
        WriteOp::Touch { ttl } => Ok(touch(shard, key, ttl, stamp, moment)),
    }
}

fn put(
    shard: &mut Shard,
    key: Key,
    value: Value,
    mode: WriteMode,
    ttl: Option<Ttl>,
    stamp: Stamp,
    moment: Moment<'_>,
) -> Result<(WriteAck, Undo)> {
    let standing = shard.record(&key).and_then(|record| record.cell.as_ref());
    if standing.is_some_and(|cell| cell.stamp == stamp) {
        return Ok((WriteAck::primary(Some(Revision::from_stamp(stamp)), None), Undo::Nothing));
    }
    let live = standing.filter(|cell| cell.is_live(moment.now));
    let existed = live.is_some();
    let holds = match mode {
        WriteMode::Upsert => true,
        WriteMode::Create => !existed,
        WriteMode::Update(revision) => live.is_some_and(|cell| cell.revision() == revision),
    };
    if !holds {
        return Err(lost(mode));
    }
    let stamp = newer_than(standing.map(|cell| cell.stamp), stamp, moment);
    let expires_at = ttl.map(|ttl| moment.now.after(ttl));
    let old = shard.put_cell(&key, Cell::new(value, stamp, expires_at));
    Ok((WriteAck::primary(Some(Revision::from_stamp(stamp)), Some(existed)), Undo::Cell(key, old)))
}

fn lost(mode: WriteMode) -> Error {
    Error::conflict(match mode {
        WriteMode::Create => "the key has a value already",
        WriteMode::Update(_) | WriteMode::Upsert => "the value under the key does not have the expected revision",
    })
}

fn delete(shard: &mut Shard, key: Key, only_if: Option<Revision>, moment: Moment<'_>) -> Result<(WriteAck, Undo)> {
    let record = shard.record(&key);
    let existed = record.is_some_and(|record| record.exists(moment.now));
    if let Some(revision) = only_if
        && record.and_then(|record| record.live(moment.now)).map(Cell::revision) != Some(revision)
    {
        return Err(lost(WriteMode::Update(revision)));
    }
    let cell = shard.take_cell(&key);
    let list = shard.existing_list_mut(&key).map(|list| Box::new(list.delete(moment.now)));
    Ok((WriteAck::primary(None, Some(existed)), Undo::Delete(key, cell, list)))
}

fn touch(shard: &mut Shard, key: Key, ttl: Option<Ttl>, stamp: Stamp, moment: Moment<'_>) -> (WriteAck, Undo) {
    let Some(cell) = shard.record(&key).and_then(|record| record.live(moment.now)) else {
        return (WriteAck::primary(None, Some(false)), Undo::Nothing);
    };
    let stamp = if cell.stamp == stamp { stamp } else { newer_than(Some(cell.stamp), stamp, moment) };
    let expires_at = ttl.map(|ttl| moment.now.after(ttl));
    let touched = Cell::new(cell.value.clone(), stamp, expires_at);
    let old = shard.put_cell(&key, touched);
    (WriteAck::primary(Some(Revision::from_stamp(stamp)), Some(true)), Undo::Cell(key, old))
}

/// The write's stamp, or a new one if what stands there is newer.
fn newer_than(standing: Option<Stamp>, stamp: Stamp, moment: Moment<'_>) -> Stamp {
    match standing {
        Some(standing) if standing >= stamp => moment.stamps.issue_after(standing),
        _ => stamp,
    }
}

//! What became of a change whose reply was lost: a value that carries its stamp says that it was applied. That none does says nothing, for
//! it may yet land.

use std::collections::HashSet;

use crate::chain::core::Core;
use crate::contract::{
    AppendAck, Context, Durability, GetOptions, Lookup, Step, StepAck, Write, WriteAck, WriteMode, WriteOp,
};
use crate::key::Key;
use crate::revision::Revision;
use crate::stamp::Stamp;

use super::read::read;

/// Whether a value stands that carries this stamp.
async fn stands(core: &Core, key: &Key, stamp: Stamp, cx: &Context) -> bool {
    let found = read(core, core.primary.get(key, &GetOptions::default(), cx)).await;
    matches!(found, Ok(Lookup::Found(entry)) if entry.revision == Revision::from_stamp(stamp))
}

/// The acknowledgement of a put with a condition, if it was applied.
pub(super) async fn of_write(core: &Core, write: &Write, cx: &Context) -> Option<WriteAck> {
    let WriteOp::Put { mode, .. } = &write.op else { return None };
    if matches!(mode, WriteMode::Upsert) || !stands(core, &write.key, write.stamp, cx).await {
        return None;
    }
    let existed = !matches!(mode, WriteMode::Create);
    Some(WriteAck::primary(Some(Revision::from_stamp(write.stamp)), Some(existed)))
}

/// The acknowledgements of steps that are applied all or none, if one of them is found. How many items a trim removed nobody knows
/// any more.
pub(super) async fn of_steps(core: &Core, steps: &[Step], cx: &Context) -> Option<Vec<StepAck>> {
    let acks: Option<Vec<StepAck>> = steps.iter().map(ack_of).collect();
    let acks = acks?;
    // The last write of a key is the one that can stand.
    let mut later: HashSet<&Key> = HashSet::new();
    let put = steps.iter().rev().find_map(|step| match step {
        Step::Write(write) => Some(write).filter(|write| later.insert(&write.key) && is_put(write)),
        _ => None,
    })?;
    stands(core, &put.key, put.stamp, cx).await.then_some(acks)
}

const fn is_put(write: &Write) -> bool {
    matches!(write.op, WriteOp::Put { .. })
}

fn ack_of(step: &Step) -> Option<StepAck> {
    match step {
        Step::Write(write) => {
            let revision = is_put(write).then(|| Revision::from_stamp(write.stamp));
            Some(StepAck::Write(WriteAck::primary(revision, None)))
        }
        Step::Append(_) => {
            Some(StepAck::Append(AppendAck { position: None, existed: None, durability: Durability::Primary }))
        }
        _ => None,
    }
}

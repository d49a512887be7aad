//! What can be journaled: unconditional [`Write`]s and [`Append`]s.

use async_trait::async_trait;

use crate::chain::core::Core;
use crate::chain::journal::{Action, Operation};
use crate::chain::owed::{Owed, OwedList, OwedValue};
use crate::contract::{Append, AppendAck, Context, Durability, Write, WriteAck, WriteOp};
use crate::error::Result;
use crate::key::Key;
use crate::revision::Revision;
use crate::time::Timestamp;

use super::look_up;
use super::stamping::Stamped;

/// One item of a batch of writes or of appends.
#[async_trait]
pub(super) trait Item: Stamped + Send + Sync + Sized + 'static {
    type Ack: Send + 'static;

    /// Whether its place among those of its key tells, and not its stamp alone.
    const KEEPS_PLACE: bool;

    fn key(&self) -> &Key;

    /// Sends items to the primary.
    async fn send(core: &Core, items: Vec<Self>, cx: &Context) -> Vec<Result<Self::Ack>>;

    /// The acknowledgement of an item that only the primary can judge and whose reply was lost, if it is found there.
    async fn look_up(&self, core: &Core, cx: &Context) -> Option<Self::Ack>;

    /// Notes that an earlier attempt had removed what was there.
    fn note_removed(ack: &mut Self::Ack);

    /// The item as the journal keeps it; `None` where only the primary can judge it.
    fn operation(&self, now: Timestamp) -> Option<Operation>;

    /// The answer to an item that was journaled, by what was owed before.
    fn journaled(&self, core: &Core, owed: &Owed, now: Timestamp, durability: Durability) -> Self::Ack;
}

#[async_trait]
impl Item for Write {
    type Ack = WriteAck;

    const KEEPS_PLACE: bool = false;

    fn key(&self) -> &Key {
        &self.key
    }

    async fn send(core: &Core, items: Vec<Self>, cx: &Context) -> Vec<Result<WriteAck>> {
        core.primary.write_many(items, cx).await
    }

    async fn look_up(&self, core: &Core, cx: &Context) -> Option<WriteAck> {
        look_up::of_write(core, self, cx).await
    }

    fn note_removed(ack: &mut WriteAck) {
        ack.existed = Some(true);
    }

    fn operation(&self, now: Timestamp) -> Option<Operation> {
        if self.is_conditional() {
            return None;
        }
        let key = self.key.clone();
        let action = match &self.op {
            WriteOp::Put { value, ttl, .. } => {
                Action::Put { key, value: value.clone(), expires_at: ttl.map(|ttl| now.after(ttl)) }
            }
            WriteOp::Delete { .. } => Action::Delete { key },
            WriteOp::Touch { .. } => return None,
        };
        Some(Operation { stamp: self.stamp, action })
    }

    fn journaled(&self, core: &Core, owed: &Owed, now: Timestamp, durability: Durability) -> WriteAck {
        let value = owed.value(&self.key).and_then(|value| is_there(core, value, now));
        let existed = match &self.op {
            WriteOp::Delete { .. } => match (value, owed.list(&self.key)) {
                (Some(true), _) | (_, Some(OwedList::Appended)) => Some(true),
                (Some(false), Some(OwedList::Deleted { stamp })) if core.trusts_delete(stamp) => Some(false),
                _ => None,
            },
            WriteOp::Put { .. } | WriteOp::Touch { .. } => value,
        };
        let revision = match &self.op {
            WriteOp::Delete { .. } => None,
            WriteOp::Put { .. } | WriteOp::Touch { .. } => Some(Revision::from_stamp(self.stamp)),
        };
        let mut ack = WriteAck::primary(revision, existed);
        ack.durability = durability;
        ack
    }
}

/// Whether a value that is owed is there for its readers; `None` if that cannot be told.
pub(super) fn is_live(value: OwedValue, now: Timestamp) -> Option<bool> {
    match value {
        OwedValue::Put { expires_at, .. } => Some(expires_at.is_none_or(|at| now < at)),
        OwedValue::Deleted { .. } => Some(false),
        OwedValue::Unsettled => None,
    }
}

/// The same where it is to be relied on: that there is nothing somebody else's delete says only while the primary is away.
pub(super) fn is_there(core: &Core, value: OwedValue, now: Timestamp) -> Option<bool> {
    let is_trusted = || value.stamp().is_some_and(|stamp| core.trusts_delete(stamp));
    is_live(value, now).filter(|live| *live || is_trusted())
}

#[async_trait]
impl Item for Append {
    type Ack = AppendAck;

    const KEEPS_PLACE: bool = true;

    fn key(&self) -> &Key {
        &self.key
    }

    async fn send(core: &Core, items: Vec<Self>, cx: &Context) -> Vec<Result<AppendAck>> {
        core.primary.append_many(items, cx).await
    }

    async fn look_up(&self, _core: &Core, _cx: &Context) -> Option<AppendAck> {
        None
    }

    fn note_removed(_ack: &mut AppendAck) {}

    fn operation(&self, _now: Timestamp) -> Option<Operation> {
        let (key, value, item_id) = (self.key.clone(), self.value.clone(), self.item_id.clone());
        Some(Operation { stamp: self.stamp, action: Action::Append { key, value, item_id } })
    }

    fn journaled(&self, _core: &Core, _owed: &Owed, _now: Timestamp, durability: Durability) -> AppendAck {
        AppendAck { position: None, existed: None, durability }
    }
}

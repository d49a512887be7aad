//! What stands in for the primary, and how its answers are marked.

use std::time::Duration;

use crate::contract::{
    Attempt, Context, Durability, Freshness, GetOptions, Lookup, Write, WriteAck, WriteMode, WriteOp,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};

use super::core::Core;

/// How long a call to what stands in may take. It is in memory; the caller's own time may be over by then.
const WITHIN: Duration = Duration::from_secs(1);

fn context() -> Context {
    Context::with_timeout(WITHIN)
}

/// Whether what stands in can take a write: it depends on nothing that only the primary knows.
pub(super) const fn can_take(write: &Write) -> bool {
    match &write.op {
        WriteOp::Put { mode, .. } => matches!(mode, WriteMode::Upsert),
        WriteOp::Delete { only_if } => only_if.is_none(),
        WriteOp::Touch { .. } => true,
    }
}

/// Reads a value.
pub(super) async fn get(core: &Core, key: &Key, options: &GetOptions) -> Result<Lookup> {
    let mut lookup = core.fallback.get(key, options, &context()).await?;
    match &mut lookup {
        Lookup::Found(entry) => entry.freshness = Freshness::Fallback,
        Lookup::Missing { freshness } => *freshness = Freshness::Fallback,
    }
    Ok(lookup)
}

/// Says whether there is a value.
pub(super) async fn exists(core: &Core, key: &Key) -> Result<bool> {
    let answer = core.fallback.exists(std::slice::from_ref(key), &context()).await.pop();
    answer.unwrap_or_else(|| Err(Error::internal("a key was not answered")))
}

/// Applies a write as the primary would, as far as that is known here.
pub(super) async fn write(core: &Core, mut write: Write) -> Result<WriteAck> {
    let most = core.primary.capabilities().max_value_bytes;
    if write.value_bytes() > most {
        return Err(Error::too_large(format!("this cache takes values of at most {most} bytes")));
    }
    if let WriteOp::Put { ttl, .. } | WriteOp::Touch { ttl } = &mut write.op {
        *ttl = ttl.or(core.default_ttl);
    }
    let WriteAck { revision, .. } = core.fallback.write(write, &context()).await?;
    Ok(WriteAck { revision, existed: None, durability: Durability::Volatile })
}

/// Forgets a key.
pub(super) async fn forget(core: &Core, key: &Key) -> Result<()> {
    core.fallback.write(Write::delete(key.clone(), core.stamps.issue()), &context()).await.map(drop)
}

/// Forgets everything with a prefix.
pub(super) async fn clear(core: &Core, prefix: &KeyPrefix) -> Result<()> {
    core.fallback.clear(prefix, core.stamps.issue(), Attempt::First, &context()).await.map(drop)
}

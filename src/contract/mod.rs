//! The contract between callers and backends: few methods, object-safe, writes as data.
//!
//! A backend implements [`Store`] and one of its two extensions, [`CacheBackend`] or [`DatabaseBackend`]. Layers implement
//! them too, over another backend. The contract knows no concrete backend.
//!
//! The semantics are the same everywhere; the conformance suite (feature `testkit`) holds every backend to them. What a
//! backend cannot do is answered with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), and its [`Capabilities`]
//! agree, in both directions.

mod capabilities;
mod context;
mod entry;
mod list;
mod ping;
#[cfg(any(feature = "redis", feature = "jetstream"))]
mod probe;
mod replay;
mod scan;
mod step;
mod store;
mod succession;
mod to_end;
mod write;

pub use capabilities::{Capabilities, Listing, RevisionKind};
pub use context::Context;
pub use entry::{Entry, Expiry, Freshness, GetOptions, Lookup};
pub use list::{Append, AppendAck, Item, ItemId, ListRange};
pub use ping::{Identity, Ping};
#[cfg(any(feature = "redis", feature = "jetstream"))]
pub(crate) use probe::as_probe;
pub use replay::{
    ConflictOptions, ConflictPolicy, ConflictRecord, LostOperation, ReplayDecision, ReplayOptions, ReplayOutcome,
};
pub use scan::{Cursor, KeyPage, ListOptions};
pub use step::{Step, StepAck};
pub use store::{CacheBackend, DatabaseBackend, IncrementOptions, Store};
pub use succession::{AppendOrder, Succession};
pub(crate) use to_end::ToEnd;
#[cfg(feature = "sqlite")]
pub(crate) use write::Refused;
pub(crate) use write::in_order;
pub use write::{Attempt, Durability, Write, WriteAck, WriteMode, WriteOp};

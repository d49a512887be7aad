//! The chain of a database: what is promised while the primary is away and when it comes back, over a primary that fails as told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "sqlite")]
mod accepted;
mod ambiguity;
mod degraded;
mod foreign;
mod ledger;
mod managed;
mod metered;
#[cfg(feature = "sqlite")]
mod on_disk;
mod others;
mod reconciling;
mod rig;

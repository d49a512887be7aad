//! The chain of a cache: what is served while the primary is away, and what is never served once it is back, over a primary that
//! fails as told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod ambiguity;
mod crash;
mod degraded;
mod late;
mod ledger;
mod managed;
mod primary;
mod returning;
mod rig;

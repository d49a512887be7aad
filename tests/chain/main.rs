//! The chain of a database: what is promised while the primary is away and when it comes back, over a primary that fails as told.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[cfg(feature = "sqlite")]
mod accepted;
mod ambiguity;
#[cfg(feature = "sqlite")]
mod bad_luck;
#[cfg(feature = "sqlite")]
mod clocks;
#[cfg(feature = "sqlite")]
mod cut_off;
mod degraded;
mod foreign;
mod lanes;
#[cfg(feature = "sqlite")]
mod lanes_crash;
mod late;
mod ledger;
#[cfg(feature = "sqlite")]
mod lives;
#[cfg(feature = "sqlite")]
mod machine;
mod managed;
mod metered;
#[cfg(feature = "sqlite")]
mod moved;
#[cfg(feature = "sqlite")]
mod on_disk;
mod others;
mod parked;
mod picky;
#[path = "../support/random.rs"]
mod random;
mod reconciling;
mod rig;
#[cfg(feature = "sqlite")]
mod taken_over;
mod turns;

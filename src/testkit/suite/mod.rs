//! The conformance suite: one small test a behaviour, grouped by theme.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a conformance test fails by panicking"
)]

mod abandoned;
mod all;
mod batches;
mod concurrency;
mod conditions;
mod counters;
mod expiry;
mod identity;
mod keys;
mod lifecycle;
mod limits;
mod list_ranges;
mod listing;
mod lists;
mod model;
mod paging;
mod repeats;
mod replay;
mod stamps;
mod tools;
mod transactions;
mod values;
mod writes;

pub use all::{cache_cases, database_cases};

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
mod behind;
mod concurrency;
mod conditions;
mod counters;
mod database_tools;
mod expected_identity;
mod expiry;
mod identity;
mod keys;
mod lifecycle;
mod limits;
mod list_load;
mod list_ranges;
mod list_values;
mod listing;
mod lists;
mod model;
mod paging;
mod repeats;
mod replay;
mod replay_clears;
mod replay_conflicts;
mod replay_lists;
mod replay_tools;
mod stamps;
mod store_tools;
mod tools;
mod transaction_load;
mod transactions;
mod values;
mod writes;

pub use all::{cache_cases, database_cases};

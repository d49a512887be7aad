//! The conformance suite: one small test a behaviour, grouped by theme.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a conformance test fails by panicking"
)]

mod abandoned;
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
mod paging;
mod stamps;
mod tools;
mod transactions;
mod values;
mod writes;

use crate::contract::{CacheBackend, DatabaseBackend, Store};

use super::case::Case;
use super::subject::Subject;

/// The cases that every store is held to.
fn store_cases() -> Vec<Case<dyn Store>> {
    [
        values::cases(),
        keys::cases(),
        writes::cases(),
        conditions::cases(),
        expiry::cases(),
        batches::cases(),
        listing::cases(),
        paging::cases(),
        limits::cases(),
        stamps::cases(),
        concurrency::cases(),
        abandoned::store_cases(),
        lifecycle::cases(),
    ]
    .concat()
}

/// All cases for caches.
#[must_use]
pub fn cache_cases() -> Vec<Case<dyn CacheBackend>> {
    let shared = store_cases().into_iter().map(|case| case.widen(Subject::<dyn CacheBackend>::into_store));
    shared.chain([counters::cases(), lifecycle::cache_cases()].concat()).collect()
}

/// All cases for databases.
#[must_use]
pub fn database_cases() -> Vec<Case<dyn DatabaseBackend>> {
    let shared = store_cases().into_iter().map(|case| case.widen(Subject::<dyn DatabaseBackend>::into_store));
    let own = [
        lists::cases(),
        list_ranges::cases(),
        transactions::cases(),
        identity::cases(),
        abandoned::database_cases(),
        lifecycle::database_cases(),
    ];
    shared.chain(own.concat()).collect()
}

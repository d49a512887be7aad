//! All cases together, for a cache and for a database.

use crate::contract::{CacheBackend, DatabaseBackend, Store};

use super::{
    abandoned, batches, behind, concurrency, conditions, counters, expected_identity, expiry, identity, keys,
    lifecycle, limits, list_load, list_ranges, list_values, listing, lists, model, paging, repeats, replay,
    replay_clears, replay_conflicts, replay_lists, stamps, transaction_load, transactions, values, writes,
};
use crate::testkit::{Case, Subject};

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
        repeats::cases(),
        behind::cases(),
        concurrency::cases(),
        abandoned::store_cases(),
        lifecycle::cases(),
        model::store_cases(),
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
        list_values::cases(),
        list_load::cases(),
        transactions::cases(),
        transaction_load::cases(),
        identity::cases(),
        abandoned::database_cases(),
        lifecycle::database_cases(),
        repeats::database_cases(),
        behind::database_cases(),
        replay::cases(),
        replay_lists::cases(),
        replay_clears::cases(),
        replay_conflicts::cases(),
        expected_identity::cases(),
        model::database_cases(),
    ];
    shared.chain(own.concat()).collect()
}

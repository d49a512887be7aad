//! Random sequences of operations against a plain model in memory, shrunk to a short one where they differ.

mod explore;
mod lists;
mod store;

pub(super) use lists::cases as database_cases;
pub(super) use store::cases as store_cases;

//! What several backends stand on: the SQLite writer with group commit and its readers. It does not know the contract.

#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

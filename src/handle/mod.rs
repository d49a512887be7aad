//! What callers hold: [`Cache`] and [`Database`], both a [`Handle`] to a backend. They know the contract, and no backend.
//!
//! A handle gives each call its deadline and each write its stamp, takes keys as text, and offers what is pleasant on top of
//! the contract's few methods. It is cheap to clone.

mod base;
mod cache;
mod conflicts;
mod database;
mod keys;
mod load;
mod options;
mod read;
mod transaction;
mod update;
mod write;

pub use base::{Handle, HandleBackend};
pub use cache::{Cache, TimeToLive};
pub use conflicts::ConflictStream;
pub use database::Database;
pub use keys::KeyStream;
pub use options::SetOptions;
pub use transaction::Transaction;

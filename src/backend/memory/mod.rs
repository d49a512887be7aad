//! Stores in this process's memory: a bounded cache and an unbounded database. Nothing outlives the process.
//!
//! Values are shared, never copied or serialised. Keys are spread over shards, each an ordered map behind a lock that is held
//! for one operation; a transaction takes the shards it needs in their order.

mod apply;
mod cache;
mod conflict;
mod database;
mod list;
mod record;
mod records;
mod replay;
mod scan;
mod shard;
mod table;
mod tombstones;
mod write;

pub use cache::MemoryCache;
pub use database::MemoryDatabase;

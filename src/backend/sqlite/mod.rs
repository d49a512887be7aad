//! A database in a SQLite file: durable, shared by the processes of one machine, and nothing to install.
//!
//! Calls become jobs of the engine's writer, which commits them in groups, or of its readers. A job looks at what stands
//! under its key and then writes, inside one transaction that holds the file's write lock; so a write that is behind is
//! stamped anew on the spot, and no answer is ever ambiguous but one cut off by its deadline or by a failing disk.
//!
//! The tables are in `migrations/sqlite`. Texts sort by their bytes, JSON is kept as it came in.

mod apply;
mod batch;
mod codec;
mod conflict;
mod connect;
mod database;
mod error;
mod expected;
mod list;
mod meta;
mod migrate;
mod read;
mod replay;
mod scan;
mod sentence;
mod session;
mod sweep;
#[cfg(test)]
mod tests;
mod write;

pub use database::SqliteDatabase;

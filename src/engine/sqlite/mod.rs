//! A SQLite file behind an async face: one writer thread that commits in groups, and a few reader threads.
//!
//! Callers hand over closures that run on those threads, so nothing here ever blocks an async worker. The writer takes all
//! that is queued, runs it in one `BEGIN IMMEDIATE` transaction, commits, and only then answers; so the price of forcing
//! the disk is shared, and the groups grow by themselves under load. It knows neither the contract nor any table: who
//! opens a file brings its layout.

mod connection;
mod engine;
mod error;
mod file;
mod job;
mod log;
mod open;
mod queue;
mod reader;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use engine::{Engine, ReadKind};
pub(crate) use error::{SqlError, SqlResult};
pub(crate) use job::Atomicity;
pub(crate) use open::{Admission, Layout, LayoutState, Options};
pub(crate) use writer::{Maintenance, Progress};

//! A PostgreSQL server (12 or later, encoding UTF8) as a database, over [`sqlx`](https://docs.rs/sqlx).
//!
//! All is kept in a schema of its own, which the first use makes and migrates. Every write is one guarded statement: it
//! changes a row only if its stamp is newer, so it may be repeated, and one that lands late (its connection was given up, its
//! server process was frozen) changes nothing. Batches are one statement over arrays, with their keys sorted, so that writers
//! of the same keys never deadlock.
//!
//! The files: `database` is the contract, `connect` and `migrate` make it usable, `pool` holds connections, `session` is one
//! use of one, `sql` has every statement; `read`, `write`, `list`, `scan` and `apply` are the operations over `batch`,
//! `record` and `standing`, and `sweep` cleans up behind them; `error` says what a failure means,
//! and `server_clock` what came too late.

mod apply;
mod batch;
mod conflict;
mod connect;
mod database;
mod error;
mod expected;
mod failure;
mod judge;
mod list;
mod migrate;
mod options;
mod pool;
mod read;
mod record;
mod replay;
mod scan;
mod script;
mod sentence;
mod server_clock;
mod session;
mod sql;
mod standing;
mod sweep;
mod write;

pub use database::PostgresDatabase;

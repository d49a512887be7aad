//! The servers, started and ended as the library's tests do.
#![allow(dead_code, unused_imports, reason = "the tests use more of it")]

#[path = "../../../tests/support/process.rs"]
pub mod process;
#[path = "../../../tests/support/servers/mod.rs"]
pub mod servers;

pub use process::Process;
pub use servers::{Nats, Postgres, PostgresOptions, Redis, Server};

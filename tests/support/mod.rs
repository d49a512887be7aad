//! What the tests share: real servers that never outlive the test, and a harness that says which tests it could not run.
//!
//! A test file takes it in with `mod support;`. It knows nothing of the crate under test.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of this module")]
#![allow(unreachable_pub, reason = "shared by test crates that export nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

pub mod certificates;
pub mod harness;
pub mod process;
pub mod schedules;
pub mod servers;

pub use certificates::Certificates;
pub use harness::Suite;
pub use process::Process;
pub use servers::{Nats, PgBouncer, Postgres, PostgresOptions, Redis, Server};

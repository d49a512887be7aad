//! The default chain of a PostgreSQL database, a journal in SQLite, over real servers that die, freeze, lose their data and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod late;
mod outages;
mod returns;
mod rig;
#[path = "../support/mod.rs"]
mod support;
mod volumes;

use std::process::ExitCode;

use support::Suite;

fn main() -> ExitCode {
    let mut suite = Suite::new();
    outages::tests(&mut suite);
    returns::tests(&mut suite);
    late::tests(&mut suite);
    volumes::tests(&mut suite);
    suite.run()
}

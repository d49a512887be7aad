//! The default chain of a PostgreSQL database, a journal in SQLite, over real servers that die, freeze, lose their data and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod late;
mod migrations;
mod outages;
mod pooler;
mod repointed;
mod returns;
mod rig;
#[cfg(unix)]
mod stopped;
#[path = "../support/mod.rs"]
mod support;
mod volumes;

use std::process::ExitCode;

use support::Suite;

fn main() -> ExitCode {
    #[cfg(unix)]
    if let Some(config) = std::env::var_os(stopped::APPLICATION) {
        return stopped::application(config.as_ref());
    }
    let mut suite = Suite::new();
    outages::tests(&mut suite);
    returns::tests(&mut suite);
    late::tests(&mut suite);
    volumes::tests(&mut suite);
    repointed::tests(&mut suite);
    pooler::tests(&mut suite);
    migrations::tests(&mut suite);
    #[cfg(unix)]
    stopped::tests(&mut suite);
    suite.run()
}

//! Disks that are full, and disks that cannot be written: that of a journal, of a SQLite database, of a PostgreSQL server. They are real
//! ones, mounted where this program alone sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod disk;
mod journal;
mod primary;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use agent_storage::chain::{ChainStatus, DatabaseChain};
use support::Suite;

fn main() -> ExitCode {
    disk::enter_a_place_of_our_own();
    let mut suite = Suite::new();
    journal::tests(&mut suite);
    primary::tests(&mut suite);
    suite.run()
}

/// Waits until a chain is as wanted.
async fn until(chain: &DatabaseChain, reached: impl Fn(&ChainStatus) -> bool + Send + Sync) {
    let waited = async {
        while !reached(&chain.status()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waited).await;
    assert!(waited.is_ok(), "still {:?}", chain.status());
}

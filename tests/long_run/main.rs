//! What shows only after a while: stores that are overloaded without being away, and tables in which nothing stays.
//!
//! A few seconds each, or as many as `STORAGE_LONG_SECONDS` says: `scripts/test --long` has them take half an hour each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod churn;
mod overload;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use support::Suite;

const SECONDS: &str = "STORAGE_LONG_SECONDS";

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let length = length();
    overload::tests(&mut suite, length);
    churn::tests(&mut suite, length);
    suite.run()
}

/// How long each test keeps on.
fn length() -> Duration {
    let seconds = std::env::var(SECONDS).map(|seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(6))
}

/// How long a test may take that keeps on for so long.
fn limit(length: Duration) -> Duration {
    length + Duration::from_secs(120)
}

/// Says what came of a test, to whoever looks.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error can be written to");
}

//! The harness tells a failure from a success, a hang from a slow test, and a missing server from both.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::process::{Command, ExitCode};
use std::time::Duration;

use support::{Server, Suite};

/// Makes this program run tests that go wrong.
const GO_WRONG: &str = "STORAGE_TEST_GO_WRONG";

/// Where no server is.
const NOWHERE: &str = "/nonexistent/redis-server";

fn main() -> ExitCode {
    if std::env::var_os(GO_WRONG).is_some() {
        return go_wrong();
    }
    let mut suite = Suite::new();
    suite.test("a_panic_an_error_and_a_hang_are_failures", &[], a_panic_an_error_and_a_hang_are_failures);
    suite.test("a_missing_server_is_ignored", &[], a_missing_server_is_ignored);
    suite.test("a_missing_server_that_is_required_is_a_failure", &[], a_missing_server_that_is_required_is_a_failure);
    suite.test("an_unknown_required_server_is_an_error", &[], an_unknown_required_server_is_an_error);
    suite.run()
}

async fn a_panic_an_error_and_a_hang_are_failures() {
    let outcome = outcome_of(&["go_wrong"], "");
    for line in ["passes ... ok", "panics ... FAILED", "errs   ... FAILED", "hangs  ... FAILED", "blocks ... FAILED"] {
        assert!(outcome.contains(&format!("go_wrong_{line}")), "{line} is not in {outcome}");
    }
    assert!(outcome.contains("test result: FAILED. 1 passed; 4 failed"), "{outcome}");
}

async fn a_missing_server_is_ignored() {
    let outcome = outcome_of(&["needs_redis"], "");
    assert!(outcome.contains("needs_redis ... ignored"), "{outcome}");
    assert!(outcome.contains("test result: ok. 0 passed; 0 failed; 1 ignored"), "{outcome}");
    assert!(outcome.contains("ignored: 1 tests need redis"), "{outcome}");
}

async fn a_missing_server_that_is_required_is_a_failure() {
    let outcome = outcome_of(&["needs_redis"], "postgres, redis");
    assert!(outcome.contains("test result: FAILED. 0 passed; 1 failed; 0 ignored"), "{outcome}");
}

async fn an_unknown_required_server_is_an_error() {
    let outcome = outcome_of(&["needs_redis"], "reddis");
    assert!(outcome.contains("STORAGE_REQUIRE names an unknown server: reddis"), "{outcome}");
}

fn go_wrong() -> ExitCode {
    let mut suite = Suite::new();
    let limit = Duration::from_millis(500);
    suite.test("go_wrong_passes", &[], || async {});
    suite.test("go_wrong_panics", &[], move || async move { assert!(limit.is_zero(), "on purpose") });
    suite.test("go_wrong_errs", &[], || async { Err("on purpose") });
    suite.test_within(limit, "go_wrong_hangs", &[], std::future::pending::<()>);
    suite.test_within(limit, "go_wrong_blocks", &[], || async { std::thread::park() });
    suite.test("needs_redis", &[Server::Redis], || async {});
    suite.run()
}

fn outcome_of(arguments: &[&str], required: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env(GO_WRONG, "").env("STORAGE_REDIS_SERVER", NOWHERE).env("STORAGE_REQUIRE", required);
    let output = command.output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

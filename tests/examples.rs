//! The examples do what they say, run as a newcomer runs them.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// The features of this build, so that the examples need not be built anew.
const FEATURES: &[(&str, bool)] = &[
    ("sqlite", cfg!(feature = "sqlite")),
    ("postgres", cfg!(feature = "postgres")),
    ("redis", cfg!(feature = "redis")),
    ("jetstream", cfg!(feature = "jetstream")),
    ("full", cfg!(feature = "full")),
    ("cli", cfg!(feature = "cli")),
    ("testkit", cfg!(feature = "testkit")),
];

fn run(example: &str, folder: &Path) -> Output {
    let features: Vec<&str> = FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo told this test about itself would make build scripts of dependencies run anew.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo
        .args(["run", "--quiet", "--no-default-features", "--features", &features.join(","), "--example", example])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .current_dir(folder)
        .output()
        .unwrap()
}

/// The last line of an example that succeeds.
fn last_line(example: &str, folder: &Path) -> String {
    let output = run(example, folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
}

/// A folder with the repository's own agent.yml, so that the database is made there.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/agent.yml"), folder.path().join("agent.yml")).unwrap();
    folder
}

#[test]
fn quickstart_goes_on_where_it_ended() {
    let folder = folder();
    assert_eq!(last_line("quickstart", folder.path()), "history: 2 messages (2 new)");
    assert_eq!(last_line("quickstart", folder.path()), "history: 4 messages (2 new)");
}

#[test]
fn quickstart_says_plainly_what_is_wrong() {
    let folder = folder();
    fs::write(folder.path().join("agent.yml"), "storage:\n  cache:\n    type: reddis\n").unwrap();
    let output = run("quickstart", folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("agent.yml:3:11: "));
}

#[test]
fn sessions_loses_no_visit() {
    assert_eq!(last_line("sessions", folder().path()), "ada came 3 times");
}

#[test]
fn history_is_sent_twice_and_kept_once() {
    let line = last_line("history", folder().path());
    assert_eq!(line, "trimmed 200 events; the oldest is at position 200 still");
}

#[cfg(feature = "testkit")]
#[test]
fn a_backend_of_ones_own_passes_the_suite() {
    assert_eq!(last_line("custom_backend", folder().path()), "\"tree\" says Some(\"hello\")");
}

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
    cargo("run", example, folder).output().unwrap()
}

fn cargo(subcommand: &str, example: &str, folder: &Path) -> Command {
    let features: Vec<&str> = FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo told this test about itself would make build scripts of dependencies run anew.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo
        .args([subcommand, "--quiet", "--no-default-features", "--features", &features.join(","), "--example", example])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .current_dir(folder);
    cargo
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

#[cfg(feature = "postgres")]
mod fallback {
    use super::*;

    const NOT_SHOWN: &str = "nothing was shown: PostgreSQL is not installed";

    fn is_required() -> bool {
        env::var("STORAGE_REQUIRE").is_ok_and(|names| names.split(',').any(|name| name.trim() == "postgres"))
    }

    #[test]
    fn fallback_shows_each_message_once_or_says_that_nothing_was_shown() {
        let line = last_line("fallback", folder().path());
        assert!(line == "7 messages, in order, each once" || (line.starts_with(NOT_SHOWN) && !is_required()), "{line}");
    }

    #[test]
    fn fallback_without_postgresql_says_so_and_does_not_pretend() {
        let folder = folder();
        let output = cargo("run", "fallback", folder.path()).env("STORAGE_POSTGRES_BIN", "/nowhere").output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(NOT_SHOWN));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn fallback_leaves_no_server_behind_when_it_is_stopped() {
        use rustix::process::{Pid, Signal, kill_process, test_kill_process};
        use std::io::{BufRead, BufReader, Read};
        use std::process::Stdio;

        let folder = folder();
        assert!(cargo("build", "fallback", folder.path()).status().unwrap().success());
        // Beside the folder of the tests stands that of the examples.
        let target = env::current_exe().unwrap();
        let program = target.ancestors().nth(2).unwrap().join("examples/fallback");
        for signal in [Signal::INT, Signal::TERM] {
            let mut child = Command::new(&program).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            let Some(server) = line.trim().strip_prefix("PostgreSQL runs as process ") else {
                assert!(line.starts_with(NOT_SHOWN) && !is_required(), "{line}");
                continue;
            };
            let server = Pid::from_raw(server.parse().unwrap()).unwrap();
            kill_process(Pid::from_child(&child), signal).unwrap();
            let _ = out.read_to_string(&mut String::new());
            assert_eq!(child.wait().unwrap().code(), Some(130));
            assert!(test_kill_process(server).is_err(), "the server is still there");
        }
    }
}

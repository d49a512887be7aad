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
    mod by_hand {
        use std::io::{BufRead, BufReader, Lines};
        use std::path::PathBuf;
        use std::process::{Child, ChildStdout, Stdio};

        use rustix::process::{Pid, Signal, kill_process, test_kill_process};

        use super::*;

        /// The example's program, built.
        fn program() -> PathBuf {
            assert!(cargo("build", "fallback", folder().path()).status().unwrap().success());
            // Beside the folder of the tests stands that of the examples.
            let target = env::current_exe().unwrap();
            target.ancestors().nth(2).unwrap().join("examples/fallback")
        }

        struct Running {
            child: Child,
            out: Lines<BufReader<ChildStdout>>,
            server: Pid,
        }

        impl Running {
            /// Starts it; `None` where PostgreSQL is not installed and need not be.
            fn start(arguments: &[&str]) -> Option<Self> {
                let mut command = Command::new(program());
                let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
                let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
                let line = out.next().unwrap().unwrap();
                let Some(server) = line.strip_prefix("PostgreSQL runs as process ") else {
                    assert!(line.starts_with(NOT_SHOWN) && !is_required(), "{line}");
                    child.wait().unwrap();
                    return None;
                };
                let server = Pid::from_raw(server.parse().unwrap()).unwrap();
                Some(Self { child, out, server })
            }

            fn until(&mut self, is_meant: impl Fn(&str) -> bool) {
                let meant = self.out.by_ref().map(Result::unwrap).find(|line| is_meant(line));
                assert!(meant.is_some(), "the line never came");
            }

            fn signal(&self, signal: Signal) {
                kill_process(Pid::from_child(&self.child), signal).unwrap();
            }

            /// The exit code, and what was still said.
            fn end(mut self) -> (Option<i32>, Vec<String>) {
                let rest = self.out.by_ref().map(Result::unwrap).collect();
                (self.child.wait().unwrap().code(), rest)
            }
        }

        #[test]
        fn fallback_leaves_no_server_behind_when_it_is_stopped() {
            for signal in [Signal::INT, Signal::TERM] {
                let Some(running) = Running::start(&[]) else { continue };
                let server = running.server;
                running.signal(signal);
                assert_eq!(running.end().0, Some(130));
                assert!(test_kill_process(server).is_err(), "the server is still there");
            }
        }

        #[test]
        fn fallback_loses_no_message_when_its_server_is_killed_by_hand() {
            let Some(mut running) = Running::start(&["by-hand"]) else { return };
            running.until(|line| line == "message 2: kept, durability primary");
            kill_process(running.server, Signal::KILL).unwrap();
            running.until(|line| line.ends_with("durability local"));
            running.signal(Signal::INT);
            let (code, rest) = running.end();
            assert_eq!(code, Some(0), "{rest:?}");
            assert!(rest.last().unwrap().ends_with(" messages, in order, each once"), "{rest:?}");
        }
    }
}

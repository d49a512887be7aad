//! The command line, as a shell runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(feature = "testkit")]
mod conflicts;
mod folder;
#[cfg(feature = "testkit")]
mod journal;
#[cfg(feature = "testkit")]
mod owing;
#[cfg(feature = "testkit")]
mod reconcile;

use std::fs;
use std::io::Read;
use std::net::TcpListener;

use serde_json::Value as Json;

use crate::folder::{Folder, text};

const SQLITE: &str = "storage:\n  cache:\n    type: in-memory\n  database:\n    type: sqlite\n    path: agent.db\n";

#[test]
fn a_value_comes_out_untouched() {
    let folder = Folder::with(SQLITE);
    let odd = " {\"a\": 1e400, \"a\":\"\\ud800\"}\n\n";
    assert_eq!(text(&folder.ok(&["set", "session:42", odd])), "");
    assert_eq!(text(&folder.ok(&["get", "session:42"])), odd);
}

#[test]
fn all_bytes_survive_a_file_and_standard_input() {
    let folder = Folder::with(SQLITE);
    let bytes: Vec<u8> = (0..=255).collect();
    fs::write(folder.path().join("bytes"), &bytes).unwrap();
    folder.ok(&["set", "by-file", "--binary", "--file", "bytes"]);
    assert_eq!(folder.ok(&["get", "by-file"]), bytes);
    let output = folder.with_input(&["set", "by-input", "-", "--binary"], &bytes);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(folder.ok(&["get", "by-input"]), bytes);
    folder.ok(&["set", "empty", "", "--binary"]);
    assert_eq!(folder.ok(&["get", "empty"]), b"");
}

#[test]
fn what_is_not_json_is_refused_with_a_way_out() {
    let folder = Folder::with(SQLITE);
    let complaint = folder.fails(2, &["set", "a", "hunter2"]);
    assert!(complaint.contains("not valid JSON") && complaint.contains("--binary"), "{complaint}");
    assert!(!complaint.contains("hunter2"), "{complaint}");
    folder.fails(3, &["get", "a"]);
    folder.ok(&["set", "a", "hunter2", "--binary"]);
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_read() {
    let folder = Folder::with(SQLITE);
    let file = fs::File::create(folder.path().join("huge")).unwrap();
    // A sparse file: reading a terabyte would not end within the life of the test.
    file.set_len(1 << 40).unwrap();
    let complaint = folder.fails(2, &["set", "a", "--binary", "--file", "huge"]);
    assert!(complaint.contains("at most 67108864 bytes"), "{complaint}");
    let complaint = folder.fails(2, &["set", "a", "--file", "absent"]);
    assert!(complaint.contains("absent: "), "{complaint}");
}

#[test]
fn a_missing_key_ends_with_3() {
    let folder = Folder::with(SQLITE);
    assert!(folder.fails(3, &["get", "absent"]).contains("no value"));
    folder.fails(3, &["delete", "absent"]);
    let output = folder.run(&["exists", "absent"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(3), "false\n"));
    folder.ok(&["set", "there", "null"]);
    assert_eq!(text(&folder.ok(&["exists", "there"])), "true\n");
    folder.ok(&["delete", "there"]);
    folder.fails(3, &["get", "there"]);
}

#[test]
fn a_lost_condition_ends_with_4() {
    let folder = Folder::with(SQLITE);
    let first = text(&folder.ok(&["set", "lock", "1", "--if-absent", "--show-revision"]));
    folder.fails(4, &["set", "lock", "2", "--if-absent"]);
    folder.ok(&["set", "lock", "3", "--if-revision", first.trim()]);
    folder.fails(4, &["set", "lock", "4", "--if-revision", first.trim()]);
    let output = folder.run(&["get", "lock", "--show-revision"]);
    assert_eq!(text(&output.stdout), "3");
    folder.ok(&["set", "lock", "5", "--if-revision", text(&output.stderr).trim()]);
}

#[test]
fn keys_are_listed_a_line_each() {
    let folder = Folder::with(SQLITE);
    for key in ["session:2", "session:1", "session:ü 😀", "other"] {
        folder.ok(&["set", key, "0"]);
    }
    assert_eq!(text(&folder.ok(&["list", "session:"])), "session:1\nsession:2\nsession:ü 😀\n");
    assert_eq!(text(&folder.ok(&["list", "--limit", "2"])), "other\nsession:1\n");
    assert_eq!(text(&folder.ok(&["count", "session:"])), "3\n");
    assert_eq!(text(&folder.ok(&["count"])), "4\n");
}

#[test]
fn a_list_is_appended_to_read_and_cut() {
    let folder = Folder::with(SQLITE);
    for (position, item) in ["1", "-2", "{\n\"a\": \"x\\ny\"}"].iter().enumerate() {
        assert_eq!(text(&folder.ok(&["append", "messages:42", item])), format!("{position}\n"));
    }
    folder.ok(&["append", "messages:42", "raw", "--binary"]);
    assert_eq!(text(&folder.ok(&["range", "messages:42", "-3", "-1"])), "-2\n{ \"a\": \"x\\ny\"}\nbase64:cmF3\n");
    assert_eq!(text(&folder.ok(&["range", "messages:42", "0", "0"])), "1\n");
    assert_eq!(text(&folder.ok(&["range", "absent", "0", "-1"])), "");
    assert_eq!(text(&folder.ok(&["length", "messages:42"])), "4\n");
    assert_eq!(text(&folder.ok(&["trim", "messages:42", "1"])), "3\n");
    assert_eq!(text(&folder.ok(&["length", "messages:42"])), "1\n");
}

#[test]
fn an_item_with_a_name_is_added_once() {
    let folder = Folder::with(SQLITE);
    for _ in 0..2 {
        assert_eq!(text(&folder.ok(&["append", "list", "1", "--id", "first"])), "0\n");
    }
    assert_eq!(text(&folder.ok(&["length", "list"])), "1\n");
}

#[test]
fn the_cache_is_another_store() {
    let folder = Folder::with(SQLITE);
    folder.ok(&["set", "a", "1"]);
    // The memory cache of a process ends with it.
    folder.fails(3, &["--cache", "get", "a"]);
    folder.ok(&["set", "a", "1", "--cache", "--ttl", "30s"]);
    assert!(folder.fails(2, &["append", "list", "1", "--cache"]).contains("leave out --cache"));
    assert!(folder.fails(2, &["check", "--cache"]).contains("--cache"));
}

#[test]
fn what_cannot_be_meant_ends_with_2() {
    let folder = Folder::with(SQLITE);
    let long = "k".repeat(1025);
    for arguments in [
        &["set", "a"][..],
        &["set", "a", "1", "--file", "b"],
        &["set", "a", "1", "--ttl", "0s"],
        &["set", "a", "1", "--ttl", "-5s"],
        &["set", "a", "1", "--ttl", "1000y"],
        &["set", "a", "1", "--ttl", "soon"],
        &["set", "a", "1", "--if-absent", "--if-revision", "0000000000000001"],
        &["set", "a", "1", "--if-revision", "latest"],
        &["get", ""],
        &["get", "a\nb"],
        &["get", &long],
        &["range", "a", "first", "last"],
        &["range", "a", "99999999999999999999", "0"],
        &["trim", "a", "-1"],
        &["list", "--limit", "0"],
        &["frobnicate"],
        &[],
    ] {
        folder.fails(2, arguments);
    }
}

#[test]
fn an_invalid_configuration_ends_with_2_and_says_where() {
    let folder = Folder::with("storage:\n  cache:\n    type: reddis\n  database:\n    type: sqlite\n    pth: a\n");
    for arguments in [&["check"][..], &["check", "--offline"], &["get", "a"]] {
        let complaint = folder.fails(2, arguments);
        let lines: Vec<&str> = complaint.lines().collect();
        assert!(lines.iter().any(|line| line.starts_with("agent.yml:3:11: storage.cache.type: ")), "{complaint}");
        assert!(lines.iter().any(|line| line.starts_with("agent.yml:6:5: storage.database")), "{complaint}");
    }
    let output = folder.run(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["status"], "invalid");
    assert_eq!(report["problems"][0]["line"], 3);
    assert!(folder.fails(2, &["--config", "absent.yml", "check"]).starts_with("absent.yml: "));
}

#[test]
fn a_warning_is_shown_and_does_no_harm() {
    let folder = Folder::with("storage:\n  blob:\n    type: local\n");
    let output = folder.run(&["count"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "0\n"));
    assert!(text(&output.stderr).starts_with("warning: agent.yml:3:5: storage.blob: "), "{}", text(&output.stderr));
}

#[test]
fn a_healthy_storage_is_shown_as_a_table_or_json() {
    let folder = Folder::with(SQLITE);
    let table = text(&folder.ok(&["check"]));
    for expected in ["cache", "memory", "database", "sqlite", "healthy", "transactions", " ms"] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    let report: Json = serde_json::from_slice(&folder.ok(&["check", "--json"])).unwrap();
    assert_eq!(report["status"], "healthy");
    let member = &report["database"]["members"][0];
    assert_eq!(member["backend"], "sqlite");
    assert_eq!(member["capabilities"]["transactions"], true);
    assert!(member["latency_ms"].is_f64() && member["server_version"].is_string());
}

#[test]
fn an_offline_check_connects_nothing() {
    let folder = Folder::with(SQLITE);
    assert!(text(&folder.ok(&["check", "--offline"])).contains("agent.yml is valid"));
    let report: Json = serde_json::from_slice(&folder.ok(&["check", "--offline", "--json"])).unwrap();
    assert_eq!(report["status"], "valid");
    assert!(!folder.path().join("agent.db").exists());
}

#[test]
fn a_store_that_cannot_be_used_ends_with_2() {
    let folder = Folder::with(SQLITE);
    fs::write(folder.path().join("agent.db"), "this is no database, but somebody's text".repeat(100)).unwrap();
    let output = folder.run(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["database"]["status"], "unhealthy");
    assert_eq!(report["cache"]["status"], "healthy");
    assert!(text(&output.stderr).contains("agent.yml:5:5: storage.database: "), "{}", text(&output.stderr));
    folder.fails(2, &["get", "a"]);
}

#[test]
fn a_server_that_is_away_is_unavailable_and_its_password_stays_secret() {
    // A port that was free a moment ago refuses.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = Folder::with(&format!(
        "storage:\n  database:\n    type: postgres\n    host: 127.0.0.1\n    port: {port}\n    password: hunter2\n    timeout: 1s\n"
    ));
    let output = folder.command(&["get", "a"]).env("RUST_LOG", "trace").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    assert!(!text(&output.stderr).contains("hunter2"), "{}", text(&output.stderr));
}

#[test]
fn the_schema_is_json() {
    let folder = Folder::with("");
    let schema: Json = serde_json::from_slice(&folder.ok(&["schema"])).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
}

#[test]
fn each_help_shows_an_example() {
    let folder = Folder::with("");
    let help = text(&folder.ok(&["--help"]));
    assert!(help.contains("Exit codes:"), "{help}");
    for command in [
        "journal status",
        "journal export",
        "journal retry",
        "journal drop",
        "conflicts list",
        "conflicts show",
        "conflicts resolve",
    ] {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        assert!(text(&folder.ok(&arguments)).contains(&format!("\n  agent-storage {command}")));
    }
    for command in [
        "check",
        "schema",
        "journal",
        "reconcile",
        "get",
        "set",
        "delete",
        "exists",
        "list",
        "count",
        "append",
        "range",
        "length",
        "trim",
    ] {
        let help = text(&folder.ok(&[command, "--help"]));
        let (_, examples) = help.split_once("Example").unwrap();
        assert!(examples.contains(&format!("agent-storage {command}")), "{help}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::with(SQLITE);
    // More than a pipe holds, so that the write cannot end before the reader is gone.
    fs::write(folder.path().join("large"), vec![b'x'; 8 << 20]).unwrap();
    folder.ok(&["set", "large", "--binary", "--file", "large"]);
    let mut child = folder.start(&["get", "large"]);
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 10]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn a_verdict_is_the_same_though_nobody_reads_it() {
    let folder = Folder::with(SQLITE);
    folder.ok(&["set", "there", "1"]);
    let unread = |arguments: &[&str]| folder.unread(arguments);
    assert_eq!((unread(&["exists", "there"]), unread(&["exists", "absent"])), (Some(0), Some(3)));
    assert_eq!(
        (unread(&["check"]), unread(&["check", "--offline"]), unread(&["get", "there"])),
        (Some(0), Some(0), Some(0))
    );
    fs::remove_file(folder.path().join("agent.db")).unwrap();
    fs::create_dir(folder.path().join("agent.db")).unwrap();
    for arguments in [&["check"][..], &["check", "--json"]] {
        let code = folder.run(arguments).status.code();
        assert!(code != Some(0) && unread(arguments) == code, "{code:?}");
    }
}

/// A port on which nobody listens.
#[cfg(feature = "postgres")]
fn refused() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[cfg(feature = "postgres")]
#[test]
fn a_journal_that_ends_with_the_command_acknowledges_nothing() {
    let port = refused();
    let folder = Folder::with(&format!(
        "storage:\n  database:\n    type: postgres\n    url: postgres://nobody@127.0.0.1:{port}/none\n    fallback:\n      - type: in-memory\n    minDurability: volatile\n"
    ));
    for command in [&["set", "a", "1"][..], &["delete", "a"], &["append", "a", "1"]] {
        let complaint = folder.fails(2, command);
        assert!(!complaint.contains("journal"), "{complaint}");
    }
}

#[cfg(target_os = "linux")]
mod interrupts {
    use super::*;
    use std::process::Child;

    use rustix::process::{Pid, Signal, kill_process};

    fn interrupt(child: &Child) {
        kill_process(Pid::from_child(child), Signal::INT).unwrap();
    }

    /// Waits until the process catches the signal itself; before that it would end as any process does.
    fn wait_until_it_catches(child: &Child) {
        let status = format!("/proc/{}/status", child.id());
        let bit = 1_u64 << (Signal::INT.as_raw() - 1);
        loop {
            let status = fs::read_to_string(&status).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            if u64::from_str_radix(caught.trim(), 16).unwrap() & bit != 0 {
                return;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn ctrl_c_ends_cleanly() {
        let folder = Folder::with(SQLITE);
        let mut child = folder.start(&["set", "a", "-"]);
        // Held open, so that the command waits for its value.
        let input = child.stdin.take().unwrap();
        wait_until_it_catches(&child);
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        drop(input);
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("interrupted"), "{}", text(&output.stderr));
        folder.fails(3, &["get", "a"]);
    }

    #[test]
    fn ctrl_c_gives_up_a_server_that_hangs() {
        // It accepts connections, by the system's backlog, and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let folder = Folder::with(&format!(
            "storage:\n  cache:\n    type: redis\n    url: redis://127.0.0.1:{port}\n    timeout: 10m\n    connectionTimeout: 10m\n"
        ));
        let child = folder.start(&["get", "a", "--cache"]);
        wait_until_it_catches(&child);
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(130), ""));
    }

    #[test]
    fn ctrl_c_finishes_what_is_being_written() {
        let folder = Folder::with(SQLITE);
        fs::write(folder.path().join("large"), vec![b'x'; 8 << 20]).unwrap();
        folder.ok(&["set", "large", "--binary", "--file", "large"]);
        let mut child = folder.start(&["get", "large"]);
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 1]).unwrap();
        interrupt(&child);
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len() + 1, 8 << 20);
        assert!(matches!(child.wait().unwrap().code(), Some(0 | 130)));
    }

    #[test]
    fn the_second_ctrl_c_does_not_wait() {
        let folder = Folder::with(SQLITE);
        fs::write(folder.path().join("large"), vec![b'x'; 8 << 20]).unwrap();
        folder.ok(&["set", "large", "--binary", "--file", "large"]);
        let mut child = folder.start(&["get", "large"]);
        // A reader that takes one byte and no more: the first signal cannot finish the write.
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
        let out = child.stdout.take();
        // Two signals that arrive together count as one, so they are sent until it ends.
        let status = loop {
            interrupt(&child);
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::yield_now();
        };
        drop(out);
        assert_eq!(status.code(), Some(130));
    }
}

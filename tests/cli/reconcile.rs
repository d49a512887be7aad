//! The command `reconcile`.

use std::fs;

use serde_json::{Value as Json, json};

use crate::folder::{Folder, text};
use crate::owing::{Application, CHAIN};

/// A folder in which a process died that owed `k` and two items, over a database in a file.
async fn left_by_the_dead(folder: &Folder, file: &str) {
    let application = Application::over(folder, file).await;
    application.database.set_json("before", &0).await.unwrap();
    application.fall().await;
    application.database.set_json("k", &1).await.unwrap();
    for item in [1, 2] {
        application.database.append_json("list", &item).await.unwrap();
    }
    application.die(folder).await;
}

fn report(output: &std::process::Output, code: i32) -> Json {
    assert_eq!(output.status.code(), Some(code), "{} {}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dead_owed_is_replayed_once() {
    let folder = Folder::with(CHAIN);
    left_by_the_dead(&folder, "agent.db").await;
    let seen = report(&folder.run(&["reconcile", "--json"]), 0);
    assert_eq!(
        (&seen["replayed"], &seen["pending"], &seen["state"]),
        (&json!(3), &json!(0), &json!("normal")),
        "{seen}"
    );
    assert_eq!(text(&folder.ok(&["get", "k"])), "1");
    assert_eq!(text(&folder.ok(&["range", "list", "0", "-1"])), "1\n2\n");
    assert_eq!(text(&folder.ok(&["reconcile"])), "0 operations replayed, 0 still owed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_replay_what_the_dead_owed_once() {
    let folder = Folder::with(CHAIN);
    left_by_the_dead(&folder, "agent.db").await;
    let children: Vec<_> = (0..4).map(|_| folder.start(&["reconcile", "--json"])).collect();
    let mut replayed = 0;
    for child in children {
        let seen = report(&child.wait_with_output().unwrap(), 0);
        assert_eq!(&seen["pending"], &json!(0), "{seen}");
        replayed += seen["replayed"].as_u64().unwrap();
    }
    assert_eq!(replayed, 3);
    assert_eq!(text(&folder.ok(&["range", "list", "0", "-1"])), "1\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_named_and_used_only_when_it_is_accepted() {
    let folder = Folder::with(CHAIN);
    left_by_the_dead(&folder, "agent.db").await;
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(folder.path().join(format!("agent.db{ending}")));
    }
    fs::write(folder.path().join("agent.db"), "").unwrap();
    let output = folder.run(&["reconcile", "--json"]);
    let seen = report(&output, 2);
    assert_eq!((&seen["fenced"], &seen["pending"]), (&json!(true), &json!(3)), "{seen}");
    assert!(text(&output.stderr).contains("agent-storage reconcile --accept"), "{}", text(&output.stderr));
    let output = folder.run(&["reconcile", "--accept", "--json"]);
    let seen = report(&output, 0);
    assert_eq!((&seen["replayed"], &seen["fenced"]), (&json!(3), &json!(false)), "{seen}");
    assert!(text(&output.stderr).contains("3 pending; knows "), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&format!("accepted {}", seen["accepted"]["identity"].as_str().unwrap())));
    assert_eq!(text(&folder.ok(&["get", "k"])), "1");
    folder.fails(3, &["get", "before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_owed_to_another_address_waits_for_a_decision() {
    let folder = Folder::with(CHAIN);
    left_by_the_dead(&folder, "former.db").await;
    let seen = report(&folder.run(&["reconcile", "--json"]), 2);
    assert_eq!((&seen["fenced"], seen["left_journals"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{seen}");
    let seen = report(&folder.run(&["reconcile", "--accept", "--json"]), 0);
    assert_eq!((&seen["accepted"]["taken_over"], &seen["replayed"]), (&json!(3), &json!(3)), "{seen}");
    assert_eq!(text(&folder.ok(&["length", "list"])), "2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journals_of_the_living_are_left_to_them() {
    let folder = Folder::with(CHAIN);
    let application = Application::start(&folder).await;
    application.fall().await;
    application.database.set_json("k", &1).await.unwrap();
    let seen = report(&folder.run(&["reconcile", "--json"]), 0);
    assert_eq!(seen["living"], json!({ "processes": 1, "pending": 1 }), "{seen}");
    application.die(&folder).await;
}

#[test]
fn without_a_fallback_there_is_nothing_to_reconcile() {
    let folder = Folder::with("storage:\n  database:\n    type: sqlite\n    path: agent.db\n");
    assert!(folder.fails(2, &["reconcile"]).contains("`fallback`"));
}

#[cfg(target_os = "linux")]
mod stopped {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader, Read};

    #[tokio::test(flavor = "multi_thread")]
    async fn it_waits_for_the_database_until_it_is_stopped() {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let folder = Folder::with(&format!("{CHAIN}    timeout: 1s\n"));
            left_by_the_dead(&folder, "agent.db").await;
            // Somebody holds the database, and lets nobody write.
            let holder = rusqlite::Connection::open(folder.path().join("agent.db")).unwrap();
            holder.execute_batch("BEGIN IMMEDIATE").unwrap();
            let mut child = folder.start(&["reconcile"]);
            let mut told = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            while !line.contains(": 3 pending") {
                line.clear();
                assert!(told.read_line(&mut line).unwrap() > 0, "it ended by itself");
            }
            kill_process(Pid::from_child(&child), signal).unwrap();
            let mut rest = String::new();
            told.read_to_string(&mut rest).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{rest}");
            assert!(rest.contains("what was not replayed stays in the journal"), "{rest}");
            drop(holder);
            assert!(text(&folder.ok(&["reconcile"])).starts_with("3 operations replayed"));
        }
    }
}

#[test]
fn however_long_it_may_wait_it_ends_when_nothing_is_owed() {
    let folder = Folder::with(CHAIN);
    for command in [&["reconcile", "--timeout"][..], &["journal", "retry", "--timeout"]] {
        folder.ok(&[command, &["500000000000y"]].concat());
    }
}

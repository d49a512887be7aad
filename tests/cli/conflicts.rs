//! The command `conflicts`.

use serde_json::{Value as Json, json};

use crate::folder::{Folder, text};
use crate::owing::{Application, CHAIN};

/// A folder in which what one process wrote and deleted while it was cut off lost against what others did meanwhile.
async fn in_conflict() -> Folder {
    let folder = Folder::with(CHAIN);
    let application = Application::start(&folder).await;
    application.database.set_json("deleted", &1).await.unwrap();
    application.fall().await;
    let database = &application.database;
    database.set_json("k", &"lost").await.unwrap();
    database.append_json("list", &"lost").await.unwrap();
    database.delete("deleted").await.unwrap();
    for key in ["k", "deleted"] {
        folder.ok(&["set", key, "\"won\""]);
    }
    folder.ok(&["append", "list", "\"gone\""]);
    folder.ok(&["delete", "list"]);
    application.die(&folder).await;
    assert_eq!(folder.run(&["reconcile"]).status.code(), Some(1), "conflicts are kept");
    folder
}

fn conflicts(folder: &Folder) -> Vec<Json> {
    let listed = text(&folder.ok(&["conflicts", "list", "--json"]));
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The stamp of the conflict of a key.
fn stamp(folder: &Folder, key: &str) -> String {
    let conflicts = conflicts(folder);
    let conflict = conflicts.iter().find(|conflict| conflict["key"] == key).unwrap_or_else(|| panic!("{conflicts:?}"));
    conflict["stamp"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_listed_without_values_and_shown_with_them() {
    let folder = in_conflict().await;
    let mut listed: Vec<_> = conflicts(&folder)
        .iter()
        .map(|it| (it["operation"].clone(), it["key"].clone(), it.get("value").cloned()))
        .collect();
    listed.sort_by_key(|(operation, ..)| operation.to_string());
    let expected = [("append", "list"), ("delete", "deleted"), ("put", "k")];
    assert_eq!(listed, expected.map(|(operation, key)| (json!(operation), json!(key), None)));
    let shown: Json = serde_json::from_slice(&folder.ok(&["conflicts", "show", "k", &stamp(&folder, "k")])).unwrap();
    assert_eq!((&shown["value"], &shown["standing"]["value"]), (&json!("lost"), &json!("won")), "{shown}");
    assert_eq!(shown["standing"]["is_the_winner"], json!(true), "{shown}");
    folder.fails(3, &["conflicts", "show", "other", &stamp(&folder, "k")]);
    // A page at a time.
    let first = folder.run(&["conflicts", "list", "--limit", "1"]);
    let hint = text(&first.stderr);
    let (_, after) = hint.trim().split_once("--after ").unwrap();
    let (after, key) = after.split_once(' ').unwrap();
    let rest = text(&folder.ok(&["conflicts", "list", "--after", after, key.trim_matches('\'')]));
    assert_eq!((text(&first.stdout).lines().count(), rest.lines().count()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_page_is_told_as_a_shell_takes_it() {
    let folder = Folder::with(CHAIN);
    let application = Application::start(&folder).await;
    application.fall().await;
    let keys = ["it's $HOME", "`b`; c"];
    for key in keys {
        application.database.set_json(key, &"lost").await.unwrap();
        folder.ok(&["set", key, "\"won\""]);
    }
    application.die(&folder).await;
    assert_eq!(folder.run(&["reconcile"]).status.code(), Some(1), "conflicts are kept");
    let first = folder.run(&["conflicts", "list", "--limit", "1"]);
    let hint = text(&first.stderr);
    let (_, after) = hint.trim().split_once("after: ").unwrap();
    let line = format!("{} conflicts list {after}", env!("CARGO_BIN_EXE_agent-storage"));
    let rest = std::process::Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    let pages = [text(&first.stdout), text(&rest.stdout)];
    assert!(
        pages.iter().zip(keys).all(|(page, key)| page.trim_end().ends_with(key)),
        "{pages:?} {}",
        text(&rest.stderr)
    );
    assert!(pages.iter().all(|page| page.lines().count() == 1), "{pages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_won_stays_or_what_lost_is_written_again() {
    let folder = in_conflict().await;
    let resolve = |key: &str, take: &str| {
        let stamp = stamp(&folder, key);
        folder.ok(&["conflicts", "resolve", key, &stamp, "--take", take]);
        stamp
    };
    let settled = resolve("deleted", "winner");
    assert_eq!(text(&folder.ok(&["get", "deleted"])), "\"won\"");
    folder.fails(3, &["conflicts", "resolve", "deleted", &settled, "--take", "winner"]);
    resolve("k", "loser");
    assert_eq!(text(&folder.ok(&["get", "k"])), "\"lost\"");
    resolve("list", "loser");
    assert_eq!(text(&folder.ok(&["range", "list", "0", "-1"])), "\"lost\"\n");
    assert!(conflicts(&folder).is_empty());
    folder.ok(&["reconcile"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_than_the_winner_is_not_overwritten_by_chance() {
    let folder = in_conflict().await;
    for key in ["k", "deleted"] {
        folder.ok(&["set", key, "\"newer\""]);
        let stamp = stamp(&folder, key);
        let complaint = folder.fails(4, &["conflicts", "resolve", key, &stamp, "--take", "loser"]);
        assert!(complaint.contains("--force"), "{complaint}");
        assert_eq!(text(&folder.ok(&["get", key])), "\"newer\"");
        folder.ok(&["conflicts", "resolve", key, &stamp, "--take", "loser", "--force"]);
    }
    assert_eq!(text(&folder.ok(&["get", "k"])), "\"lost\"");
    folder.fails(3, &["get", "deleted"]);
}

//! The command `journal`.

use std::fs;

use agent_storage::contract::ItemId;
use agent_storage::{SetOptions, Ttl, Value};
use serde_json::{Value as Json, json};

use crate::folder::{Folder, text};
use crate::owing::{Application, CHAIN, JOURNAL, journals};

/// An application that owes one operation of each kind, alive.
async fn owing(folder: &Folder) -> Application {
    let application = Application::start(folder).await;
    application.fall().await;
    let database = &application.database;
    database.set("a", Value::json("{\n\"n\": 1e400}").unwrap()).await.unwrap();
    let ttl = SetOptions::new().with_ttl(Ttl::from_secs(3600).unwrap());
    database.set_with("b", Value::binary(&b"\xff\n"[..]).unwrap(), ttl).await.unwrap();
    database.append_with_id("list", Value::from_json("hello").unwrap(), ItemId::parse("first").unwrap()).await.unwrap();
    database.delete("c").await.unwrap();
    database.clear("old:").await.unwrap();
    application
}

fn status(folder: &Folder) -> Json {
    serde_json::from_slice(&folder.ok(&["journal", "status", "--json"])).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_seen_while_its_owner_lives_and_when_it_is_dead() {
    let folder = Folder::with(CHAIN);
    let application = owing(&folder).await;
    let seen = status(&folder);
    let journal = &seen["journals"][0];
    assert_eq!(
        (&journal["owner"], &journal["pending"], &journal["parked"]),
        (&json!("alive"), &json!(5), &json!(0)),
        "{seen}"
    );
    assert!(journal["format"].as_u64() > Some(0), "{seen}");
    assert!(journal["owed_to"].as_str().unwrap().ends_with("agent.db"), "{seen}");
    assert!(journal["oldest"].is_u64() && journal["bytes"].as_u64() > Some(0), "{seen}");
    let table = text(&folder.ok(&["journal", "status"]));
    assert!(table.contains("alive") && table.contains(" ago"), "{table}");
    // It was only looked at: its owner goes on.
    application.database.delete("d").await.unwrap();
    application.die(&folder).await;
    let seen = status(&folder);
    assert_eq!((&seen["journals"][0]["owner"], &seen["journals"][0]["pending"]), (&json!("dead"), &json!(6)), "{seen}");
    assert_eq!(journals(folder.path()).await.len(), 1, "it was not taken over");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_is_exported_as_a_line_of_json() {
    let folder = Folder::with(CHAIN);
    let application = owing(&folder).await;
    let exported = folder.ok(&["journal", "export"]);
    assert!(text(&exported).contains(r#""value":{ "n": 1e400}"#), "{}", text(&exported));
    let fields = ["operation", "key", "value", "base64", "prefix", "item_id", "parked"];
    let seen: Vec<Json> =
        text(&exported).replace("1e400", "1").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |index: usize| fields.map(|field| seen[index][field].clone());
    let null = Json::Null;
    assert_eq!(
        of(0),
        [json!("put"), json!("a"), json!({"n": 1}), null.clone(), null.clone(), null.clone(), null.clone()]
    );
    assert_eq!(
        of(1),
        [json!("put"), json!("b"), null.clone(), json!("/wo="), null.clone(), null.clone(), null.clone()]
    );
    assert!(seen[1]["expires_at"].is_u64());
    assert_eq!(of(2)[..3], [json!("append"), json!("list"), json!("hello")]);
    assert_eq!(of(2)[5], json!("first"));
    assert_eq!(of(3)[..2], [json!("delete"), json!("c")]);
    assert_eq!((&of(4)[0], &of(4)[4]), (&json!("clear"), &json!("old:")));
    application.die(&folder).await;
    assert_eq!(folder.ok(&["journal", "export"]), exported, "it is the same when its owner is dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_read_is_told_and_hides_no_other() {
    let folder = Folder::with(CHAIN);
    let application = owing(&folder).await;
    fs::write(folder.path().join(JOURNAL).join("journal-0000000000000000.db"), "no journal".repeat(1000)).unwrap();
    for arguments in [&["journal", "status", "--json"][..], &["journal", "export"]] {
        let output = folder.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("journal-0000000000000000.db: "), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains(r#""pending": 5"#) || text(&output.stdout).lines().count() == 5);
    }
    application.die(&folder).await;
}

#[test]
fn without_a_journal_there_is_nothing_to_see() {
    let folder = Folder::with("");
    let output = folder.run(&["journal", "status", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(serde_json::from_slice::<Json>(&output.stdout).unwrap()["journals"], json!([]));
    assert!(text(&output.stderr).contains("there is no journal in"), "{}", text(&output.stderr));
    assert_eq!(folder.ok(&["journal", "export"]), b"");
    assert!(!folder.path().join(".agent-storage").exists(), "nothing is made");
}

fn text_of(object: &Json, field: &str) -> String {
    object.get(field).and_then(Json::as_str).unwrap().to_owned()
}

/// The stamps of what a dead process has put aside: it was refused, as its journal says.
async fn put_aside(folder: &Folder) -> Vec<String> {
    owing(folder).await.die(folder).await;
    let [journal] = &journals(folder.path()).await[..] else { panic!("one journal") };
    let parked = rusqlite::Connection::open(&journal.path).unwrap();
    parked.execute("UPDATE op SET parked = 'refused' WHERE key IN ('a', 'b')", []).unwrap();
    let exported = text(&folder.ok(&["journal", "export"])).replace("1e400", "1");
    let exported = exported.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    exported.filter(|it| it["parked"] == "refused").map(|it| text_of(&it, "stamp")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_is_tried_again_or_given_up() {
    let folder = Folder::with(CHAIN);
    let stamps = put_aside(&folder).await;
    let [a, b] = &stamps[..] else { panic!("{stamps:?}") };
    assert_eq!(status(&folder)["journals"][0]["parked"], json!(2));
    let output = folder.run(&["reconcile", "--json"]);
    assert_eq!(output.status.code(), Some(1), "they are left: {}", text(&output.stderr));
    assert_eq!(folder.unread(&["reconcile"]), Some(1));
    assert_eq!(folder.unread(&["journal", "drop", b]), Some(1), "whoever regrets it could not find it");
    // What is given up is printed, for whoever regrets it.
    let given_up: Json = serde_json::from_slice(&folder.ok(&["journal", "drop", b])).unwrap();
    assert_eq!((&given_up["key"], &given_up["base64"]), (&json!("b"), &json!("/wo=")));
    folder.fails(3, &["journal", "drop", b]);
    let output = folder.run(&["journal", "retry", a, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(serde_json::from_slice::<Json>(&output.stdout).unwrap()["replayed"], json!(1));
    assert_eq!(text(&folder.ok(&["get", "a"])), "{\n\"n\": 1e400}");
    folder.fails(3, &["get", "b"]);
    folder.fails(3, &["journal", "retry", a]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_living_process_has_put_aside_is_its_own_and_what_helps_is_told() {
    let folder = Folder::with(CHAIN);
    let application = owing(&folder).await;
    let [journal] = &journals(folder.path()).await[..] else { panic!("one journal") };
    let parked = rusqlite::Connection::open(&journal.path).unwrap();
    parked.execute("UPDATE op SET parked = 'refused' WHERE key = 'b'", []).unwrap();
    let exported = text(&folder.ok(&["journal", "export"])).replace("1e400", "1");
    let aside = exported.lines().find(|line| line.contains(r#""parked":"refused""#)).unwrap();
    let stamp = text_of(&serde_json::from_str(aside).unwrap(), "stamp");
    let file = journal.path.file_name().unwrap().to_string_lossy();
    for (arguments, code) in
        [(&["journal", "retry", &stamp][..], 1), (&["journal", "drop", &stamp], 1), (&["journal", "retry"], 0)]
    {
        let output = folder.run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(&*file) && told.contains("a living process"), "{told}");
        assert!(told.contains("retry_parked") && told.contains("open_database_chain"), "{told}");
    }
    let none = "0198c0ffee0000000123456789abcdef";
    assert!(folder.fails(3, &["journal", "drop", none]).contains("no operation of this stamp"));
    let seen = status(&folder);
    let its_own = seen["journals"].as_array().unwrap().iter().find(|journal| journal["file"] == *file).unwrap();
    assert_eq!((&its_own["owner"], &its_own["parked"]), (&json!("alive"), &json!(1)), "it is there still: {seen}");
    // Once it has ended, the same command does it.
    application.die(&folder).await;
    folder.ok(&["journal", "drop", &stamp]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_waits_behind_what_was_put_aside_is_not_given_up() {
    let folder = Folder::with(CHAIN);
    let application = owing(&folder).await;
    application.database.append_json("list", &2).await.unwrap();
    application.die(&folder).await;
    let [journal] = &journals(folder.path()).await[..] else { panic!("one journal") };
    let parked = rusqlite::Connection::open(&journal.path).unwrap();
    parked
        .execute("UPDATE op SET parked = 'refused' WHERE seq = (SELECT min(seq) FROM op WHERE key = 'list')", [])
        .unwrap();
    drop(parked);
    assert_eq!(folder.run(&["reconcile"]).status.code(), Some(1));
    let exported = text(&folder.ok(&["journal", "export"]));
    let exported: Vec<Json> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [stuck, waiting] = &exported[..] else { panic!("{exported:?}") };
    folder.fails(3, &["journal", "drop", &text_of(waiting, "stamp")]);
    folder.fails(3, &["journal", "retry", &text_of(waiting, "stamp")]);
    folder.ok(&["journal", "drop", &text_of(stuck, "stamp")]);
    folder.ok(&["reconcile"]);
    assert_eq!(text(&folder.ok(&["range", "list", "0", "-1"])), "2\n");
}

//! What is particular to SQLite: the file and its rights, other files, several processes, locks, crashes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use agent_storage::backend::sqlite::SqliteDatabase;
use agent_storage::config::SqliteConfig;
use agent_storage::contract::{
    Append, Attempt, Context, DatabaseBackend, GetOptions, ListOptions, ListRange, Store, Write, WriteMode, WriteOp,
};
use agent_storage::{Error, ErrorKind, HybridClock, Key, KeyPrefix, Outage, Result, Value};
use rusqlite::Connection;
use support::Suite;
use support::process::{freeze_family, thaw_family, wait_until};
use tempfile::TempDir;

/// Makes this program another process that uses a database: what to do, and on which file.
const ROLE: &str = "STORAGE_TEST_SQLITE_ROLE";
const FILE: &str = "STORAGE_TEST_SQLITE_FILE";

const PROCESSES: usize = 20;
const INCREMENTS: u64 = 50;

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role, Path::new(&std::env::var(FILE).unwrap()));
    }
    let mut suite = Suite::new();
    #[cfg(unix)]
    suite.test("folder_and_files_are_for_this_user_alone", &[], folder_and_files_are_for_this_user_alone);
    suite.test("what_is_not_a_database_is_refused_untouched", &[], what_is_not_a_database_is_refused_untouched);
    suite.test("another_applications_file_is_refused_untouched", &[], another_applications_file_is_refused_untouched);
    suite.test("tables_of_the_same_names_are_refused_untouched", &[], tables_of_the_same_names_are_refused_untouched);
    suite.test("a_file_with_other_tables_is_shared", &[], a_file_with_other_tables_is_shared);
    suite.test("a_newer_schema_is_refused_unless_it_says_otherwise", &[], a_newer_schema_is_refused);
    suite.test("paths_that_sqlite_reads_specially_are_plain_or_refused", &[], special_paths);
    suite.test("a_path_that_cannot_be_made_is_unavailable_and_tried_anew", &[], a_path_that_cannot_be_made);
    suite.test("many_processes_open_one_fresh_file_at_once", &[], many_processes_open_one_fresh_file_at_once);
    suite.test("processes_update_one_key_without_losing_an_update", &[], processes_update_one_key);
    suite.test("a_lock_that_outlasts_the_deadline_is_unavailable", &[], a_lock_that_outlasts_the_deadline);
    suite.test("a_file_locked_while_it_is_opened_is_opened_later", &[], a_file_locked_while_it_is_opened);
    suite.test("acknowledged_writes_survive_a_kill", &[], acknowledged_writes_survive_a_kill);
    suite.test("a_frozen_process_holds_nobody_up_for_ever", &[], a_frozen_process_holds_nobody_up_for_ever);
    #[cfg(unix)]
    suite.test("a_removed_or_replaced_file_is_not_our_database", &[], a_removed_or_replaced_file);
    #[cfg(unix)]
    suite.test("a_disk_that_fails_costs_what_it_failed_and_no_more", &[], a_disk_that_fails);
    suite.test("a_batch_whose_caller_goes_away_is_written_to_its_end", &[], an_abandoned_batch);
    suite.test("a_clear_whose_caller_goes_away_clears_to_its_end", &[], an_abandoned_clear);
    suite.test("a_clear_that_breaks_off_does_not_claim_that_nothing_was_applied", &[], a_clear_that_breaks_off);
    suite.test("a_corrupt_record_fails_alone_and_is_mended_by_a_write", &[], a_corrupt_record_fails_alone);
    suite.test("a_lost_item_is_said_and_not_skipped", &[], a_lost_item_is_said_and_not_skipped);
    suite.test("a_corrupt_list_fails_alone_and_is_mended_by_a_delete", &[], a_corrupt_list_fails_alone);
    suite.test("a_list_with_a_negative_position_is_corrupt_and_not_empty", &[], a_list_with_a_negative_position);
    suite.test("a_key_that_is_none_does_not_hide_the_others", &[], a_key_that_is_none_does_not_hide_the_others);
    suite.test("concurrent_first_calls_open_once", &[], concurrent_first_calls_open_once);
    suite.test("nothing_is_opened_after_close", &[], nothing_is_opened_after_close);
    suite.run()
}

/// A database in a folder of its own.
struct Fixture {
    folder: TempDir,
    database: SqliteDatabase,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = open(&folder.path().join("agent.db"));
        Self { folder, database }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("agent.db")
    }

    /// Another program's connection to the file.
    fn foreign(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}

fn open(path: &Path) -> SqliteDatabase {
    SqliteDatabase::new(&SqliteConfig::at(path))
}

fn cx() -> Context {
    Context::with_timeout(Duration::from_secs(30))
}

fn short() -> Context {
    Context::with_timeout(Duration::from_millis(200))
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn put(name: &str, number: u64) -> Write {
    Write::put(key(name), Value::from_json(&number).unwrap(), HybridClock::process().issue())
}

async fn set(database: &SqliteDatabase, name: &str, number: u64) -> Result<()> {
    database.write(put(name, number), &cx()).await.map(drop)
}

async fn get(database: &SqliteDatabase, name: &str) -> Result<Option<u64>> {
    let lookup = database.get(&key(name), &GetOptions::default(), &cx()).await?;
    lookup.into_value().map(|value| value.decode()).transpose()
}

async fn first_error(path: &Path) -> Error {
    set(&open(path), "a", 1).await.unwrap_err()
}

#[cfg(unix)]
async fn folder_and_files_are_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("one").join("two");
    let database = open(&made.join("agent.db"));
    set(&database, "a", 1).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&made), mode(made.parent().unwrap())), (0o700, 0o700));
    let mut files: Vec<_> = fs::read_dir(&made).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3, "the database, its log and the log's index: {files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600));
}

async fn what_is_not_a_database_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    for content in [b"x".to_vec(), b"a few words".to_vec(), vec![b'y'; 600], vec![b'z'; 10_000]] {
        fs::write(&path, &content).unwrap();
        let error = first_error(&path).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{} bytes: {error}", content.len());
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was put beside it");
    }
    assert_eq!(first_error(folder.path()).await.kind(), ErrorKind::Config, "a folder");
}

async fn another_applications_file_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    let other = "PRAGMA application_id = 1234; CREATE TABLE contents (a)";
    refused_untouched(&path, other).await;
    let utf16 = folder.path().join("utf16.db");
    refused_untouched(&utf16, "PRAGMA encoding = 'UTF-16'; CREATE TABLE contents (a)").await;
}

async fn tables_of_the_same_names_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    refused_untouched(&folder.path().join("kv.db"), "CREATE TABLE kv (key TEXT, value TEXT)").await;
    refused_untouched(&folder.path().join("meta.db"), "CREATE TABLE meta (id INTEGER, schema TEXT)").await;
}

async fn refused_untouched(path: &Path, statements: &str) {
    Connection::open(path).unwrap().execute_batch(statements).unwrap();
    let before = fs::read(path).unwrap();
    let error = first_error(path).await;
    assert!(error.kind() == ErrorKind::Config && !error.is_transient(), "{error}");
    assert_eq!(fs::read(path).unwrap(), before);
}

async fn a_file_with_other_tables_is_shared() {
    let fixture = Fixture::new();
    fixture.foreign().execute_batch("CREATE TABLE contents (a); INSERT INTO contents VALUES (7)").unwrap();
    set(&fixture.database, "a", 1).await.unwrap();
    assert_eq!(get(&open(&fixture.path()), "a").await.unwrap(), Some(1));
    let foreign = fixture.foreign();
    assert_eq!(foreign.query_row("SELECT a FROM contents", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
    let id: i64 = foreign.pragma_query_value(None, "application_id", |row| row.get(0)).unwrap();
    assert_eq!(id, 0, "the other application's mark is its own");
}

async fn a_newer_schema_is_refused() {
    let fixture = Fixture::new();
    set(&fixture.database, "a", 1).await.unwrap();
    fixture.database.close(&cx()).await.unwrap();
    fixture.foreign().execute_batch("UPDATE meta SET schema = 99").unwrap();
    let error = first_error(&fixture.path()).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("99") && error.message().contains("newer"), "{error}");
    fixture.foreign().execute_batch("UPDATE meta SET min_compatible = 3").unwrap();
    assert_eq!(get(&open(&fixture.path()), "a").await.unwrap(), Some(1));
}

async fn special_paths() {
    let folder = tempfile::tempdir().unwrap();
    for name in [":memory:", ""] {
        let error = first_error(Path::new(name)).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{name:?}: {error}");
    }
    let error = first_error(&folder.path().join(":memory:")).await;
    assert!(error.message().contains("in-memory"), "{error}");
    for name in ["file:a?mode=memory", "file:b", "sp ace %20.db", "ünï.db"] {
        let path = folder.path().join(name);
        set(&open(&path), "a", 1).await.unwrap();
        assert!(path.is_file(), "{name}");
    }
}

async fn a_path_that_cannot_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "a file where a folder should be").unwrap();
    let database = open(&blocked.join("agent.db"));
    assert_eq!(set(&database, "a", 1).await.unwrap_err().kind(), ErrorKind::Unavailable);
    fs::remove_file(&blocked).unwrap();
    set(&database, "a", 1).await.unwrap();
}

async fn many_processes_open_one_fresh_file_at_once() {
    let fixture = Fixture::new();
    let children: Vec<Actor> = (0..PROCESSES).map(|_| Actor::start("open", &fixture.path())).collect();
    for child in children {
        child.succeed();
    }
    assert_eq!(fixture.database.count(&KeyPrefix::empty(), &cx()).await.unwrap(), PROCESSES as u64);
    let migrated: i64 = fixture.foreign().query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap();
    assert_eq!(migrated, 1);
}

async fn processes_update_one_key() {
    let fixture = Fixture::new();
    let children: Vec<Actor> = (0..4).map(|_| Actor::start("increment", &fixture.path())).collect();
    for child in children {
        child.succeed();
    }
    assert_eq!(get(&fixture.database, "counter").await.unwrap(), Some(4 * INCREMENTS));
    let items = fixture.database.range(&key("log"), ListRange::ALL, &cx()).await.unwrap();
    let positions: Vec<u64> = items.iter().map(|item| item.position).collect();
    assert_eq!(positions, (0..4 * INCREMENTS).collect::<Vec<_>>());
}

async fn a_lock_that_outlasts_the_deadline() {
    let fixture = Fixture::new();
    set(&fixture.database, "a", 1).await.unwrap();
    let foreign = fixture.foreign();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = fixture.database.write(put("a", 2), &short()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(get(&fixture.database, "a").await.unwrap(), Some(1), "reads go on, and nothing was written");
    foreign.execute_batch("COMMIT").unwrap();
    set(&fixture.database, "a", 3).await.unwrap();
    assert_eq!(get(&fixture.database, "a").await.unwrap(), Some(3));
}

async fn a_file_locked_while_it_is_opened() {
    let fixture = Fixture::new();
    let foreign = fixture.foreign();
    foreign.execute_batch("CREATE TABLE contents (a); BEGIN EXCLUSIVE").unwrap();
    let error = fixture.database.write(put("a", 1), &short()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    foreign.execute_batch("COMMIT").unwrap();
    set(&fixture.database, "a", 1).await.unwrap();
}

async fn acknowledged_writes_survive_a_kill() {
    let fixture = Fixture::new();
    let mut child = Actor::start("write", &fixture.path());
    let mut acknowledged = 0;
    for line in child.lines().take(500) {
        acknowledged = line.unwrap().parse::<u64>().unwrap();
    }
    child.kill();
    assert!(acknowledged >= 499);
    for number in 0..=acknowledged {
        assert_eq!(get(&fixture.database, &format!("n{number}")).await.unwrap(), Some(number));
    }
    let length = fixture.database.length(&key("log"), &cx()).await.unwrap();
    assert!(length > acknowledged, "{length} items after {acknowledged} acknowledgements");
    let intact: String = fixture.foreign().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(intact, "ok");
}

async fn a_frozen_process_holds_nobody_up_for_ever() {
    let fixture = Fixture::new();
    set(&fixture.database, "a", 0).await.unwrap();
    let mut child = Actor::start("hold", &fixture.path());
    assert_eq!(child.lines().next().unwrap().unwrap(), "locked");
    freeze_family(child.id());
    assert_eq!(fixture.database.write(put("a", 1), &short()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(get(&fixture.database, "a").await.unwrap(), Some(0));
    thaw_family(child.id());
    child.kill();
    set(&fixture.database, "a", 2).await.unwrap();
    assert_eq!(get(&fixture.database, "a").await.unwrap(), Some(2));
}

#[cfg(unix)]
async fn a_removed_or_replaced_file() {
    let fixture = Fixture::new();
    set(&fixture.database, "a", 1).await.unwrap();
    let aside = fixture.folder.path().join("aside.db");
    fs::rename(fixture.path(), &aside).unwrap();
    let error = set(&fixture.database, "a", 2).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("removed"), "{error}");
    let error = get(&fixture.database, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "absence would be a guess");
    fs::write(fixture.path(), "").unwrap();
    let error = set(&fixture.database, "a", 3).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("replaced"), "{error}");
    fs::rename(&aside, fixture.path()).unwrap();
    assert_eq!(get(&fixture.database, "a").await.unwrap(), Some(1));
}

/// A limit on the size of files stands for the disk: SQLite meets it as a failed write in the middle of a commit.
#[cfg(unix)]
async fn a_disk_that_fails() {
    let fixture = Fixture::new();
    let limited = "trap '' XFSZ; ulimit -f 8192; exec \"$0\"";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(limited).arg(std::env::current_exe().unwrap());
    Actor::spawn(shell, "outgrow", &fixture.path()).succeed();
    assert_eq!(get(&fixture.database, "after").await.unwrap(), Some(1));
}

/// Polls a call once and drops it, as a caller does that gives up.
async fn abandon(call: impl Future) {
    tokio::select! {
        biased;
        _ = call => panic!("it takes several jobs"),
        () = std::future::ready(()) => {}
    }
}

fn puts(count: u64) -> Vec<Write> {
    (0..count).map(|number| put(&format!("k{number:05}"), number)).collect()
}

async fn count(database: &SqliteDatabase) -> u64 {
    database.count(&KeyPrefix::empty(), &cx()).await.unwrap()
}

async fn an_abandoned_batch() {
    let fixture = Fixture::new();
    set(&fixture.database, "a", 1).await.unwrap();
    let items = |_| Append::new(key("list"), Value::json("1").unwrap(), HybridClock::process().issue());
    abandon(fixture.database.write_many(puts(5000), &cx())).await;
    abandon(fixture.database.append_many((0..5000).map(items).collect(), &cx())).await;
    fixture.database.close(&cx()).await.unwrap();
    let reopened = open(&fixture.path());
    assert_eq!(count(&reopened).await, 5002);
    assert_eq!(reopened.length(&key("list"), &cx()).await.unwrap(), 5000);
}

async fn an_abandoned_clear() {
    let fixture = Fixture::new();
    fixture.database.write_many(puts(5000), &cx()).await;
    abandon(fixture.database.clear(&KeyPrefix::empty(), HybridClock::process().issue(), Attempt::First, &cx())).await;
    fixture.database.close(&cx()).await.unwrap();
    assert_eq!(count(&open(&fixture.path())).await, 0);
}

/// On a runtime of one thread no second portion is sent while the test holds that thread, so that a lock comes between.
async fn a_clear_that_breaks_off() {
    let test = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let fixture = Fixture::new();
        let error = runtime.block_on(async {
            fixture.database.write_many(puts(5000), &cx()).await;
            let cx = Context::with_timeout(Duration::from_secs(2));
            let prefix = KeyPrefix::empty();
            let clear = fixture.database.clear(&prefix, HybridClock::process().issue(), Attempt::First, &cx);
            let lock = async {
                let foreign = fixture.foreign();
                let rows =
                    || foreign.query_row("SELECT count(*) FROM kv WHERE kind <> 0", [], |row| row.get::<_, i64>(0));
                tokio::task::yield_now().await;
                assert!(wait_until(|| rows().unwrap() == 4000));
                foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
                foreign
            };
            let (cleared, _foreign) = tokio::join!(clear, lock);
            cleared.unwrap_err()
        });
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    });
    test.await.unwrap();
}

async fn a_corrupt_record_fails_alone() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c", "d"] {
        set(&fixture.database, name, 1).await.unwrap();
    }
    fixture
        .foreign()
        .execute_batch(
            "UPDATE kv SET kind = 9 WHERE key = 'a'; UPDATE kv SET json = NULL WHERE key = 'b';
             UPDATE kv SET stamp = x'00' WHERE key = 'c'",
        )
        .unwrap();
    let keys = ["a", "b", "c", "d"].map(key);
    let answers = fixture.database.get_many(&keys, &GetOptions::default(), &cx()).await;
    for answer in &answers[..3] {
        assert_eq!(answer.as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert!(answers[3].as_ref().unwrap().is_found());
    let page = fixture.database.list(&KeyPrefix::empty(), &ListOptions::default(), &cx()).await.unwrap();
    assert_eq!(page.keys.len(), 4);
    for name in ["a", "b", "c"] {
        set(&fixture.database, name, 2).await.unwrap();
        assert_eq!(get(&fixture.database, name).await.unwrap(), Some(2));
    }
}

async fn a_lost_item_is_said_and_not_skipped() {
    let fixture = Fixture::new();
    for name in ["list", "list", "list", "other"] {
        append(&fixture.database, name).await.unwrap();
    }
    fixture.foreign().execute_batch("DELETE FROM item WHERE key = 'list' AND position = 1").unwrap();
    let error = fixture.database.range(&key("list"), ListRange::ALL, &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(fixture.database.range(&key("list"), ListRange::last(1), &cx()).await.unwrap().len(), 1);
    assert_eq!(fixture.database.range(&key("other"), ListRange::ALL, &cx()).await.unwrap().len(), 1);
}

async fn a_corrupt_list_fails_alone() {
    let fixture = Fixture::new();
    append(&fixture.database, "list").await.unwrap();
    append(&fixture.database, "list").await.unwrap();
    fixture.foreign().execute_batch("UPDATE list SET floor = x'00', max_stamp = x'', next_position = -1").unwrap();
    let items =
        ["list", "other"].map(|name| Append::new(key(name), Value::json("1").unwrap(), HybridClock::process().issue()));
    let acks = fixture.database.append_many(items.to_vec(), &cx()).await;
    assert_eq!(acks[0].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(acks[1].as_ref().unwrap().position, Some(0));
    let delete = Write::delete(key("list"), HybridClock::process().issue());
    fixture.database.write(delete, &cx()).await.unwrap();
    append(&fixture.database, "list").await.unwrap();
    assert_eq!(fixture.database.length(&key("list"), &cx()).await.unwrap(), 1);
}

async fn a_list_with_a_negative_position() {
    for damage in ["next_position = -1", "first_position = -1", "first_position = 9", "floor = x'00'"] {
        let fixture = Fixture::new();
        append(&fixture.database, "list").await.unwrap();
        append(&fixture.database, "list").await.unwrap();
        fixture.foreign().execute_batch(&format!("UPDATE list SET {damage}")).unwrap();
        let (database, list) = (&fixture.database, key("list"));
        let corrupt = Some(ErrorKind::Corrupt);
        let kinds = [
            database.range(&list, ListRange::ALL, &cx()).await.err(),
            database.length(&list, &cx()).await.err(),
            database.trim(&list, 1, &cx()).await.err(),
            append(database, "list").await.err(),
        ];
        assert_eq!(kinds.map(|error| error.map(|error| error.kind())), [corrupt; 4], "{damage}");
        let there = database.exists(std::slice::from_ref(&list), &cx()).await;
        assert!(there[0].as_ref().is_ok_and(|there| *there), "{damage}: absence would be a guess");
        assert_eq!(count(database).await, 1, "{damage}");
        let cleared = database.clear(&KeyPrefix::empty(), HybridClock::process().issue(), Attempt::First, &cx()).await;
        assert_eq!(cleared.unwrap(), Some(1), "{damage}");
        append(database, "list").await.unwrap();
        assert_eq!(database.length(&list, &cx()).await.unwrap(), 1, "{damage}");
    }
}

async fn a_key_that_is_none_does_not_hide_the_others() {
    let fixture = Fixture::new();
    set(&fixture.database, "a", 1).await.unwrap();
    set(&fixture.database, "b", 1).await.unwrap();
    for stray in ["'a' || char(10)", "CAST(x'6180' AS TEXT)"] {
        let insert = format!(
            "INSERT INTO kv (key, stamp, kind, json) SELECT {stray}, stamp, kind, json FROM kv WHERE key = 'a'"
        );
        fixture.foreign().execute_batch(&insert).unwrap();
    }
    let page = fixture.database.list(&KeyPrefix::empty(), &ListOptions::default(), &cx()).await.unwrap();
    assert_eq!(page.keys, [key("a"), key("b")]);
    let (mut keys, mut options) = (Vec::new(), ListOptions::default().with_limit(1));
    loop {
        let page = fixture.database.list(&KeyPrefix::empty(), &options, &cx()).await.unwrap();
        keys.extend(page.keys);
        let Some(next) = page.next else { break };
        options = options.with_cursor(next);
    }
    assert_eq!(keys, [key("a"), key("b")], "a page of such rows alone does not end the listing");
}

async fn concurrent_first_calls_open_once() {
    let fixture = Fixture::new();
    let database = std::sync::Arc::new(fixture.database);
    let calls = (0..32_u64).map(|number| {
        let database = std::sync::Arc::clone(&database);
        tokio::spawn(async move { set(&database, &format!("k{number}"), number).await })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(database.count(&KeyPrefix::empty(), &cx()).await.unwrap(), 32);
}

async fn nothing_is_opened_after_close() {
    let fixture = Fixture::new();
    fixture.database.close(&cx()).await.unwrap();
    assert_eq!(set(&fixture.database, "a", 1).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(fixture.database.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Closed);
    fixture.database.close(&cx()).await.unwrap();
    assert!(!fixture.path().exists());
}

/// This program as another process, ended with the test.
struct Actor {
    child: Child,
}

impl Actor {
    fn start(role: &str, file: &Path) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), role, file)
    }

    fn spawn(mut command: Command, role: &str, file: &Path) -> Self {
        command.env(ROLE, role).env(FILE, file).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self { child: command.spawn().unwrap() }
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn lines(&mut self) -> impl Iterator<Item = std::io::Result<String>> + use<> {
        BufReader::new(self.child.stdout.take().unwrap()).lines()
    }

    fn succeed(mut self) {
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What another process does.
fn play(role: &str, file: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let database = open(file);
    match role {
        "open" => runtime.block_on(set(&database, &format!("process {}", std::process::id()), 1)).unwrap(),
        "increment" => (0..INCREMENTS).for_each(|_| runtime.block_on(increment(&database)).unwrap()),
        "write" => runtime.block_on(write_without_end(&database)),
        "hold" => hold(file),
        "outgrow" => runtime.block_on(outgrow(&database)),
        other => panic!("no role {other}"),
    }
    ExitCode::SUCCESS
}

/// Raises a counter by compare-and-set until it is not lost, and appends to a list.
async fn increment(database: &SqliteDatabase) -> Result<()> {
    loop {
        let lookup = database.get(&key("counter"), &GetOptions::default(), &cx()).await?;
        let (number, mode) = match lookup.into_entry() {
            Some(entry) => (entry.value.decode::<u64>()?, WriteMode::Update(entry.revision)),
            None => (0, WriteMode::Create),
        };
        let op = WriteOp::Put { value: Value::from_json(&(number + 1))?, mode, ttl: None };
        match database.write(Write::new(key("counter"), op, HybridClock::process().issue()), &cx()).await {
            Err(error) if error.is_conflict() => {}
            outcome => {
                outcome?;
                break;
            }
        }
    }
    append(database, "log").await
}

async fn append(database: &SqliteDatabase, name: &str) -> Result<()> {
    let item = Append::new(key(name), Value::json("1")?, HybridClock::process().issue());
    database.append_many(vec![item], &cx()).await.into_iter().try_for_each(|ack| ack.map(drop))
}

/// Writes numbers and says each once it is acknowledged.
async fn write_without_end(database: &SqliteDatabase) {
    for number in 0.. {
        append(database, "log").await.unwrap();
        set(database, &format!("n{number}"), number).await.unwrap();
        say(&number.to_string());
    }
}

/// Writes until the disk fails, and goes on.
async fn outgrow(database: &SqliteDatabase) {
    let large = Value::binary(vec![7; 1 << 20]).unwrap();
    let mut written = 0;
    let error = loop {
        let write = Write::put(key(&format!("large {written}")), large.clone(), HybridClock::process().issue());
        match database.write(write, &cx()).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(written > 0 && written < 64, "{written} written");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown), "{error}");
    assert!(error.is_transient() && error.outage() == Some(Outage::Down), "{error}");
    set(database, "after", 1).await.unwrap();
    for number in 0..written {
        let lookup = database.get(&key(&format!("large {number}")), &GetOptions::default(), &cx()).await.unwrap();
        assert_eq!(lookup.into_value().unwrap(), large);
    }
}

/// Takes the write lock and keeps it until the parent is gone.
fn hold(file: &Path) {
    let connection = Connection::open(file).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE; UPDATE meta SET canary = canary + 1").unwrap();
    say("locked");
    assert!(wait_until(|| std::io::stdin().read_line(&mut String::new()).is_ok()));
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

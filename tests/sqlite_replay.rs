//! A SQLite file that is expected to be a certain database, and what a replay does to a file that is damaged or held up.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent_storage::backend::sqlite::SqliteDatabase;
use agent_storage::config::SqliteConfig;
use agent_storage::contract::{
    Append, ConflictOptions, Context, DatabaseBackend, GetOptions, Identity, ListRange, ReplayOptions, ReplayOutcome,
    Step, Store, Write,
};
use agent_storage::{Clock, Error, ErrorKind, HybridClock, Key, KeyPrefix, Outage, Stamp, Value};
use rusqlite::Connection;
use tempfile::TempDir;

const MIGRATIONS: [&str; 3] = [
    include_str!("../migrations/sqlite/0001_kv.sql"),
    include_str!("../migrations/sqlite/0002_lists.sql"),
    include_str!("../migrations/sqlite/0003_meta.sql"),
];

/// A database in a folder of its own.
struct Fixture {
    folder: TempDir,
    database: SqliteDatabase,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = SqliteDatabase::new(&SqliteConfig::at(folder.path().join("data/agent.db")));
        Self { folder, database }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data/agent.db")
    }

    /// The database as another process opens it.
    fn another(&self) -> SqliteDatabase {
        SqliteDatabase::new(&SqliteConfig::at(self.path()))
    }

    /// Another program's connection to the file.
    fn foreign(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}

fn cx() -> Context {
    Context::with_timeout(Duration::from_secs(30))
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn stamp() -> Stamp {
    HybridClock::process().issue()
}

fn put(name: &str) -> Write {
    Write::put(key(name), Value::from_integer(1), stamp())
}

fn append(name: &str) -> Step {
    Step::Append(Append::new(key(name), Value::from_integer(1), stamp()))
}

fn options() -> ReplayOptions {
    ReplayOptions::new(Stamp::MIN)
}

fn identity(id: u128) -> Identity {
    Identity::new(id, 0)
}

async fn identity_of(database: &SqliteDatabase) -> Identity {
    database.identity(&cx()).await.unwrap()
}

async fn exists(database: &SqliteDatabase, name: &str) -> bool {
    database.get(&key(name), &GetOptions::default(), &cx()).await.unwrap().is_found()
}

#[track_caller]
fn assert_foreign(error: &Error) {
    assert_eq!((error.kind(), error.outage()), (ErrorKind::Unavailable, Some(Outage::Foreign)), "{error}");
}

#[tokio::test]
async fn a_missing_file_is_not_made_while_a_certain_database_is_expected() {
    let fixture = Fixture::new();
    fixture.database.expect(Some(identity(7))).unwrap();
    assert_foreign(&fixture.database.write(put("a"), &cx()).await.unwrap_err());
    assert_foreign(&fixture.database.get(&key("a"), &GetOptions::default(), &cx()).await.unwrap_err());
    assert_foreign(&fixture.database.identity(&cx()).await.unwrap_err());
    assert!(!fixture.path().parent().unwrap().exists(), "not even its folder");
    fixture.database.expect(None).unwrap();
    fixture.database.write(put("a"), &cx()).await.unwrap();
}

#[tokio::test]
async fn an_empty_file_stays_empty_while_a_certain_database_is_expected() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path().parent().unwrap()).unwrap();
    fs::write(fixture.path(), "").unwrap();
    fixture.database.expect(Some(identity(7))).unwrap();
    for _ in 0..2 {
        assert_foreign(&fixture.database.write(put("a"), &cx()).await.unwrap_err());
        assert_foreign(&fixture.database.ping(&cx()).await.unwrap_err());
    }
    assert_eq!(fs::metadata(fixture.path()).unwrap().len(), 0);
    assert_eq!(fs::read_dir(fixture.path().parent().unwrap()).unwrap().count(), 1, "nor is there a log beside it");
}

#[tokio::test]
async fn tables_of_an_older_program_are_brought_up_to_date_only_in_the_expected_database() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path().parent().unwrap()).unwrap();
    let older = fixture.foreign();
    older.execute_batch(&MIGRATIONS.concat()).unwrap();
    older.execute_batch("UPDATE meta SET schema = 3, canary = 5").unwrap();
    let id: [u8; 16] = older.query_row("SELECT identity FROM meta", [], |row| row.get(0)).unwrap();
    let schema = || older.query_row("SELECT schema FROM meta", [], |row| row.get::<_, i64>(0)).unwrap();
    let found = Identity::new(u128::from_be_bytes(id), 5);
    for other in [identity(7), Identity::new(found.id, 6)] {
        fixture.database.expect(Some(other)).unwrap();
        assert_foreign(&fixture.database.write(put("a"), &cx()).await.unwrap_err());
        assert_eq!(schema(), 3);
    }
    fixture.database.expect(Some(found)).unwrap();
    fixture.database.write(put("a"), &cx()).await.unwrap();
    assert!(schema() > 3);
    assert_eq!(identity_of(&fixture.database).await, found);
}

#[tokio::test]
async fn a_backup_that_was_put_in_the_place_of_the_database_is_refused() {
    let fixture = Fixture::new();
    fixture.database.write(put("a"), &cx()).await.unwrap();
    let backup = fixture.folder.path().join("backup.db");
    fixture.foreign().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    let seen = fixture.database.ping(&cx()).await.unwrap().identity.unwrap();
    fixture.database.write(put("b"), &cx()).await.unwrap();
    fixture.database.close(&cx()).await.unwrap();
    fs::rename(&backup, fixture.path()).unwrap();
    let restored = fixture.another();
    restored.expect(Some(seen)).unwrap();
    assert_foreign(&restored.get(&key("b"), &GetOptions::default(), &cx()).await.unwrap_err());
    assert_foreign(&restored.write(put("b"), &cx()).await.unwrap_err());
    let found = identity_of(&restored).await;
    assert!(found.id == seen.id && found.canary < seen.canary, "{found:?} after {seen:?}");
    restored.expect(Some(found)).unwrap();
    assert!(exists(&restored, "a").await && !exists(&restored, "b").await);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_removed_or_replaced_is_another_database() {
    let fixture = Fixture::new();
    fixture.database.write(put("a"), &cx()).await.unwrap();
    let aside = fixture.folder.path().join("aside.db");
    fs::rename(fixture.path(), &aside).unwrap();
    assert_foreign(&fixture.database.get(&key("a"), &GetOptions::default(), &cx()).await.unwrap_err());
    fs::write(fixture.path(), "").unwrap();
    assert_foreign(&fixture.database.write(put("a"), &cx()).await.unwrap_err());
    let steps = vec![Step::Write(put("b")), append("c")];
    for answer in fixture.database.replay(steps, &options(), &cx()).await {
        assert_foreign(&answer.unwrap_err());
    }
    fs::rename(&aside, fixture.path()).unwrap();
    assert!(exists(&fixture.database, "a").await);
}

#[cfg(unix)]
#[tokio::test]
async fn a_path_that_cannot_be_used_is_down() {
    let fixture = Fixture::new();
    fs::write(fixture.path().parent().unwrap(), "a file where the folder should be").unwrap();
    let error = fixture.database.write(put("a"), &cx()).await.unwrap_err();
    assert_eq!((error.kind(), error.outage()), (ErrorKind::Unavailable, Some(Outage::Down)), "{error}");
}

#[tokio::test]
async fn a_lock_of_another_process_is_no_outage() {
    let fixture = Fixture::new();
    fixture.database.write(put("a"), &cx()).await.unwrap();
    let foreign = fixture.foreign();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let short = Context::with_timeout(Duration::from_millis(200));
    for answer in fixture.database.replay(vec![Step::Write(put("b")), append("c")], &options(), &short).await {
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), error.outage()), (ErrorKind::Unavailable, None), "{error}");
    }
    foreign.execute_batch("COMMIT").unwrap();
    assert!(!exists(&fixture.database, "b").await);
}

#[tokio::test]
async fn a_step_that_meets_a_damaged_record_fails_alone() {
    let fixture = Fixture::new();
    let theirs = HybridClock::new(Clock::system());
    fixture.database.replay(vec![append("ahead")], &options(), &cx()).await.remove(0).unwrap();
    // Two older items and a newer one between them, which moves to the tail when they are deleted.
    let (older, delete) = ([stamp(), stamp()], stamp());
    let items = [older[0], theirs.issue_after(delete), older[1]];
    let items = items.map(|stamp| Append::new(key("moved"), Value::from_integer(1), stamp));
    fixture.database.append_many(items.into(), &cx()).await.remove(2).unwrap();
    fixture
        .foreign()
        .execute_batch(
            "UPDATE list SET next_position = 0 WHERE key = 'ahead';
             INSERT INTO item SELECT key, 3, 'stray', stamp, kind, json, bin FROM item WHERE key = 'moved' LIMIT 1",
        )
        .unwrap();
    let steps = vec![
        Step::Write(put("first")),
        append("ahead"),
        append("list"),
        Step::Write(Write::delete(key("moved"), delete)),
        Step::Write(put("last")),
    ];
    let answers = fixture.database.replay(steps, &options(), &cx()).await;
    for (at, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(outcome) => assert!(outcome == ReplayOutcome::Applied && at != 1 && at != 3, "{at}: {outcome:?}"),
            Err(error) if at == 1 => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
            Err(error) => assert!(at == 3 && error.outage().is_none() && !error.is_transient(), "{at}: {error}"),
        }
    }
    assert!(exists(&fixture.database, "first").await && exists(&fixture.database, "last").await);
    assert_eq!(fixture.database.length(&key("list"), &cx()).await.unwrap(), 1);
    // The delete that failed left nothing of what it had done until then.
    assert_eq!(fixture.database.range(&key("moved"), ListRange::ALL, &cx()).await.unwrap().len(), 3);
    assert!(fixture.database.conflicts(&ConflictOptions::default(), &cx()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_replay_whose_caller_goes_away_runs_to_its_end() {
    let fixture = Fixture::new();
    fixture.database.write(put("a"), &cx()).await.unwrap();
    let steps: Vec<Step> = (0..3000).map(|number| Step::Write(put(&format!("k{number}")))).collect();
    let (options, cx) = (options(), cx());
    tokio::select! {
        biased;
        _ = fixture.database.replay(steps, &options, &cx) => {}
        () = tokio::task::yield_now() => {}
    }
    fixture.database.close(&cx).await.unwrap();
    let prefix = KeyPrefix::parse("k").unwrap();
    assert_eq!(fixture.another().count(&prefix, &cx).await.unwrap(), 3000);
}

/// On a runtime of one thread no second part is sent while the test holds that thread, so that a lock comes between.
#[test]
fn a_replay_that_breaks_off_is_unknown_for_every_step() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let fixture = Fixture::new();
    let answers = runtime.block_on(async {
        let puts = (0..3000).map(|number| put(&format!("k{number}"))).collect();
        fixture.database.write_many(puts, &cx()).await;
        let options = options();
        let short = Context::with_timeout(Duration::from_secs(2));
        let steps = vec![Step::Clear { prefix: KeyPrefix::empty(), stamp: stamp() }, Step::Write(put("k1"))];
        let replay = fixture.database.replay(steps, &options, &short);
        let lock = async {
            let foreign = fixture.foreign();
            let rows = || foreign.query_row("SELECT count(*) FROM kv WHERE kind <> 0", [], |row| row.get::<_, i64>(0));
            tokio::task::yield_now().await;
            let began = Instant::now();
            while rows().unwrap() != 2000 {
                assert!(began.elapsed() < Duration::from_secs(20));
            }
            foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
            foreign
        };
        let (answers, _foreign) = tokio::join!(replay, lock);
        answers
    });
    assert_eq!(answers.len(), 2);
    for answer in answers {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }
}

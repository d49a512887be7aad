//! What the engine promises, on a file with one table.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::connection::LOG_KEPT_BYTES;
use super::engine::{Engine, ReadKind};
use super::error::SqlResult;
use super::job::Atomicity;
use super::open::{Layout, LayoutState, Options};
use super::writer::{Maintenance, Progress};
use crate::config::Synchronous;
use crate::error::{Error, ErrorKind, Result};

const LAYOUT: Layout = Layout {
    inspect: |connection| {
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = connection.query_row(tables, [], |row| row.get(0))?;
        Ok(if tables == 0 { LayoutState::Outdated } else { LayoutState::Current })
    },
    migrate: |connection| Ok(connection.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER, pad BLOB)")?),
};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn at_once() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

async fn open(path: &Path) -> Engine {
    open_with(path, None).await
}

async fn open_with(path: &Path, maintenance: Option<Maintenance>) -> Engine {
    let options = Options {
        path: path.to_owned(),
        synchronous: Synchronous::Full,
        readers: 2,
        busy_timeout: Duration::from_secs(5),
        layout: LAYOUT,
        admission: None,
        maintenance,
    };
    Engine::open(options, soon()).await.unwrap()
}

async fn fresh() -> (TempDir, Engine) {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder.path().join("test.db")).await;
    (folder, engine)
}

fn insert(connection: &Connection, number: i64) -> SqlResult<()> {
    connection.prepare_cached("INSERT INTO t (n) VALUES (?1)")?.execute([number])?;
    Ok(())
}

async fn write(engine: &Engine, number: i64) -> Result<()> {
    engine.write(8, Atomicity::Statement, soon(), move |connection| insert(connection, number)).await
}

async fn numbers(engine: &Engine) -> Vec<i64> {
    let read = |connection: &Connection| {
        let mut statement = connection.prepare_cached("SELECT n FROM t ORDER BY n")?;
        let numbers = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(numbers)
    };
    engine.read(ReadKind::Point, soon(), read).await.unwrap()
}

/// Holds the writer in a job until it is let go, so that what comes after queues up into one group.
struct Hold {
    release: mpsc::Sender<()>,
    job: JoinHandle<Result<()>>,
}

impl Hold {
    async fn new(engine: &std::sync::Arc<Engine>) -> Self {
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let engine = std::sync::Arc::clone(engine);
        let job = tokio::spawn(async move {
            let mut begin = Some(begin);
            let work = move |_: &Connection| {
                let _ = begin.take().map(|begin| begin.send(()));
                let _ = released.recv();
                Ok(())
            };
            engine.write(0, Atomicity::Statement, soon(), work).await
        });
        begun.await.unwrap();
        Self { release, job }
    }

    async fn let_go(self) {
        self.release.send(()).unwrap();
        self.job.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_read_sees_every_write_acknowledged_before() {
    let (_folder, engine) = fresh().await;
    for number in 0..200 {
        write(&engine, number).await.unwrap();
        assert_eq!(numbers(&engine).await.len() as i64, number + 1);
    }
}

#[tokio::test]
async fn a_failed_job_of_a_group_leaves_nothing_and_takes_nobody_along() {
    let (_folder, engine) = fresh().await;
    let engine = std::sync::Arc::new(engine);
    let hold = Hold::new(&engine).await;
    let failing = engine.write(8, Atomicity::Savepoint, soon(), |connection| -> SqlResult<()> {
        insert(connection, 2)?;
        Err(Error::conflict("lost").into())
    });
    let panicking = engine.write(8, Atomicity::Savepoint, soon(), |connection| -> SqlResult<()> {
        insert(connection, 3)?;
        panic!("a defect in a job");
    });
    let all = async { tokio::join!(write(&engine, 1), failing, panicking, write(&engine, 4)) };
    let release = async {
        tokio::task::yield_now().await;
        hold.let_go().await;
    };
    let ((first, failed, panicked, last), ()) = tokio::join!(all, release);
    assert!(first.is_ok() && last.is_ok());
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(panicked.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(numbers(&engine).await, [1, 4]);
}

/// Counts how often a job runs, and makes it answer that.
fn counted(number: i64) -> impl FnMut(&Connection) -> SqlResult<u32> + Send + 'static {
    let mut runs = 0;
    move |connection| {
        runs += 1;
        insert(connection, number).map(|()| runs)
    }
}

#[tokio::test]
async fn a_group_is_run_again_only_if_a_job_failed_in_the_middle() {
    let (_folder, engine) = fresh().await;
    let engine = std::sync::Arc::new(engine);
    for (number, changes_before_it_fails) in [(1, false), (2, true)] {
        let hold = Hold::new(&engine).await;
        let failing = engine.write(8, Atomicity::Savepoint, soon(), move |connection| -> SqlResult<()> {
            if changes_before_it_fails {
                insert(connection, -1)?;
            }
            Err(Error::conflict("lost").into())
        });
        let first = engine.write(8, Atomicity::Savepoint, soon(), counted(number));
        let last = engine.write(8, Atomicity::Statement, soon(), counted(number));
        let all = async { tokio::join!(first, failing, last) };
        let release = async {
            tokio::task::yield_now().await;
            hold.let_go().await;
        };
        let ((first, failed, last), ()) = tokio::join!(all, release);
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Conflict);
        let runs = 1 + u32::from(changes_before_it_fails);
        assert_eq!((first.unwrap(), last.unwrap()), (runs, 1), "the last one was not reached the first time");
    }
    assert_eq!(numbers(&engine).await, [1, 1, 2, 2]);
}

#[tokio::test]
async fn a_failed_job_alone_leaves_nothing() {
    let (_folder, engine) = fresh().await;
    let work = |connection: &Connection| -> SqlResult<()> {
        insert(connection, 1)?;
        Err(Error::conflict("lost").into())
    };
    let failed = engine.write(8, Atomicity::Savepoint, soon(), work).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(numbers(&engine).await.is_empty());
}

#[tokio::test]
async fn a_job_that_is_late_or_left_alone_never_runs() {
    let (_folder, engine) = fresh().await;
    let engine = std::sync::Arc::new(engine);
    let hold = Hold::new(&engine).await;
    let late = engine.write(8, Atomicity::Statement, at_once(), |connection| insert(connection, 1)).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable);
    {
        let dropped = write(&engine, 2);
        tokio::pin!(dropped);
        assert!(poll_immediate(&mut dropped).await.is_none());
    }
    hold.let_go().await;
    write(&engine, 3).await.unwrap();
    assert_eq!(numbers(&engine).await, [3]);
}

#[tokio::test]
async fn a_write_cut_off_while_it_runs_is_unknown_and_runs_to_its_end() {
    let (_folder, engine) = fresh().await;
    // On a slow machine the deadline may pass before the job begins; that is the other answer.
    let (release, error) = loop {
        let (release, released) = mpsc::channel::<()>();
        let work = move |connection: &Connection| {
            let _ = released.recv();
            insert(connection, 1)
        };
        let error = engine.write(8, Atomicity::Statement, at_once(), work).await.unwrap_err();
        if error.kind() != ErrorKind::Unavailable {
            break (release, error);
        }
    };
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    release.send(()).unwrap();
    write(&engine, 2).await.unwrap();
    assert_eq!(numbers(&engine).await, [1, 2]);
}

#[tokio::test]
async fn whoever_must_know_waits_for_a_job_that_began_beyond_its_deadline() {
    let (_folder, engine) = fresh().await;
    let engine = std::sync::Arc::new(engine);
    let hold = Hold::new(&engine).await;
    let late = engine.write_to_end(8, Atomicity::Statement, at_once(), |connection| insert(connection, 1)).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable);
    hold.let_go().await;
    // On a slow machine the deadline may pass before the job begins.
    let answer = loop {
        let deadline = at_once();
        let work = move |connection: &Connection| {
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(20));
            insert(connection, 2)
        };
        match engine.write_to_end(8, Atomicity::Statement, deadline, work).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            answer => break answer,
        }
    };
    answer.unwrap();
    assert_eq!(numbers(&engine).await, [2]);
}

#[tokio::test]
async fn a_full_queue_turns_writes_away_at_their_deadline() {
    let (_folder, engine) = fresh().await;
    let engine = std::sync::Arc::new(engine);
    let hold = Hold::new(&engine).await;
    let large = tokio::spawn({
        let engine = std::sync::Arc::clone(&engine);
        async move { engine.write(usize::MAX, Atomicity::Statement, soon(), |_| Ok(())).await }
    });
    tokio::task::yield_now().await;
    let turned_away = engine.write(8, Atomicity::Statement, at_once(), |connection| insert(connection, 1)).await;
    let error = turned_away.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("full"), "{error}");
    hold.let_go().await;
    large.await.unwrap().unwrap();
    write(&engine, 2).await.unwrap();
    assert_eq!(numbers(&engine).await, [2]);
}

#[tokio::test]
async fn a_full_disk_fails_what_does_not_fit_and_nothing_later() {
    let (_folder, engine) = fresh().await;
    let limit = |pages: i64| {
        engine.write(0, Atomicity::Statement, soon(), move |connection| {
            Ok(connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
        })
    };
    let large = || {
        engine.write(1 << 20, Atomicity::Statement, soon(), |connection| {
            connection.execute("INSERT INTO t (n, pad) VALUES (1, zeroblob(1048576))", [])?;
            Ok(())
        })
    };
    limit(16).await.unwrap();
    let error = large().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
    assert!(numbers(&engine).await.is_empty());
    limit(1 << 20).await.unwrap();
    large().await.unwrap();
    assert_eq!(numbers(&engine).await, [1]);
}

#[tokio::test]
async fn a_full_disk_in_a_group_makes_no_answer_wrong() {
    let (_folder, engine) = fresh().await;
    let engine = std::sync::Arc::new(engine);
    let limit =
        |connection: &Connection| Ok(connection.pragma_update_and_check(None, "max_page_count", 16, |_| Ok(()))?);
    engine.write(0, Atomicity::Statement, soon(), limit).await.unwrap();
    let hold = Hold::new(&engine).await;
    let large = engine.write(1 << 20, Atomicity::Savepoint, soon(), |connection| {
        connection.execute("INSERT INTO t (n, pad) VALUES (2, zeroblob(1048576))", [])?;
        Ok(())
    });
    let all = async { tokio::join!(write(&engine, 1), large, write(&engine, 3)) };
    let release = async {
        tokio::task::yield_now().await;
        hold.let_go().await;
    };
    let ((before, full, after), ()) = tokio::join!(all, release);
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Unavailable);
    let acknowledged = [(1, before), (3, after)].into_iter().filter(|(_, answer)| answer.is_ok());
    let acknowledged: Vec<i64> = acknowledged.map(|(number, _)| number).collect();
    assert_eq!(numbers(&engine).await, acknowledged);
}

#[tokio::test]
async fn maintenance_goes_on_in_portions_beside_the_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (done, mut portions) = tokio::sync::mpsc::unbounded_channel();
    let mut portion = 0;
    let maintenance = Maintenance {
        every: Duration::from_millis(1),
        portion: Box::new(move |connection| {
            portion += 1;
            insert(connection, portion)?;
            let _ = done.send(portion);
            if portion == 2 { Err(Error::internal("a portion failed").into()) } else { Ok(Progress::More) }
        }),
    };
    let engine = open_with(&folder.path().join("test.db"), Some(maintenance)).await;
    while portions.recv().await != Some(4) {}
    write(&engine, 0).await.unwrap();
    engine.close(soon()).await.unwrap();
    let numbers = numbers(&open(&folder.path().join("test.db")).await).await;
    assert_eq!(numbers.get(..4), Some(&[0, 1, 3, 4][..]), "the portion that failed left nothing");
}

fn log_length(folder: &TempDir) -> u64 {
    std::fs::metadata(folder.path().join("test.db-wal")).unwrap().len()
}

/// Writes a MiB, always into the same row.
fn rewrite(connection: &Connection) -> SqlResult<()> {
    connection.prepare_cached("REPLACE INTO t (rowid, n, pad) VALUES (1, 1, randomblob(1048576))")?.execute([])?;
    Ok(())
}

async fn churn(engine: &Engine, mebibytes: usize) {
    for _ in 0..mebibytes {
        engine.write(1 << 20, Atomicity::Statement, soon(), rewrite).await.unwrap();
    }
}

#[tokio::test]
async fn the_log_is_used_anew_and_keeps_its_length() {
    let (folder, engine) = fresh().await;
    churn(&engine, 20).await;
    let length = log_length(&folder);
    assert!((16 << 20..24 << 20).contains(&length), "{length}");
    churn(&engine, 40).await;
    assert_eq!(log_length(&folder), length, "it was neither cut nor made longer");
}

#[tokio::test]
async fn maintenance_does_not_let_the_log_grow() {
    let folder = tempfile::tempdir().unwrap();
    let (done, mut portions) = tokio::sync::mpsc::unbounded_channel();
    let maintenance = Maintenance {
        every: Duration::from_millis(1),
        portion: Box::new(move |connection| {
            rewrite(connection)?;
            let _ = done.send(());
            Ok(Progress::More)
        }),
    };
    let _engine = open_with(&folder.path().join("test.db"), Some(maintenance)).await;
    for _ in 0..40 {
        portions.recv().await.unwrap();
    }
    assert!(log_length(&folder) < 24 << 20);
}

#[tokio::test]
async fn a_log_that_a_reader_made_too_long_is_cut_once_the_reader_has_left() {
    let (folder, engine) = fresh().await;
    write(&engine, 0).await.unwrap();
    let reader = Connection::open(folder.path().join("test.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    churn(&engine, 40).await;
    assert!(log_length(&folder) > LOG_KEPT_BYTES);
    reader.execute_batch("COMMIT").unwrap();
    churn(&engine, 8).await;
    assert!(log_length(&folder) <= LOG_KEPT_BYTES);
}

#[tokio::test]
async fn a_log_that_is_read_without_a_pause_does_not_grow_for_ever() {
    let (folder, engine) = fresh().await;
    write(&engine, 0).await.unwrap();
    let path = folder.path().join("test.db");
    let readers = [(); 2].map(|()| Connection::open(&path).unwrap());
    let (stop, stopped) = mpsc::channel::<()>();
    let reading = std::thread::spawn(move || {
        // One begins before the other ends.
        for reader in readers.iter().cycle() {
            if !reader.is_autocommit() {
                reader.execute_batch("COMMIT").unwrap();
            }
            reader.execute_batch("BEGIN; SELECT n FROM t").unwrap();
            if stopped.try_recv().is_ok() {
                break;
            }
        }
    });
    churn(&engine, 192).await;
    let length = log_length(&folder);
    stop.send(()).unwrap();
    reading.join().unwrap();
    assert!(length < 160 << 20, "{length}");
}

#[tokio::test]
async fn a_long_read_ends_at_its_deadline_and_its_thread_goes_on() {
    let (_folder, engine) = fresh().await;
    let endless = |connection: &Connection| {
        let count = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
        Ok(connection.query_row(count, [], |row| row.get::<_, i64>(0))?)
    };
    for _ in 0..4 {
        let error = engine.read(ReadKind::Scan, at_once(), endless).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(numbers(&engine).await.is_empty());
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let (_folder, engine) = fresh().await;
    let work = |connection: &Connection| insert(connection, 1);
    assert_eq!(engine.read(ReadKind::Point, soon(), work).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn closing_ends_what_is_queued_and_then_lets_nobody_in() {
    let (folder, engine) = fresh().await;
    let engine = std::sync::Arc::new(engine);
    let hold = Hold::new(&engine).await;
    let queued = write(&engine, 1);
    tokio::pin!(queued);
    assert!(poll_immediate(&mut queued).await.is_none());
    let closing = engine.close(soon());
    tokio::pin!(closing);
    assert!(poll_immediate(&mut closing).await.is_none());
    hold.let_go().await;
    closing.await.unwrap();
    queued.await.unwrap();
    assert_eq!(write(&engine, 2).await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(!folder.path().join("test.db-wal").exists(), "the last connection moves the log into the file");
    assert_eq!(numbers(&open(&folder.path().join("test.db")).await).await, [1]);
}

#[tokio::test]
async fn a_close_that_is_held_up_ends_at_its_deadline() {
    let (_folder, engine) = fresh().await;
    let engine = std::sync::Arc::new(engine);
    let hold = Hold::new(&engine).await;
    assert_eq!(engine.close(at_once()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    hold.let_go().await;
    engine.close(soon()).await.unwrap();
}

#[tokio::test]
async fn a_lock_of_another_process_is_waited_for_until_the_deadline() {
    let (folder, engine) = fresh().await;
    let foreign = Connection::open(folder.path().join("test.db")).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    // On a slow machine the deadline may pass before the writer asks for the lock.
    loop {
        let late = engine.write(8, Atomicity::Statement, at_once(), |connection| insert(connection, 1)).await;
        let error = late.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        if error.message().contains("lock") {
            break;
        }
    }
    assert!(numbers(&engine).await.is_empty(), "reads go on");
    let waiting = write(&engine, 2);
    tokio::pin!(waiting);
    assert!(poll_immediate(&mut waiting).await.is_none());
    foreign.execute_batch("COMMIT").unwrap();
    waiting.await.unwrap();
    assert_eq!(numbers(&engine).await, [2]);
}

//! What a journal on disk promises besides.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{SINCE, all_kinds, large, move_log_into, put, soon};
use crate::backend::sqlite::SqliteDatabase;
use crate::chain::journal::shared::Shared;
use crate::chain::journal::{DiskJournal, Journal as _, JournalFolder, Meta};
use crate::config::SqliteConfig;
use crate::contract::{Context, Durability, Identity, Store as _};
use crate::error::ErrorKind;
use crate::time::Timestamp;

const MAX_BYTES: u64 = 64 << 20;

async fn open(folder: &Path) -> DiskJournal {
    JournalFolder::new(folder, None, MAX_BYTES, 1).open().await.unwrap().0
}

async fn fresh() -> (TempDir, DiskJournal) {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path()).await;
    (folder, journal)
}

#[tokio::test]
async fn all_of_it_is_there_after_the_next_start() {
    let (folder, journal) = fresh().await;
    assert_eq!(journal.durability(), Durability::Local);
    let operations = all_kinds();
    let seqs = journal.append(operations.clone(), SINCE, soon()).await.unwrap();
    journal.settle(vec![seqs[0]], vec![(seqs[1], "poison".to_owned())]).await.unwrap();
    let meta =
        Meta { fingerprint: None, identity: Some(Identity::new(7, 8)), clock_reserve: Some(Timestamp::from_millis(9)) };
    journal.set_meta(meta.clone()).await.unwrap();
    let before = journal.export(0, 100, usize::MAX).await.unwrap();
    journal.close(soon()).await.unwrap();
    let reopened = open(folder.path()).await;
    assert_eq!(reopened.path(), journal.path());
    assert_eq!(reopened.export(0, 100, usize::MAX).await.unwrap(), before);
    assert_eq!(reopened.meta().await.unwrap(), meta);
    let next = reopened.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    assert!(next[0] > *seqs.last().unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("made").join("here");
    let journal = open(&folder).await;
    journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (0o700, 0o700));
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn appends_at_the_same_time_keep_the_order_of_each_caller() {
    let (_folder, journal) = fresh().await;
    let journal = Arc::new(journal);
    let callers = (0..32).map(|caller| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            let mut seqs = Vec::new();
            for number in 0..20 {
                let operations = vec![put(&format!("{caller}"), &number.to_string()); 1 + caller % 3];
                seqs.extend(journal.append(operations, SINCE, soon()).await.unwrap());
            }
            seqs
        })
    });
    let mut all = Vec::new();
    for caller in futures_util::future::join_all(callers).await {
        let seqs = caller.unwrap();
        assert!(seqs.is_sorted());
        all.extend(seqs);
    }
    all.sort_unstable();
    let kept: Vec<u64> = journal.headers(0, 10_000).await.unwrap().iter().map(|header| header.seq).collect();
    assert_eq!(kept, all);
}

#[tokio::test]
async fn a_journal_is_no_database_and_a_database_no_journal() {
    let (folder, journal) = fresh().await;
    journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    journal.close(soon()).await.unwrap();
    let database = SqliteDatabase::new(&SqliteConfig::at(journal.path()));
    let error = database.ping(&Context::with_timeout(Duration::from_secs(30))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let path = folder.path().join("journal-0.db");
    let database = SqliteDatabase::new(&SqliteConfig::at(&path));
    database.ping(&Context::with_timeout(Duration::from_secs(30))).await.unwrap();
    database.close(&Context::with_timeout(Duration::from_secs(30))).await.unwrap();
    let (opened, found) = JournalFolder::new(folder.path(), None, MAX_BYTES, 1).open().await.unwrap();
    assert_eq!(opened.path(), journal.path());
    assert_eq!(found.left.len(), 1);
    assert_eq!(found.left[0].path, path);
}

/// Lets the file grow to so many pages and no further.
async fn limit(journal: &DiskJournal, pages: i64) {
    let limit = move |connection: &Connection, _: &_| {
        Ok(connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
    };
    journal.change(soon(), limit).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_operations_and_lets_what_was_replayed_be_removed() {
    let (_folder, journal) = fresh().await;
    limit(&journal, 64).await;
    let mut seqs = Vec::new();
    let error = loop {
        match journal.append(vec![large("a", 5000), large("b", 5000)], SINCE, soon()).await {
            Ok(kept) => seqs.extend(kept),
            Err(error) => break error,
        }
    };
    assert!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
    assert!(journal.is_full());
    assert_eq!(journal.headers(0, 1000).await.unwrap().len(), seqs.len());
    assert_eq!(journal.read(seqs[0]).await.unwrap().unwrap().value_bytes(), 5000);
    journal.settle(seqs, Vec::new()).await.unwrap();
    assert!(journal.headers(0, 1000).await.unwrap().is_empty());
    // The disk itself has room, which is found out before the next operation is taken.
    journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    assert!(!journal.is_full());
}

#[tokio::test]
async fn a_disk_that_failed_takes_no_more_operations_but_gives_back_what_it_holds() {
    let (_folder, journal) = fresh().await;
    let seqs = journal.append(vec![put("a", "1"), put("b", "2")], SINCE, soon()).await.unwrap();
    let fail = |_: &Connection, shared: &Shared| {
        shared.set_failed();
        Ok(())
    };
    journal.change(soon(), fail).await.unwrap();
    let error = journal.append(vec![put("c", "3")], SINCE, soon()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && !error.is_transient(), "{error}");
    assert!(journal.is_full());
    assert!(journal.read(seqs[0]).await.unwrap().is_some());
    journal.settle(vec![seqs[0]], Vec::new()).await.unwrap();
    assert_eq!(journal.headers(0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_that_was_removed_takes_no_operations() {
    let (_folder, journal) = fresh().await;
    std::fs::remove_file(journal.path()).unwrap();
    let error = journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_drained_journal_is_small_again() {
    let (_folder, journal) = fresh().await;
    let mut seqs = Vec::new();
    for _ in 0..16 {
        seqs.extend(journal.append((0..16).map(|_| large("a", 40_000)).collect(), SINCE, soon()).await.unwrap());
    }
    let kept = seqs.pop().unwrap();
    let before = journal.bytes();
    assert!(before > 10 << 20, "{before}");
    journal.settle(seqs, Vec::new()).await.unwrap();
    assert!(journal.bytes() < 1 << 20);
    while journal.change(soon(), |connection, shared| shared.tidy(connection)).await.unwrap()
        == crate::engine::sqlite::Progress::More
    {}
    assert!(journal.read(kept).await.unwrap().is_some());
    journal.close(soon()).await.unwrap();
    move_log_into(journal.path());
    let length = std::fs::metadata(journal.path()).unwrap().len();
    assert!(length <= 1 << 20, "{length}");
}

#[tokio::test]
async fn a_long_journal_is_listed_in_pages() {
    const COUNT: usize = 100_000;
    let (folder, journal) = fresh().await;
    for _ in 0..COUNT / 10_000 {
        let operations = (0..10_000).map(|number| put(&format!("session:{number}"), r#"{"a":1}"#)).collect();
        journal.append(operations, SINCE, soon()).await.unwrap();
    }
    journal.close(soon()).await.unwrap();
    let journal = open(folder.path()).await;
    let (mut count, mut after) = (0, 0);
    loop {
        let page = journal.headers(after, 10_000).await.unwrap();
        let Some(last) = page.last() else { break };
        (count, after) = (count + page.len(), last.seq);
    }
    assert_eq!(count, COUNT);
}

/// A pipe in the place of a file: whoever waits for it goes on when this is dropped.
#[cfg(unix)]
struct Pipe(std::path::PathBuf);

#[cfg(unix)]
impl Drop for Pipe {
    fn drop(&mut self) {
        // Opened both ways it waits for nobody.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&self.0));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn of_a_disk_that_hangs_nothing_more_is_asked() {
    use crate::chain::journal::acceptance::{ENDING, Word, announce};
    let (_folder, journal) = fresh().await;
    // A pipe gives nothing before somebody writes.
    let word = journal.path().with_extension(ENDING);
    assert!(std::process::Command::new("mkfifo").arg(&word).status().unwrap().success());
    let pipe = Pipe(word.clone());
    assert_eq!(journal.accepted().await, None);
    let began = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(journal.accepted().await, None);
    }
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    drop(pipe);
    std::fs::remove_file(&word).unwrap();
    announce(journal.path(), &Word { identity: Identity::new(7, 8), address: None }).unwrap();
    // As soon as the first look has ended.
    while journal.accepted().await != Some(Identity::new(7, 8)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

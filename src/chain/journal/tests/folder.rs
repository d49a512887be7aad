//! What becomes of the journals of processes that died.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{SINCE, key, move_log_into, put, soon};
use crate::chain::journal::found::{Found, LeftFile, LeftReason};
use crate::chain::journal::import::mark_of;
use crate::chain::journal::{DiskJournal, Exported, Journal as _, JournalFolder, Meta};
use crate::contract::{Identity, Succession};
use crate::error::ErrorKind;
use crate::stamp::HybridClock;
use crate::time::Timestamp;

pub(super) const MAX_BYTES: u64 = 64 << 20;

pub(super) fn folder(path: &Path) -> JournalFolder {
    folder_of(path, 1)
}

fn folder_of(path: &Path, writer: u64) -> JournalFolder {
    JournalFolder::new(path, Some("ours".to_owned()), MAX_BYTES, writer)
}

pub(super) async fn open(path: &Path) -> (DiskJournal, Found) {
    folder(path).open().await.unwrap()
}

/// What a journal of a process that died holds: so many puts of a key.
pub(super) async fn leave_behind(path: &Path, name: &str, count: usize) -> PathBuf {
    let other = tempfile::tempdir().unwrap();
    let (journal, _) = open(other.path()).await;
    journal.append((0..count).map(|number| put(name, &number.to_string())).collect(), SINCE, soon()).await.unwrap();
    journal.close(soon()).await.unwrap();
    move_log_into(journal.path());
    let left = path.join(journal.path().file_name().unwrap());
    fs::rename(journal.path(), &left).unwrap();
    left
}

pub(super) async fn all(journal: &DiskJournal) -> Vec<Exported> {
    journal.export(0, 10_000, usize::MAX).await.unwrap()
}

fn files(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = entries.filter(|name| name.ends_with(".db") || name.ends_with(".lock")).collect();
    files.sort();
    files
}

#[tokio::test]
async fn each_process_has_a_file_of_its_own() {
    let temporary = tempfile::tempdir().unwrap();
    let (first, _) = open(temporary.path()).await;
    first.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    let (second, found) = open(temporary.path()).await;
    assert_ne!(first.path(), second.path());
    assert!(found.imported == 0 && found.left.is_empty());
    assert!(all(&second).await.is_empty());
    assert_eq!(folder(temporary.path()).adopt(&second).await.unwrap().imported, 0);
}

#[tokio::test]
async fn what_the_dead_have_left_is_taken_over_in_its_order_and_their_files_go() {
    let temporary = tempfile::tempdir().unwrap();
    let mut left = Vec::new();
    for (name, count) in [("a", 3), ("b", 5), ("c", 0)] {
        left.push(leave_behind(temporary.path(), name, count).await);
    }
    {
        let connection = Connection::open(&left[0]).unwrap();
        connection.execute("UPDATE op SET parked = 'poison' WHERE seq = 2", []).unwrap();
        connection.execute("UPDATE meta SET clock_reserve = 77", []).unwrap();
    }
    let stamps = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        let mut statement = connection.prepare("SELECT stamp FROM op ORDER BY seq").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect::<Vec<[u8; 16]>>()
    };
    let expected = [stamps(&left[1]), stamps(&left[0])].concat();
    let (journal, found) = open(temporary.path()).await;
    assert_eq!(journal.path(), left[1], "the largest is not copied");
    assert!(found.imported == 3 && found.left.is_empty(), "{found:?}");
    let kept = all(&journal).await;
    assert_eq!(kept.iter().map(|exported| exported.operation.stamp.to_bytes()).collect::<Vec<_>>(), expected);
    assert!(kept.iter().map(|exported| exported.seq).is_sorted());
    let parked: Vec<_> = kept.iter().map(|exported| exported.parked.as_deref()).collect();
    assert_eq!(parked, [None, None, None, None, None, None, Some("poison"), None]);
    assert_eq!(journal.meta().await.unwrap().clock_reserve, Some(Timestamp::from_millis(77)));
    assert_eq!(files(temporary.path()).len(), 2, "{:?}", files(temporary.path()));
}

#[tokio::test]
async fn a_process_that_dies_later_is_found_too() {
    let temporary = tempfile::tempdir().unwrap();
    let (ours, _) = open(temporary.path()).await;
    let seqs = ours.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    let (theirs, _) = open(temporary.path()).await;
    theirs.append(vec![put("b", "1"), put("b", "2")], SINCE, soon()).await.unwrap();
    let folder = folder(temporary.path());
    assert_eq!(folder.adopt(&ours).await.unwrap().imported, 0);
    theirs.close(soon()).await.unwrap();
    let found = folder.adopt(&ours).await.unwrap();
    assert_eq!(found.imported, 2);
    let newest = ours.headers(seqs[0], 10).await.unwrap();
    assert!(newest.len() == 2 && newest[0].effect == crate::chain::journal::Effect::Put(key("b"), None));
    assert_eq!(files(temporary.path()).len(), 2);
}

#[tokio::test]
async fn a_crash_after_the_copy_does_not_copy_it_twice() {
    let temporary = tempfile::tempdir().unwrap();
    let (journal, _) = open(temporary.path()).await;
    journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    let path = leave_behind(temporary.path(), "b", 2).await;
    let saved = fs::read(&path).unwrap();
    assert_eq!(folder(temporary.path()).adopt(&journal).await.unwrap().imported, 2);
    // As if the process had died before it removed the file: it is there, and the journal knows that it was copied.
    fs::write(&path, saved).unwrap();
    mark_as_copied(&journal, &path, 1).await;
    journal.close(soon()).await.unwrap();
    let (journal, found) = open(temporary.path()).await;
    assert!(found.imported == 0 && found.left.is_empty());
    assert_eq!(all(&journal).await.len(), 3);
    assert_eq!(files(temporary.path()).len(), 2);
    let marks = |connection: &Connection, _: &_| {
        Ok(connection.query_row("SELECT count(*) FROM imported", [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(journal.change(soon(), marks).await.unwrap(), 0);
}

/// Has a journal know that a file was copied, which that one had written last.
async fn mark_as_copied(journal: &DiskJournal, path: &Path, writer: u64) {
    let mark = mark_of(path.file_name().unwrap().to_str().unwrap(), Some(writer), None);
    let insert = move |connection: &Connection, _: &_| {
        connection.execute("INSERT INTO imported (source) VALUES (?1)", [&mark])?;
        Ok(())
    };
    journal.change(soon(), insert).await.unwrap();
}

#[tokio::test]
async fn what_was_written_to_a_file_after_it_was_copied_is_copied_too() {
    is_copied_too(3).await;
}

#[tokio::test]
async fn what_the_same_process_wrote_to_its_file_after_it_was_copied_is_copied_too() {
    is_copied_too(2).await;
}

/// Has a file be copied that writer 2 had, and not removed, and then be taken by a writer for its own, who writes more.
async fn is_copied_too(writer: u64) {
    let temporary = tempfile::tempdir().unwrap();
    let (ours, _) = open(temporary.path()).await;
    let (copied, _) = folder_of(temporary.path(), 2).open().await.unwrap();
    mark_as_copied(&ours, copied.path(), 2).await;
    copied.close(soon()).await.unwrap();
    let (taken, _) = folder_of(temporary.path(), writer).open().await.unwrap();
    assert_eq!(taken.path(), copied.path());
    if writer == 2 {
        // Another writer is told by its number; the same one by what every process writes down before the first operation is kept.
        let meta = taken.meta().await.unwrap();
        taken.set_meta(Meta { clock_reserve: Some(Timestamp::from_millis(1)), ..meta }).await.unwrap();
    }
    taken.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    taken.close(soon()).await.unwrap();
    assert_eq!(folder(temporary.path()).adopt(&ours).await.unwrap().imported, 1);
    assert_eq!(all(&ours).await.len(), 1);
}

#[tokio::test]
async fn a_file_that_was_copied_is_nobodys_own_again() {
    let temporary = tempfile::tempdir().unwrap();
    let (ours, _) = open(temporary.path()).await;
    // As if it had been copied and not removed, and what it holds were settled since.
    let copied = leave_behind(temporary.path(), "a", 2).await;
    mark_as_copied(&ours, &copied, 1).await;
    ours.append(vec![put("b", "1")], SINCE, soon()).await.unwrap();
    ours.close(soon()).await.unwrap();
    let (again, found) = open(temporary.path()).await;
    assert_eq!((again.path(), found.imported), (ours.path(), 0));
    assert_eq!(all(&again).await.len(), 1);
    assert!(!copied.exists());
}

#[tokio::test]
async fn what_is_left_of_a_removed_journal_goes() {
    let temporary = tempfile::tempdir().unwrap();
    for name in ["journal-0.lock", "journal-0.reserve", "journal-0.db-wal"] {
        fs::write(temporary.path().join(name), b"x").unwrap();
    }
    fs::write(temporary.path().join("something.lock"), b"x").unwrap();
    let (_journal, found) = open(temporary.path()).await;
    assert!(found.left.is_empty());
    let left: Vec<_> = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("journal-0.")), "{left:?}");
    assert!(temporary.path().join("something.lock").exists(), "what is not ours stays");
}

/// Destroys a page of what a journal holds, and leaves its head.
pub(super) fn damage(journal: &Path) {
    let mut bytes = fs::read(journal).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xA5);
    fs::write(journal, bytes).unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_left_as_it_is_and_told_once() {
    let temporary = tempfile::tempdir().unwrap();
    let newer = leave_behind(temporary.path(), "a", 1).await;
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let damaged = leave_behind(temporary.path(), "b", 500).await;
    damage(&damaged);
    let text = temporary.path().join("journal-1.db");
    fs::write(&text, "no database at all\n".repeat(100)).unwrap();
    let record = leave_behind(temporary.path(), "c", 3).await;
    Connection::open(&record).unwrap().execute("UPDATE op SET version = 2 WHERE seq = 2", []).unwrap();
    let before: Vec<_> = [&newer, &damaged, &text, &record].map(|path| fs::read(path).unwrap()).to_vec();

    let folder = folder(temporary.path());
    let (journal, found) = folder.open().await.unwrap();
    journal.append(vec![put("d", "1")], SINCE, soon()).await.unwrap();
    let mut told: Vec<_> = found.left.into_iter().map(|left| (left.path, left.reason)).collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(told.len(), 4, "{told:?}");
    for (path, reason) in told {
        let LeftReason::Unreadable(error) = reason else { panic!("{reason:?}") };
        let said = if path == newer {
            "made by a newer agent-storage"
        } else if path == damaged {
            "damaged"
        } else if path == text {
            "no SQLite database"
        } else {
            "cannot be read: it is damaged, or of a newer version"
        };
        assert!(error.message().contains(said) && !error.is_transient(), "{error}");
    }
    let after: Vec<_> = [&newer, &damaged, &text, &record].map(|path| fs::read(path).unwrap()).to_vec();
    assert!(before == after);
    assert!(folder.adopt(&journal).await.unwrap().left.is_empty(), "it is told once");
    assert_eq!(folder.left().len(), 4);
    fs::remove_file(&text).unwrap();
    folder.adopt(&journal).await.unwrap();
    assert_eq!(folder.left().len(), 3, "what is gone is not told any more");
}

#[tokio::test]
async fn a_file_that_cannot_be_taken_for_a_while_is_told_once_and_then_forgotten() {
    let temporary = tempfile::tempdir().unwrap();
    let left = leave_behind(temporary.path(), "a", 1).await;
    let in_the_way = left.with_extension("lock");
    fs::create_dir(&in_the_way).unwrap();
    let folder = folder(temporary.path());
    let (journal, _) = folder.open().await.unwrap();
    for _ in 0..3 {
        let told = folder.left();
        assert!(told.len() == 1 && told[0].contains(in_the_way.to_str().unwrap()), "{told:?}");
        assert_eq!(folder.adopt(&journal).await.unwrap().left.len(), 1);
    }
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(folder.adopt(&journal).await.unwrap().imported, 1);
    assert!(folder.left().is_empty());
}

#[tokio::test]
async fn what_is_owed_to_another_database_is_left_for_it() {
    let temporary = tempfile::tempdir().unwrap();
    let theirs = JournalFolder::new(temporary.path(), Some("theirs".to_owned()), MAX_BYTES, 2);
    let (journal, _) = theirs.open().await.unwrap();
    journal.append(vec![put("a", "1"), put("a", "2")], SINCE, soon()).await.unwrap();
    journal.close(soon()).await.unwrap();
    let (ours, found) = open(temporary.path()).await;
    assert_ne!(ours.path(), journal.path());
    assert!(matches!(
        found.left[..],
        [LeftFile { reason: LeftReason::OwedElsewhere { operations: Some(2), .. }, moved: Some(_), .. }]
    ));
    assert!(all(&ours).await.is_empty());
    let (journal, _) = theirs.open().await.unwrap();
    assert_eq!(all(&journal).await.len(), 2, "nobody holds it back from those it belongs to");
    journal.settle(vec![1, 2], Vec::new()).await.unwrap();
    journal.close(soon()).await.unwrap();
    ours.close(soon()).await.unwrap();
    let (_ours, found) = open(temporary.path()).await;
    assert!(found.left.is_empty(), "it owes nothing");
}

#[tokio::test]
async fn what_is_owed_to_another_identity_is_not_mixed_with_ours() {
    let temporary = tempfile::tempdir().unwrap();
    let (ours, _) = open(temporary.path()).await;
    let identity =
        |id| Meta { fingerprint: Some("ours".to_owned()), identity: Some(Identity::new(id, 1)), clock_reserve: None };
    ours.set_meta(identity(1)).await.unwrap();
    let (theirs, _) = open(temporary.path()).await;
    theirs.set_meta(identity(2)).await.unwrap();
    theirs.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    theirs.close(soon()).await.unwrap();
    let found = folder(temporary.path()).adopt(&ours).await.unwrap();
    assert!(matches!(
        found.left[0],
        LeftFile { reason: LeftReason::OwedElsewhere { operations: Some(1), .. }, moved: None, .. }
    ));
    assert_eq!(found.imported, 0);
}

#[tokio::test]
async fn a_file_that_was_made_and_not_filled_is_used() {
    let temporary = tempfile::tempdir().unwrap();
    fs::write(temporary.path().join("journal-2.db"), b"").unwrap();
    let (journal, found) = open(temporary.path()).await;
    assert!(found.left.is_empty());
    assert_eq!(journal.path(), temporary.path().join("journal-2.db"));
    journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    assert_eq!(journal.meta().await.unwrap().fingerprint.as_deref(), Some("ours"));
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_told() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    fs::write(&file, b"x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = folder(&path).open().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && !error.is_transient(), "{error}");
        assert!(error.message().contains("the journal folder cannot be made"), "{error}");
    }
}

/// Makes a file of the first format out of one of this one.
fn age(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "DROP TABLE succession; ALTER TABLE meta DROP COLUMN since; ALTER TABLE meta DROP COLUMN writer; \
             PRAGMA user_version = 1;",
        )
        .unwrap();
}

#[tokio::test]
async fn a_file_of_the_first_format_is_taken_over() {
    let temporary = tempfile::tempdir().unwrap();
    let older = [leave_behind(temporary.path(), "a", 2).await, leave_behind(temporary.path(), "b", 1).await];
    older.iter().for_each(|path| age(path));
    let glance = crate::chain::journal::glance::glance(&older[0]).unwrap();
    assert_eq!((glance.format, glance.pending), (1, 2));
    let (journal, found) = open(temporary.path()).await;
    assert!(found.imported == 1 && found.left.is_empty(), "{found:?}");
    let oldest = all(&journal).await.iter().map(|exported| exported.operation.stamp).min();
    assert_eq!(journal.episode().await.unwrap().since, oldest, "the outage is as old as what waits");
}

#[tokio::test]
async fn the_outage_of_a_journal_that_is_taken_over_goes_on() {
    let temporary = tempfile::tempdir().unwrap();
    let clock = HybridClock::process();
    let (before, since) = (clock.issue(), clock.issue());
    let (ours, _) = open(temporary.path()).await;
    ours.append(vec![put("a", "1")], since, soon()).await.unwrap();
    let (theirs, _) = open(temporary.path()).await;
    theirs.append(vec![put("b", "1")], before, soon()).await.unwrap();
    let mut succession = Succession::default();
    succession.add(1, 2, since);
    theirs.add_succession(succession.clone()).await.unwrap();
    theirs.close(soon()).await.unwrap();
    folder(temporary.path()).adopt(&ours).await.unwrap();
    let episode = ours.episode().await.unwrap();
    assert_eq!((episode.since, episode.succession), (Some(before), succession));
}

#[tokio::test]
async fn a_journal_says_who_wrote_before_also_if_nothing_was_left_in_it() {
    let temporary = tempfile::tempdir().unwrap();
    let open = async |writer| folder_of(temporary.path(), writer).open().await.unwrap();
    let ((one, found), (two, _)) = (open(1).await, open(2).await);
    assert!(found.predecessors.is_empty());
    let mut succession = Succession::default();
    succession.add(1, 7, SINCE);
    one.add_succession(succession.clone()).await.unwrap();
    one.close(soon()).await.unwrap();
    two.close(soon()).await.unwrap();
    let (three, found) = open(3).await;
    assert_eq!(found.predecessors, [1, 2].into());
    assert_eq!(three.episode().await.unwrap().succession, succession, "for the next outage");
    three.close(soon()).await.unwrap();
    assert_eq!(open(4).await.1.predecessors, [3].into());
}

#[tokio::test]
async fn of_very_many_successions_the_newest_are_remembered() {
    let temporary = tempfile::tempdir().unwrap();
    let (journal, _) = open(temporary.path()).await;
    journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    let clock = HybridClock::process();
    let mut all = Succession::default();
    let stamps: Vec<_> = (0..1500).map(|_| clock.issue()).collect();
    (0..).zip(&stamps).for_each(|(heir, from)| all.add(heir + 1, heir, *from));
    journal.add_succession(all).await.unwrap();
    journal.close(soon()).await.unwrap();
    let remembered = open(temporary.path()).await.0.episode().await.unwrap().succession;
    let mut remembered: Vec<_> = remembered.iter().map(|(.., from)| from).collect();
    remembered.sort();
    assert_eq!(remembered, stamps[500..]);
}

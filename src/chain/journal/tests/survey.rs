//! Whose the journals of a folder are.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::folder::{MAX_BYTES, all, damage, folder, leave_behind, open};
use super::{SINCE, move_log_into, put, soon};
use crate::chain::journal::acceptance::{Word, announce};
use crate::chain::journal::files::{Looking, lock};
use crate::chain::journal::{Journal as _, JournalFolder, Meta};
use crate::contract::Identity;

#[tokio::test]
async fn who_looks_through_the_folder_waits_for_who_does_so_already() {
    let temporary = tempfile::tempdir().unwrap();
    let (ours, _) = open(temporary.path()).await;
    let dead = leave_behind(temporary.path(), "a", 1).await;
    // Somebody looks: they have the file for a while, and own nothing.
    let looking = Looking::begin(temporary.path()).unwrap();
    let looked_at = lock(&dead).unwrap().unwrap();
    let folder = folder(temporary.path());
    let mut adopted = std::pin::pin!(folder.adopt(&ours));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut adopted).await.is_err(),
        "it is not known whose it is"
    );
    drop((looked_at, looking));
    assert_eq!(adopted.await.unwrap().imported, 1);
}

#[tokio::test]
async fn who_was_told_what_to_take_for_known_and_died_is_taken_over_as_knowing_it() {
    let temporary = tempfile::tempdir().unwrap();
    let (ours, _) = open(temporary.path()).await;
    let knows = |id, canary| Meta {
        fingerprint: Some("ours".to_owned()),
        identity: Some(Identity::new(id, canary)),
        clock_reserve: None,
    };
    // Another database, and an older state of the known one: the first two knew what is not right any more.
    for (name, before) in [("a", knows(1, 9)), ("b", knows(2, 100))] {
        let (theirs, _) = open(temporary.path()).await;
        theirs.set_meta(before).await.unwrap();
        theirs.append(vec![put(name, "1")], SINCE, soon()).await.unwrap();
        announce(theirs.path(), &Word { identity: Identity::new(2, 5), address: Some("ours".to_owned()) }).unwrap();
        theirs.close(soon()).await.unwrap();
    }
    ours.set_meta(knows(2, 6)).await.unwrap();
    let found = folder(temporary.path()).adopt(&ours).await.unwrap();
    assert!(found.left.is_empty() && found.imported == 2, "{found:?}");
    assert_eq!(found.known, Some(Identity::new(2, 5)));
    assert_eq!(ours.meta().await.unwrap().identity, Some(Identity::new(2, 6)));
}

#[tokio::test]
async fn who_does_not_know_the_database_learns_of_it_from_others_at_its_address() {
    let temporary = tempfile::tempdir().unwrap();
    let (ours, _) = open(temporary.path()).await;
    let (theirs, _) = open(temporary.path()).await;
    let meta = theirs.meta().await.unwrap();
    theirs.set_meta(Meta { identity: Some(Identity::new(2, 5)), ..meta.clone() }).await.unwrap();
    let folder = folder(temporary.path());
    assert_eq!(folder.look_again(&ours, None).await.unwrap().known, Some(Identity::new(2, 5)));
    let another = Some(Identity::new(9, 1));
    assert_eq!(folder.look_again(&ours, another).await.unwrap().known, None, "another one answers");
    // Who knows it may have accepted an older state than they know of.
    ours.set_meta(Meta { identity: Some(Identity::new(2, 3)), ..meta.clone() }).await.unwrap();
    assert_eq!(folder.look_again(&ours, None).await.unwrap().known, None);
    // Who does not know it says nothing about it.
    ours.set_meta(meta).await.unwrap();
    assert_eq!(ours.meta().await.unwrap().identity, Some(Identity::new(2, 3)));
}

#[tokio::test]
async fn what_a_damaged_journal_says_decides_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut journals = Vec::new();
    for (id, count) in [(1, 500), (2, 1)] {
        let (journal, _) = open(temporary.path()).await;
        let meta = journal.meta().await.unwrap();
        journal.set_meta(Meta { identity: Some(Identity::new(id, 1)), ..meta }).await.unwrap();
        let puts = (0..count).map(|number| put("a", &number.to_string())).collect();
        journal.append(puts, SINCE, soon()).await.unwrap();
        journals.push(journal);
    }
    let mut paths = Vec::new();
    for journal in journals {
        journal.close(soon()).await.unwrap();
        move_log_into(journal.path());
        paths.push(journal.path().to_owned());
    }
    // The damaged one is looked at first.
    let damaged = temporary.path().join("journal-0.db");
    fs::rename(&paths[0], &damaged).unwrap();
    damage(&damaged);
    let (journal, found) = open(temporary.path()).await;
    assert_eq!((journal.path(), all(&journal).await.len()), (&*paths[1], 1));
    assert_eq!(found.left.len(), 1, "{found:?}");
    assert!(found.owed_elsewhere().is_none());
    // Nor does it where it is owed to another address.
    let elsewhere = JournalFolder::new(temporary.path(), Some("theirs".to_owned()), MAX_BYTES, 2);
    let (_, found) = elsewhere.open().await.unwrap();
    assert!(found.left.len() == 1 && found.owed_elsewhere().is_none(), "{found:?}");
}

/// Run by an administrator, the folder is another user's; by anybody else it is their own, and nothing changes hands.
#[cfg(unix)]
#[test]
fn what_an_administrator_makes_in_the_folder_belongs_to_whom_the_folder_does() {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [fresh, used, linked] = folders.each_ref().map(|folder| folder.path());
    let target = tempfile::NamedTempFile::new().unwrap();
    let ours = owner(target.path());
    fs::write(used.join("looking"), "").unwrap();
    symlink(target.path(), linked.join("looking")).unwrap();
    for folder in [fresh, used, linked] {
        if ours == 0 {
            chown(folder, Some(1), Some(1)).unwrap();
        }
        drop(Looking::begin(folder).unwrap());
    }
    assert_eq!(owner(&fresh.join("looking")), owner(fresh));
    assert_eq!((owner(&used.join("looking")), owner(target.path())), (ours, ours), "what was there before");
}

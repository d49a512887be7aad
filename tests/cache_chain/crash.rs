//! A process that dies while it is degraded.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::contract::{Context, Durability, Freshness, Store};
use agent_storage::testkit::Fault;
use agent_storage::{Error, ErrorKind, Value};

use crate::rig::{Plan, Rig, SCOPE, TIMEOUT, unavailable};

fn plan(folder: &Path) -> Plan {
    let mut plan = Plan::default();
    plan.config.journal_path = Some(folder.join("journal"));
    plan.options.fingerprint = Some("memory".to_owned());
    plan
}

fn marks(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "dirty")).count()
}

/// Ends a rig without a word, as a crash does, and gives back what its primary holds.
async fn crash(rig: Rig) -> Plan {
    let Rig { faults, primary, chain, cache, other } = rig;
    drop((cache, other));
    let weak = Arc::downgrade(&chain);
    drop(chain);
    assert!(weak.upgrade().is_none());
    let store = primary.store();
    // The tasks hold what they share until they are gone.
    while Arc::strong_count(&primary) > 1 {
        tokio::task::yield_now().await;
    }
    Plan { faults, store, ..Plan::default() }
}

#[tokio::test]
async fn the_next_start_clears_before_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(plan(folder.path())).await;
    let (inside, outside) = (format!("{SCOPE}k"), "outside");
    rig.set(&inside, 1).await;
    rig.set(outside, 1).await;
    rig.fall().await;
    assert_eq!(marks(folder.path()), 0, "nothing is dirty yet");
    assert_eq!(rig.set(&inside, 2).await, Durability::Volatile);
    assert_eq!(marks(folder.path()), 1);
    let Plan { store, .. } = crash(rig).await;

    let mut next = plan(folder.path());
    next.store = store;
    // Only then it is certain that the first read comes before the clearing.
    next.faults.set(Fault::FailBefore);
    let rig = Rig::with(next).await;
    assert_eq!(rig.read(&inside).await, (None, Freshness::Fallback));
    rig.primary.let_deletes(false);
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Reconciling).await;
    assert_eq!(rig.read(&inside).await, (None, Freshness::Fallback), "and not the 1 that is there");
    rig.primary.let_deletes(true);
    rig.recover().await;
    assert_eq!((rig.stored(&inside).await, rig.stored(outside).await), (None, Some(1)));
    while marks(folder.path()) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_process_that_died_with_nothing_dirty_left_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(plan(folder.path())).await;
    rig.fall().await;
    rig.set("k", 1).await;
    rig.recover().await;
    rig.set("app:k", 1).await;
    while marks(folder.path()) > 0 {
        tokio::task::yield_now().await;
    }
    let Plan { store, .. } = crash(rig).await;
    let mut next = plan(folder.path());
    next.store = store;
    let rig = Rig::with(next).await;
    assert_eq!(rig.chain.status().state, ChainState::Normal);
    assert_eq!(rig.read("app:k").await, (Some(1), Freshness::Primary));
}

#[tokio::test]
async fn closing_while_the_primary_is_away_is_as_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(plan(folder.path())).await;
    rig.fall().await;
    rig.set("k", 1).await;
    rig.chain.close(&Context::with_timeout(TIMEOUT)).await.unwrap();
    assert_eq!(marks(folder.path()), 1);
    let rig = Rig::with(plan(folder.path())).await;
    rig.chain.close(&Context::with_timeout(TIMEOUT)).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("journal")).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn what_could_not_be_marked_is_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(plan(folder.path())).await;
    rig.set("k", 1).await;
    rig.fall().await;
    std::fs::remove_dir_all(folder.path().join("journal")).unwrap();
    let refused: Result<_, Error> = rig.cache.set_json("k", &2).await;
    unavailable(refused);
    unavailable(rig.cache.clear("k").await);
    std::fs::create_dir(folder.path().join("journal")).unwrap();
    assert_eq!(rig.set("k", 3).await, Durability::Volatile);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, None);
}

#[tokio::test]
async fn a_clear_that_may_have_been_applied_and_cannot_be_marked_is_of_unknown_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(plan(folder.path())).await;
    rig.set("k", 1).await;
    std::fs::remove_dir_all(folder.path().join("journal")).unwrap();
    rig.primary.let_deletes(false);
    let lost = rig.cache.clone().with_timeout(TIMEOUT / 5).clear("k").await;
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::OutcomeUnknown, "no reply came in time");
    rig.primary.let_deletes(true);
    rig.recover().await;
    rig.primary.let_deletes(false);
    rig.primary.take_log();
    let cache = rig.cache.clone();
    let broken_off = tokio::spawn(async move { cache.clear("k").await });
    while !rig.primary.take_log().contains(&"clear k".to_owned()) {
        tokio::task::yield_now().await;
    }
    rig.fall().await;
    assert_eq!(broken_off.await.unwrap().unwrap_err().kind(), ErrorKind::OutcomeUnknown, "it was broken off");
    unavailable(rig.cache.clear("k").await);
    rig.primary.let_deletes(true);
    rig.recover().await;
}

#[tokio::test]
async fn closing_waits_for_what_may_yet_become_dirty() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(plan(folder.path())).await;
    rig.set("k", 1).await;
    rig.faults.set_for_next(Fault::HangAfter, 1);
    let cache = rig.cache.clone();
    let before = rig.faults.counts().faults;
    let set = tokio::spawn(async move { cache.set("k", Value::from_integer(2)).await });
    while rig.faults.counts().faults == before {
        tokio::task::yield_now().await;
    }
    rig.chain.close(&Context::with_timeout(Duration::from_secs(20))).await.unwrap();
    assert_eq!(set.await.unwrap().unwrap().durability, Durability::Volatile);
    assert!(rig.primary.take_log().contains(&"delete 1".to_owned()), "what it left in doubt is deleted");
    assert_eq!(std::fs::read_dir(folder.path().join("journal")).unwrap().count(), 0, "nothing is left to clear");
}

/// A disk of marks that takes none: a pipe in the place of the mark, until this is dropped.
#[cfg(unix)]
struct HangingMark(std::path::PathBuf);

#[cfg(unix)]
impl HangingMark {
    /// Takes the place of the mark of the only process that has the folder.
    fn in_folder(folder: &Path) -> Self {
        let mut entries = std::fs::read_dir(folder.join("journal")).unwrap().map(|entry| entry.unwrap().path());
        let lock = entries.find(|path| path.extension().is_some_and(|extension| extension == "lock")).unwrap();
        let mark = lock.with_extension("dirty");
        assert!(std::process::Command::new("mkfifo").arg(&mark).status().unwrap().success());
        Self(mark)
    }
}

#[cfg(unix)]
impl Drop for HangingMark {
    fn drop(&mut self) {
        // Whoever writes goes on when somebody reads. Opened both ways it waits for nobody.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&self.0));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_disk_of_marks_that_hangs_keeps_nothing_dirty() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(plan(folder.path())).await;
    let _mark = HangingMark::in_folder(folder.path());
    for number in 0..2 {
        rig.fall().await;
        let answer = tokio::time::timeout(TIMEOUT, rig.cache.set("k", Value::from_integer(number))).await;
        assert!(answer.map_or(true, |answer| answer.is_err()), "it cannot be known after a crash");
        rig.recover().await;
        rig.set("k", number).await;
        assert_eq!(rig.read("k").await, (Some(number), Freshness::Primary));
    }
}

//! The [`Marker`]: a file that says that this process left something dirty, should it die.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chain::folder::{create_folder, sync_folder, unusable};
use crate::chain::journal::lock::OwnerLock;
use crate::error::{Error, Result};

/// The format of the file.
const FORMAT: u32 = 1;

/// How long a write of an outage waits at most for the mark: it holds its key until then.
const MARK_WITHIN: Duration = Duration::from_secs(5);

/// How often another name is tried.
const ATTEMPTS: usize = 8;

/// What stands in a file.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Which primary it is about, without secrets.
    #[serde(default)]
    primary: Option<String>,
}

/// A file in a folder, there while something is dirty.
///
/// It is there before the first write is acknowledged that the primary does not have, and goes when nothing is dirty any more. So a
/// file whose owner is dead says that the primary may hold something old.
#[derive(Debug)]
pub(super) struct Marker {
    files: Arc<Files>,
    marked: Arc<AtomicBool>,
    closed: AtomicBool,
    /// Those who change the file take turns, to their end, though nobody waits for them any more.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Files {
    folder: PathBuf,
    ours: PathBuf,
    content: Vec<u8>,
    /// Given back when the process ends, however it ends.
    lock: Mutex<Option<OwnerLock>>,
    /// What dead processes left, held so that nobody else takes it over.
    inherited: Mutex<Vec<(PathBuf, OwnerLock)>>,
}

/// What was found in the folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether a process left something dirty that is not known to have been deleted: a dead one, or one that lives, which may itself
    /// have taken it over from a dead one and may die before it comes to it.
    pub(super) is_dirty: bool,
    /// The files that were left alone, and why.
    pub(super) left: Vec<String>,
}

impl Marker {
    /// Takes over what dead processes left in the folder for this primary.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the folder cannot be used, `permanent` where waiting does not help.
    pub(super) async fn open(folder: PathBuf, primary: Option<String>) -> Result<(Self, Found)> {
        blocking(move || {
            create_folder(&folder)?;
            let Inherited { files: inherited, are_others, left } = inherit(&folder, primary.as_deref())?;
            let marked = Arc::new(AtomicBool::new(!inherited.is_empty()));
            let found = Found { is_dirty: are_others || !inherited.is_empty(), left };
            let (ours, lock) = name(&folder)?;
            let content = serde_json::to_vec(&Content { format: FORMAT, primary })
                .map_err(|error| Error::internal("a marker cannot be written").with_source(error))?;
            let (lock, inherited) = (Mutex::new(Some(lock)), Mutex::new(inherited));
            let files = Arc::new(Files { folder, ours, content, lock, inherited });
            Ok((Self { files, marked, closed: AtomicBool::new(false), turn: Arc::default() }, found))
        })
        .await
    }

    /// Sees that the file is there. What is dirty was noted as dirty before.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it cannot be forced to the disk, or not in time; `Closed` after [`Marker::close`], for nobody would look for the
    /// file.
    pub(super) async fn mark(&self) -> Result<()> {
        if self.marked.load(Ordering::SeqCst) {
            return Ok(());
        }
        let why =
            "the disk of `journal.path` does not take the mark that the cache's primary is away; see why it hangs";
        let hangs = |_| Err(Error::unavailable(why));
        tokio::time::timeout(MARK_WITHIN, self.mark_in_turn()).await.unwrap_or_else(hangs)
    }

    async fn mark_in_turn(&self) -> Result<()> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::closed());
        }
        if self.marked.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (files, marked) = (Arc::clone(&self.files), Arc::clone(&self.marked));
        blocking(move || {
            let _turn = turn;
            files.write()?;
            marked.store(true, Ordering::SeqCst);
            Ok(())
        })
        .await
    }

    /// Removes the file, and those that were taken over, if nothing is dirty.
    ///
    /// Whoever makes something dirty does so before it looks whether there is a mark; this looks whether anything is dirty after it
    /// took the mark back. So one of the two sees the other.
    pub(super) async fn unmark(&self, is_clean: impl Fn() -> bool) {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if !self.marked.swap(false, Ordering::SeqCst) {
            return;
        }
        if !is_clean() {
            self.marked.store(true, Ordering::SeqCst);
            return;
        }
        let files = Arc::clone(&self.files);
        let remove = move || {
            let _turn = turn;
            files.remove()
        };
        if let Err(error) = blocking(remove).await {
            // The next start clears once more, which costs time and nothing else.
            tracing::warn!(%error, "the mark of a cache that was degraded could not be removed");
        }
    }

    /// Gives up the files, after which nothing can be marked. Without a mark nothing is left behind.
    pub(super) async fn close(&self) {
        let _turn = self.turn.lock().await;
        self.closed.store(true, Ordering::SeqCst);
        let (files, marked) = (Arc::clone(&self.files), self.marked.load(Ordering::SeqCst));
        let closed = blocking(move || {
            let lock = files.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
            files.inherited.lock().unwrap_or_else(PoisonError::into_inner).clear();
            match lock {
                Some(lock) if marked => {
                    lock.release();
                    Ok(())
                }
                Some(lock) => lock.remove().map_err(|error| unusable("a lock cannot be removed", &files.ours, error)),
                None => Ok(()),
            }
        });
        if let Err(error) = closed.await {
            tracing::debug!(%error, "the lock of a cache's mark is left behind");
        }
    }
}

impl Files {
    fn write(&self) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file: File = options.open(&self.ours)?;
            file.write_all(&self.content)?;
            file.sync_all()
        };
        write().map_err(|error| {
            unusable("it cannot be noted on the disk that the cache is degraded", &self.ours, error)
        })?;
        sync_folder(&self.folder)
    }

    fn remove(&self) -> Result<()> {
        remove(&self.ours)?;
        let inherited = std::mem::take(&mut *self.inherited.lock().unwrap_or_else(PoisonError::into_inner));
        for (path, lock) in inherited {
            remove(&path)?;
            lock.remove().map_err(|error| unusable("a lock cannot be removed", &path, error))?;
        }
        sync_folder(&self.folder)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(unusable("the mark of a cache cannot be removed", path, error))
        }
        _ => Ok(()),
    }
}

/// Finds a name for our file, and locks it.
fn name(folder: &Path) -> Result<(PathBuf, OwnerLock)> {
    for _ in 0..ATTEMPTS {
        let random = getrandom::u64()
            .map_err(|error| Error::unavailable("the system gives no random numbers").with_source(error))?;
        let path = folder.join(format!("cache-{random:016x}.dirty"));
        if let Some(lock) = lock_of(&path)?.filter(|_| !path.exists()) {
            return Ok((path, lock));
        }
    }
    Err(Error::unavailable("no name for the mark of a cache was free"))
}

fn lock_of(path: &Path) -> Result<Option<OwnerLock>> {
    OwnerLock::take(&path.with_extension("lock"))
        .map_err(|error| unusable("the lock of a cache's mark cannot be taken", path, error))
}

/// What a start finds that others marked.
#[derive(Default)]
struct Inherited {
    files: Vec<(PathBuf, OwnerLock)>,
    /// Whether a living process holds a mark for this primary.
    are_others: bool,
    /// The files that were left alone, and why.
    left: Vec<String>,
}

/// Takes over the files of dead processes that are about this primary, and sweeps up the locks that have no file.
fn inherit(folder: &Path, primary: Option<&str>) -> Result<Inherited> {
    let mut inherited = Inherited::default();
    let unreadable = |error| unusable("the folder cannot be read", folder, error);
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_ours = path.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with("cache-"));
        if !is_ours || path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let file = path.with_extension("dirty");
        let Some(lock) = lock_of(&file)? else {
            inherited.are_others |= file.exists() && whose(&file, primary).is_ok();
            continue;
        };
        if !file.exists() {
            // Its owner had nothing dirty when it died.
            let _ = lock.remove();
            continue;
        }
        match whose(&file, primary) {
            Ok(()) => inherited.files.push((file, lock)),
            Err(why) => {
                tracing::warn!(path = %file.display(), why, "the mark of a dead process was left alone");
                inherited.left.push(format!("{}: {why}", file.display()));
            }
        }
    }
    Ok(inherited)
}

/// Whether a file is about this primary. One that was not written to its end is taken for ours: to clear once more does no harm.
fn whose(file: &Path, primary: Option<&str>) -> Result<(), &'static str> {
    let text = fs::read(file).map_err(|_| "it cannot be read")?;
    match serde_json::from_slice::<Content>(&text) {
        Ok(Content { format, .. }) if format != FORMAT => Err("a newer version wrote it"),
        Ok(Content { primary: theirs, .. }) if theirs.as_deref() != primary => Err("it is about another cache"),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::internal("a mark could not be kept").with_source(error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(folder: &Path, primary: &str) -> (Marker, Found) {
        Marker::open(folder.to_owned(), Some(primary.to_owned())).await.unwrap()
    }

    fn files(folder: &Path, extension: &str) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_disk_that_hangs_holds_no_write_for_long_and_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Arc::new(open(folder.path(), "a").await.0);
        // A pipe takes nothing before somebody reads.
        let ours = marker.files.ours.clone();
        assert!(std::process::Command::new("mkfifo").arg(&ours).status().unwrap().success());
        tokio::time::pause();
        let marking = tokio::spawn({
            let marker = Arc::clone(&marker);
            async move { marker.mark().await }
        });
        tokio::task::yield_now().await;
        tokio::time::advance(MARK_WITHIN * 2).await;
        let error = marking.await.unwrap().unwrap_err();
        assert!(error.message().contains("`journal.path`"), "{error}");
        tokio::time::resume();
        drop(File::open(&ours).unwrap());
        fs::remove_file(&ours).unwrap();
        marker.mark().await.unwrap();
        assert_eq!(files(folder.path(), "dirty"), 1);
    }

    #[tokio::test]
    async fn a_mark_outlives_its_process_and_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let (first, found) = open(folder.path(), "a").await;
        assert!(!found.is_dirty && files(folder.path(), "dirty") == 0);
        first.mark().await.unwrap();
        assert_eq!(files(folder.path(), "dirty"), 1);
        let (living, found) = open(folder.path(), "a").await;
        assert!(found.is_dirty, "its owner lives, and may die before it has it deleted");
        assert!(!open(folder.path(), "b").await.1.is_dirty, "of another cache");
        drop(first);
        let (heir, found) = open(folder.path(), "a").await;
        assert!(found.is_dirty);
        let (other, found) = open(folder.path(), "a").await;
        assert!(found.is_dirty, "whoever took it over may end before it is deleted");
        other.mark().await.unwrap();
        assert_eq!(files(folder.path(), "dirty"), 2, "it has a mark of its own");
        other.unmark(|| true).await;
        assert_eq!(files(folder.path(), "dirty"), 1, "that of another one stays");
        other.close().await;
        heir.unmark(|| false).await;
        assert_eq!(files(folder.path(), "dirty"), 1);
        heir.unmark(|| true).await;
        assert_eq!(files(folder.path(), "dirty"), 0);
        heir.mark().await.unwrap();
        assert_eq!(files(folder.path(), "dirty"), 1, "again");
        heir.unmark(|| true).await;
        heir.close().await;
        living.close().await;
        open(folder.path(), "a").await.0.close().await;
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[tokio::test]
    async fn a_mark_of_another_cache_or_a_newer_version_is_left_and_a_torn_one_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (other, _) = open(folder.path(), "b").await;
        other.mark().await.unwrap();
        drop(other);
        let (_, found) = open(folder.path(), "a").await;
        assert!(!found.is_dirty);
        assert_eq!(found.left.len(), 1);
        let path = folder.path().join("cache-0.dirty");
        fs::write(path.with_extension("lock"), "").unwrap();
        fs::write(&path, r#"{"format":2}"#).unwrap();
        assert_eq!(open(folder.path(), "a").await.1.left.len(), 2);
        fs::write(&path, r#"{"form"#).unwrap();
        assert!(open(folder.path(), "a").await.1.is_dirty);
    }
}

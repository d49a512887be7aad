//! The lock that says which process a journal belongs to: [`OwnerLock`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// For how long, and how soon, a lock that is held is tried again: somebody may only have looked whether it is.
const GLANCE: Duration = Duration::from_millis(6);
const AGAIN: Duration = Duration::from_millis(2);

/// A file beside a journal, locked as long as the journal's owner lives: the system gives the lock back when a process dies.
///
/// The journal itself cannot be locked so, for SQLite has locks of its own in it.
#[derive(Debug)]
pub(in crate::chain) struct OwnerLock {
    file: File,
    path: PathBuf,
}

impl OwnerLock {
    /// Takes the lock, making the file if it is missing; `None` if somebody else holds it.
    pub(in crate::chain) fn take(path: &Path) -> io::Result<Option<Self>> {
        Self::take_within(path, GLANCE)
    }

    /// Takes the lock as soon as nobody else holds it; `None` if that takes longer than this.
    pub(super) fn take_within(path: &Path, within: Duration) -> io::Result<Option<Self>> {
        let start = Instant::now();
        loop {
            let taken = Self::take_now(path)?;
            if taken.is_some() || start.elapsed() >= within {
                return Ok(taken);
            }
            thread::sleep(AGAIN);
        }
    }

    /// Whether somebody holds the lock. It makes no file, and takes nothing for longer than a glance.
    #[cfg(feature = "sqlite")]
    pub(in crate::chain) fn is_held(path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn take_now(path: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        match file.try_lock() {
            // The one who held it may have removed the file since it was opened here.
            Ok(()) if is_at(&file, path)? => Ok(Some(Self { file, path: path.to_owned() })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Makes the file if it is missing, for whom its folder belongs to, where this user may do that: what an administrator's command
    /// makes must not lock the application out. What is there already stays whose it is.
    #[cfg(all(unix, feature = "sqlite"))]
    pub(super) fn make_for_the_owner_of(folder: &Path, path: &Path) {
        use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
        // It follows no link.
        let Ok(made) = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) else { return };
        if let (Ok(ours), Ok(theirs)) = (made.metadata(), fs::metadata(folder))
            && ours.uid() != theirs.uid()
            && let Err(error) = fchown(&made, Some(theirs.uid()), Some(theirs.gid()))
        {
            tracing::debug!(%error, path = %path.display(), "the lock belongs to another user than its folder");
        }
    }

    /// Gives the lock back.
    pub(in crate::chain) fn release(&self) {
        // What cannot be given back ends with the process.
        let _ = self.file.unlock();
    }

    /// Removes the file. Whoever comes later makes another one, and locks that.
    pub(in crate::chain) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((open.dev(), open.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere the name of an open file is not given to another one.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "sqlite")]
    #[test]
    fn to_look_whether_it_is_held_takes_nothing_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        assert!(!OwnerLock::is_held(&path).unwrap() && !path.exists());
        let held = OwnerLock::take(&path).unwrap().unwrap();
        assert!(OwnerLock::is_held(&path).unwrap());
        held.release();
        assert!(!OwnerLock::is_held(&path).unwrap());
        assert!(OwnerLock::take(&path).unwrap().is_some());
    }

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let first = OwnerLock::take(&path).unwrap().unwrap();
        assert!(OwnerLock::take(&path).unwrap().is_none());
        first.release();
        let second = OwnerLock::take(&path).unwrap().unwrap();
        drop(first);
        assert!(OwnerLock::take(&path).unwrap().is_none());
        second.remove().unwrap();
        assert!(!path.exists() && OwnerLock::take(&path).unwrap().is_some());
    }
}

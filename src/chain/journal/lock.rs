//! The lock that says which process a journal belongs to: [`OwnerLock`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A file beside a journal, locked as long as the journal's owner lives: the system gives the lock back when a process dies.
///
/// The journal itself cannot be locked so, for SQLite has locks of its own in it.
#[derive(Debug)]
pub(super) struct OwnerLock {
    file: File,
    path: PathBuf,
}

impl OwnerLock {
    /// Takes the lock, making the file if it is missing; `None` if somebody else holds it.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
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

    /// Gives the lock back.
    pub(super) fn release(&self) {
        // What cannot be given back ends with the process.
        let _ = self.file.unlock();
    }

    /// Gives the lock back and removes the file.
    pub(super) fn remove(self) -> io::Result<()> {
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

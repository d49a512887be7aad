//! The files of a folder of journals: how they are named, made and removed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

use crate::chain::folder::unusable;

use super::acceptance;
use super::lock::OwnerLock;

/// What stands beside a journal under the same name. The lock goes last.
const BESIDE: [&str; 6] = ["db-wal", "db-shm", "reserve", "probe", acceptance::ENDING, acceptance::UNFINISHED];

/// What is locked by whoever looks through the folder, and for how long it is waited for: a large journal takes seconds to be looked through.
const LOOKING: &str = "looking";
const LOOKS_WITHIN: Duration = Duration::from_secs(30);

/// How often another name is tried.
const ATTEMPTS: usize = 8;

/// The journals of a folder, and the locks that have lost theirs.
pub(super) fn list(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let unreadable = |error| unusable("the journal folder cannot be read", folder, error);
    let (mut journals, mut locks) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_named_so = path.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with("journal-"));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("db") if is_named_so => journals.push(path),
            Some("lock") if is_named_so => locks.push(path),
            _ => {}
        }
    }
    journals.sort();
    locks.retain(|lock| journals.binary_search(&lock.with_extension("db")).is_err());
    Ok((journals, locks))
}

/// The lock of a journal, if its owner is dead.
pub(super) fn lock(journal: &Path) -> Result<Option<OwnerLock>> {
    let path = journal.with_extension("lock");
    OwnerLock::take(&path).map_err(|error| unlockable(&path, error))
}

/// The same, without waiting for those who only glance at it.
pub(super) fn lock_now(journal: &Path) -> Result<Option<OwnerLock>> {
    let path = journal.with_extension("lock");
    OwnerLock::take_within(&path, Duration::ZERO).map_err(|error| unlockable(&path, error))
}

fn unlockable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::Unsupported => Error::unavailable(format!(
            "the file system of {} cannot lock files, so that nobody would know whose a journal is; choose a folder on a local \
             disk",
            path.display()
        ))
        .permanent(),
        _ => unusable("the lock of a journal cannot be taken", path, error),
    }
}

/// The right to look whose the journals of a folder are, until it is dropped. Who has a journal meanwhile owns it, or takes it over.
#[derive(Debug)]
pub(super) struct Looking {
    _lock: OwnerLock,
}

impl Looking {
    /// Waits until nobody else looks.
    ///
    /// # Errors
    ///
    /// `Unavailable` if that takes too long, or the lock cannot be taken.
    pub(super) fn begin(folder: &Path) -> Result<Self> {
        let path = folder.join(LOOKING);
        #[cfg(unix)]
        OwnerLock::make_for_the_owner_of(folder, &path);
        let lock = OwnerLock::take_within(&path, LOOKS_WITHIN).map_err(|error| unlockable(&path, error))?;
        let why = || {
            let (shown, seconds) = (path.display(), LOOKS_WITHIN.as_secs());
            Error::unavailable(format!(
                "another process has been looking through the journals for {seconds} s, and keeps {shown} locked; if it hangs, end it"
            ))
        };
        Ok(Self { _lock: lock.ok_or_else(why)? })
    }
}

/// Finds a name for a new journal, and locks it.
pub(super) fn create_journal(folder: &Path) -> Result<(PathBuf, OwnerLock)> {
    for _ in 0..ATTEMPTS {
        let random = getrandom::u64()
            .map_err(|error| Error::unavailable("the system gives no random numbers").with_source(error))?;
        let path = folder.join(format!("journal-{random:016x}.db"));
        if let Some(lock) = lock(&path)?.filter(|_| !path.exists()) {
            return Ok((path, lock));
        }
    }
    Err(Error::unavailable("no name for a journal was free"))
}

/// Removes a journal and all that stands beside it.
pub(super) fn remove_journal(journal: &Path, lock: &OwnerLock) -> Result<()> {
    let beside = BESIDE.iter().map(|extension| journal.with_extension(extension));
    for path in std::iter::once(journal.to_owned()).chain(beside) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(unusable("a journal cannot be removed", &path, error));
            }
            _ => {}
        }
    }
    lock.remove().map_err(|error| unusable("the lock of a journal cannot be removed", journal, error))
}

//! Room on the disk that a journal keeps for the time when it is full: [`Reserve`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the removal of a batch writes at most: a page an operation, and those above them.
const BYTES: usize = 4 << 20;

/// The pause between two attempts to take the room back.
const PAUSE: Duration = Duration::from_secs(1);

/// A file that takes room and holds nothing. When the disk is full it gives way, so that what was replayed can be removed: that
/// needs room too. Its methods block.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    next_attempt: Mutex<Option<Instant>>,
}

impl Reserve {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, next_attempt: Mutex::new(None) }
    }

    /// Takes the room, if it is not taken already.
    pub(super) fn take(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == BYTES as u64) {
            return Ok(());
        }
        write(&self.path).inspect_err(|_| self.give_way())
    }

    /// Whether the room could be taken back and there is as much besides, unless that was tried a moment ago.
    pub(super) fn take_again(&self) -> bool {
        let mut next = self.next_attempt.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if next.is_some_and(|next| now < next) {
            return false;
        }
        *next = Some(now + PAUSE);
        let probe = self.path.with_extension("probe");
        let has_room = self.take().and_then(|()| write(&probe)).is_ok();
        let _ = fs::remove_file(probe);
        has_room
    }

    /// Gives the room away.
    pub(super) fn give_way(&self) {
        // A file that is not there takes no room.
        let _ = fs::remove_file(&self.path);
    }
}

fn write(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path)?;
    let block = vec![0; 1 << 16];
    for _ in 0..BYTES / block.len() {
        file.write_all(&block)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_and_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.reserve");
        let reserve = Reserve::new(path.clone());
        reserve.take().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), BYTES as u64);
        reserve.give_way();
        assert!(!path.exists() && reserve.take_again() && path.exists());
        reserve.give_way();
        assert!(!reserve.take_again(), "not twice in a moment");
    }

    #[test]
    fn where_there_is_no_room_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(folder.path().join("missing").join("x.reserve"));
        assert!(reserve.take().is_err() && !reserve.take_again());
    }
}

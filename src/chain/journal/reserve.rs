//! Room on the disk that a journal keeps for the time when it is full: [`Reserve`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the removal of operations writes beside what is in the log already: a batch needs a page an operation, and those above.
const REMOVAL_BYTES: u64 = 8 << 20;

/// What the log holds before it is moved into the file. The file must be able to grow by it, else the log could never begin
/// anew, and what is removed would make it longer until no room is left.
const LOG_BYTES: u64 = 16 << 20;

/// What is written at once.
static BLOCK: [u8; 1 << 16] = [0; 1 << 16];

/// The pause between two attempts to take the room back.
const PAUSE: Duration = Duration::from_secs(1);

/// A file that takes room and holds nothing. When the disk is full it gives way, so that what was replayed can be removed: that
/// needs room too. Its methods block.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    next_attempt: Mutex<Option<Instant>>,
}

impl Reserve {
    /// Makes one for a journal that may hold so many bytes.
    pub(super) fn new(path: PathBuf, max_bytes: u64) -> Self {
        let bytes = REMOVAL_BYTES + LOG_BYTES.min(max_bytes);
        Self { path, bytes, next_attempt: Mutex::new(None) }
    }

    /// That of a dead process's journal, which may be given away.
    pub(super) fn of(journal: &Path) -> Self {
        Self::new(journal.with_extension("reserve"), 0)
    }

    /// Takes the room, if it is not taken already.
    pub(super) fn take(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == self.bytes) {
            return Ok(());
        }
        self.write(&self.path).inspect_err(|_| self.give_way())
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
        let has_room = self.take().and_then(|()| self.write(&probe)).is_ok();
        let _ = fs::remove_file(probe);
        has_room
    }

    /// Gives the room away.
    pub(super) fn give_way(&self) {
        // A file that is not there takes no room.
        let _ = fs::remove_file(&self.path);
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let mut left = self.bytes;
        while left > 0 {
            let part = BLOCK.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(&BLOCK);
            file.write_all(part)?;
            left -= part.len() as u64;
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_and_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.reserve");
        let reserve = Reserve::new(path.clone(), 1000);
        reserve.take().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), REMOVAL_BYTES + 1000);
        reserve.give_way();
        assert!(!path.exists() && reserve.take_again() && path.exists());
        reserve.give_way();
        assert!(!reserve.take_again(), "not twice in a moment");
    }

    #[test]
    fn where_there_is_no_room_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(folder.path().join("missing").join("x.reserve"), 1000);
        assert!(reserve.take().is_err() && !reserve.take_again());
    }
}

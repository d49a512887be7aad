//! What the calls to a journal and the thread that writes it share: [`Shared`].

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;

use crate::engine::sqlite::{Engine, Progress, SqlResult};
use crate::error::{Error, Result};

use super::disk::{disk_full, is_disk_full};
use super::lock::OwnerLock;
use super::reserve::Reserve;
use super::room::Room;
use super::table;

/// The part of the file that must be in use for it to be left as long as it is.
const USED_PART: u64 = 4;

/// The length in pages that is not worth making smaller: 1 MiB.
const FEW_PAGES: u64 = 256;

/// The pages that are given back at once: 1 MiB. The log takes about twice as many meanwhile.
const PAGES_AT_ONCE: u64 = 256;

/// The state of an open journal beside its rows.
#[derive(Debug)]
pub(super) struct Shared {
    room: Room,
    reserve: Reserve,
    last_seq: AtomicU64,
    /// The disk had no room, not even for the reserve since.
    disk_full: AtomicBool,
    /// A commit left open what is on the disk.
    failed: AtomicBool,
    lock: OwnerLock,
}

impl Shared {
    pub(super) fn new(path: &Path, lock: OwnerLock, max_bytes: u64) -> Self {
        Self {
            room: Room::new(max_bytes),
            reserve: Reserve::new(path.with_extension("reserve"), max_bytes),
            last_seq: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            lock,
        }
    }

    /// Takes over what the file says. It runs on the writer, before anything else does.
    pub(super) fn begin(&self, connection: &Connection) -> SqlResult<()> {
        self.last_seq.store(table::last_seq(connection)?, Ordering::Release);
        if let Err(error) = self.reserve.take() {
            tracing::warn!(%error, "there is no room on the disk of the journal");
            self.disk_full.store(true, Ordering::Release);
        }
        self.measure(connection)
    }

    /// The number of the newest operation.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq.load(Ordering::Acquire)
    }

    /// The number of the next operation.
    pub(super) fn next_seq(&self) -> u64 {
        self.last_seq.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Fails if no operation is taken, whatever its size.
    pub(super) fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        // What the disk dropped once it may drop again without a word.
        Err(Error::unavailable(
            "the disk of the journal failed, so it takes no more operations until the program is started anew; nothing was written",
        )
        .permanent())
    }

    /// Makes sure that operations of so many bytes fit. It runs on the writer.
    pub(super) fn make_room(&self, connection: &Connection, bytes: usize) -> SqlResult<()> {
        if self.disk_full.load(Ordering::Acquire) && !self.has_room_again() {
            return Err(disk_full().into());
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if self.room.is_vague() || !self.room.fits(bytes) {
            self.measure(connection)?;
        }
        self.room.check(bytes)?;
        self.room.add(bytes);
        Ok(())
    }

    /// Looks how much of the file is in use.
    pub(super) fn measure(&self, connection: &Connection) -> SqlResult<()> {
        self.room.set_used(table::used_bytes(connection)?);
        Ok(())
    }

    /// Gives room back to the disk, and then finds out whether the disk has room again. It runs on the writer, from time to time.
    pub(super) fn tidy(&self, connection: &Connection) -> SqlResult<Progress> {
        let (pages, free) = table::pages(connection)?;
        if pages > FEW_PAGES && pages.saturating_sub(free).saturating_mul(USED_PART) <= pages {
            connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
            let (left, _) = table::pages(connection)?;
            if left < pages {
                return Ok(Progress::More);
            }
        }
        if self.disk_full.load(Ordering::Acquire) {
            self.has_room_again();
        }
        Ok(Progress::Done)
    }

    fn has_room_again(&self) -> bool {
        let has_room = self.reserve.take_again();
        if has_room {
            self.disk_full.store(false, Ordering::Release);
            tracing::info!("the disk of the journal has room again");
        }
        has_room
    }

    /// Lets the reserve give way to what must be written.
    pub(super) fn give_way(&self) {
        self.set_disk_full();
        self.reserve.give_way();
    }

    /// Notes what an error tells of the disk.
    pub(super) fn note(&self, engine: &Engine, error: &Error) {
        if engine.has_failed() {
            self.set_failed();
        }
        if is_disk_full(error) {
            self.set_disk_full();
        }
    }

    fn set_disk_full(&self) {
        if !self.disk_full.swap(true, Ordering::AcqRel) {
            tracing::error!("the disk of the journal is full; it takes no operations until there is room again");
        }
    }

    /// Notes that the disk failed: from now on no operation is taken.
    pub(super) fn set_failed(&self) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "the disk of the journal failed; it takes no more operations until the program is started anew"
            );
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.room.used()
    }

    pub(super) fn is_full(&self) -> bool {
        self.room.is_full() || self.disk_full.load(Ordering::Acquire) || self.failed.load(Ordering::Acquire)
    }

    /// Leaves the file to whoever comes next.
    pub(super) fn close(&self) {
        self.lock.release();
    }
}

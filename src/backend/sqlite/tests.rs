//! What the unit tests of these files stand on.

use rusqlite::Connection;

use crate::stamp::HybridClock;
use crate::time::Clock;

use super::migrate;
use super::session::Session;

/// The tables in memory, without the engine's threads, on a clock that the test moves.
pub(super) struct Tables {
    pub(super) connection: Connection,
    pub(super) wall: Clock,
    pub(super) stamps: HybridClock,
}

impl Tables {
    pub(super) fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        (migrate::LAYOUT.migrate)(&connection).unwrap();
        let wall = Clock::manual();
        Self { connection, stamps: HybridClock::new(wall.clone()), wall }
    }

    pub(super) fn session(&self) -> Session<'_> {
        Session { connection: &self.connection, now: self.wall.now(), stamps: &self.stamps }
    }

    pub(super) fn count(&self, table: &str) -> i64 {
        self.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }
}

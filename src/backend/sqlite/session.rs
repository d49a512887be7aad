//! What a job has at hand: the connection to the expected database, the present moment and the clock for stamps.

use std::sync::Arc;

use rusqlite::Connection;

use crate::contract::Attempt;
use crate::engine::sqlite::SqlResult;
use crate::error::Result;
use crate::stamp::{HybridClock, Stamp};
use crate::time::{Clock, Timestamp};

use super::expected::Expected;

/// What the jobs of a database share: its clocks, and which database must answer them.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) wall: Clock,
    pub(super) stamps: Arc<HybridClock>,
    pub(super) expected: Arc<Expected>,
}

impl Shared {
    /// Makes what the jobs of a new database share; it may be any.
    pub(super) fn new(wall: Clock, stamps: Arc<HybridClock>) -> Self {
        Self { wall, stamps, expected: Arc::default() }
    }

    /// Begins a job on a connection, in its transaction.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database is not the expected one.
    pub(super) fn session<'a>(&'a self, connection: &'a Connection) -> SqlResult<Session<'a>> {
        let session = self.any_session(connection);
        self.expected.check(&session)?;
        Ok(session)
    }

    /// Begins a job on a connection, whichever database is expected.
    pub(super) fn any_session<'a>(&'a self, connection: &'a Connection) -> Session<'a> {
        Session { connection, now: self.wall.now(), stamps: &self.stamps }
    }
}

/// A job on its connection, at its moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now: Timestamp,
    pub(super) stamps: &'a HybridClock,
}

impl Session<'_> {
    /// A stamp newer than what stands: the write's own, unless that is behind.
    ///
    /// A new stamp is safe here, because nothing was written under the first one: this transaction would see it.
    ///
    /// # Errors
    ///
    /// `OutcomeUnknown` if the write is a repetition and behind.
    pub(super) fn newer_than(&self, standing: Option<Stamp>, stamp: Stamp, attempt: Attempt) -> Result<Stamp> {
        attempt.stamp_past(standing, stamp, self.stamps)
    }
}

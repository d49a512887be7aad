//! What a job has at hand: the connection, the present moment and the clock for stamps.

use std::sync::Arc;

use rusqlite::Connection;

use crate::contract::Attempt;
use crate::error::Result;
use crate::stamp::{HybridClock, Stamp};
use crate::time::{Clock, Timestamp};

/// The clocks of a database.
#[derive(Clone, Debug)]
pub(super) struct Clocks {
    pub(super) wall: Clock,
    pub(super) stamps: Arc<HybridClock>,
}

impl Clocks {
    /// Begins a job on a connection.
    pub(super) fn session<'a>(&'a self, connection: &'a Connection) -> Session<'a> {
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

//! What stands under a key: why a write was refused, and what a transaction locks.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgRow;

use crate::contract::Attempt;
use crate::error::Result;
use crate::key::Key;
use crate::revision::Revision;
use crate::stamp::{HybridClock, Stamp};

use super::batch::distinct;
use super::error::column;
use super::record;
use super::session::Session;

/// What stands under one key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// The stamp of the value or its tombstone.
    pub(super) stamp: Option<Stamp>,
    /// Whether there is a live value.
    pub(super) live: bool,
    /// The newest stamp that changed the list.
    pub(super) max_stamp: Option<Stamp>,
    /// The stamp of the list's last delete.
    pub(super) floor: Option<Stamp>,
}

impl Standing {
    /// Whether the live value has this revision.
    pub(super) fn has(&self, revision: Revision) -> bool {
        self.live && self.stamp.map(Revision::from_stamp) == Some(revision)
    }

    /// A stamp newer than all that stands: this one, or where it is behind another.
    ///
    /// # Errors
    ///
    /// `OutcomeUnknown` if the write is a repetition and behind.
    pub(super) fn newer(&self, clock: &HybridClock, stamp: Stamp, attempt: Attempt) -> Result<Stamp> {
        attempt.stamp_past(self.stamp.max(self.max_stamp), stamp, clock)
    }
}

/// What stands under several keys.
#[derive(Debug)]
pub(super) struct Standings(HashMap<String, Result<Standing>>);

impl Standings {
    /// What stands under one of them.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it cannot be read.
    pub(super) fn of(&self, key: &Key) -> Result<Standing> {
        self.0.get(key.as_str()).cloned().unwrap_or_else(|| Ok(Standing::default()))
    }
}

/// Reads what stands under keys.
pub(super) async fn read<'a>(session: &mut Session, keys: impl IntoIterator<Item = &'a Key>) -> Result<Standings> {
    let sql = Arc::clone(&session.sql);
    let keys = distinct(keys);
    let rows = session.read(&sql.standing, |statement| statement.bind(keys.as_slice())).await?;
    rows.iter().map(|row| Ok((column(row, 0)?, standing(row)))).collect::<Result<_>>().map(Standings)
}

/// Reads the columns key, stamp, live, newest stamp and floor of the list.
fn standing(row: &PgRow) -> Result<Standing> {
    Ok(Standing {
        stamp: record::stamp(row, 1)?,
        live: column::<Option<bool>>(row, 2)?.unwrap_or(false),
        max_stamp: record::stamp(row, 3)?,
        floor: record::stamp(row, 4)?,
    })
}

/// Locks the values under sorted keys until the end of the transaction.
pub(super) async fn lock_values(session: &mut Session, keys: &[&str]) -> Result<()> {
    let sql = Arc::clone(&session.sql);
    session.write(&sql.lock_values, |statement| statement.bind(keys)).await.map(drop)
}

/// Locks the lists under sorted keys until the end of the transaction. Values are locked before lists.
pub(super) async fn lock_lists(session: &mut Session, keys: &[&str]) -> Result<()> {
    let sql = Arc::clone(&session.sql);
    session.write(&sql.lock_lists, |statement| statement.bind(keys)).await.map(drop)
}

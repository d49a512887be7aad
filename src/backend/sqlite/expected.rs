//! Which database must answer.

use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::contract::Identity;
use crate::engine::sqlite::{SqlError, SqlResult};
use crate::error::{Error, Outage};

use super::meta;
use super::migrate::is_answer;
use super::session::Session;

/// The database that is expected, if any is. Every job looks at it in its own transaction.
#[derive(Debug, Default)]
pub(super) struct Expected(Mutex<Option<Identity>>);

impl Expected {
    pub(super) fn get(&self) -> Option<Identity> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, identity: Option<Identity>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Refuses a database that is not the expected one, or an older state of it.
    pub(super) fn check(&self, session: &Session<'_>) -> SqlResult<()> {
        match self.get() {
            Some(expected) if !meta::identity(session)?.continues(expected) => Err(foreign()),
            _ => Ok(()),
        }
    }

    /// The same for a file that may have no tables, or those of an older program.
    pub(super) fn check_file(&self, connection: &Connection) -> SqlResult<()> {
        let Some(expected) = self.get() else { return Ok(()) };
        match meta::read(&mut connection.prepare(meta::IDENTITY).map_err(no_tables)?) {
            Ok(found) if found.continues(expected) => Ok(()),
            Ok(_) => Err(foreign()),
            Err(error) => Err(error),
        }
    }
}

fn no_tables(error: rusqlite::Error) -> SqlError {
    if is_answer(&error) { foreign() } else { error.into() }
}

fn foreign() -> SqlError {
    let why =
        "the SQLite file holds another database than the expected one, or an older state of it; put the file back";
    Error::unavailable(why).with_outage(Outage::Foreign).into()
}

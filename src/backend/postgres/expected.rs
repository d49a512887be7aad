//! Which database must answer.

use std::sync::{Mutex, PoisonError};

use sqlx::postgres::PgRow;

use crate::contract::Identity;
use crate::error::{Error, Outage, Result};

use super::error::column;
use super::record;
use super::session::Statement;

/// The database that is expected, if any is. Every statement but the one for the identity carries it.
#[derive(Debug, Default)]
pub(super) struct Expected(Mutex<Option<Identity>>);

impl Expected {
    pub(super) fn get(&self) -> Option<Identity> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, identity: Option<Identity>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }
}

/// Binds the last three arguments of a statement: the database that it must run in, and until when it may arrive there, in milliseconds
/// since the epoch by the server's clock.
pub(super) fn bind(statement: Statement, expected: Option<Identity>, until: Option<i64>) -> Statement {
    let id = expected.map(|expected| expected.id.to_be_bytes());
    // No ping raised it beyond what the server's type holds.
    let canary = expected.map(|expected| i64::try_from(expected.canary).unwrap_or(i64::MAX));
    statement.bind(id).bind(canary).bind(until)
}

/// Reads the columns identity and canary.
pub(super) fn identity(row: &PgRow) -> Result<Identity> {
    let id: [u8; 16] = column::<&[u8]>(row, 0)?
        .try_into()
        .map_err(|_| Error::corrupt("the stored identity of the database is not 16 bytes long"))?;
    Ok(Identity::new(u128::from_be_bytes(id), record::number(row, 1)?))
}

/// Makes an error of a database in which tables or columns of ours are missing, where a certain one is expected.
pub(super) fn lacking() -> Error {
    let why = "the server holds another database than the expected one, or its tables were changed; bring the right one back, or \
               update this program if a newer one has migrated them";
    Error::unavailable(why).with_outage(Outage::Foreign)
}

/// Makes an error of a database that is not the expected one.
pub(super) fn foreign() -> Error {
    let why =
        "the server holds another database than the expected one, or an older state of it; bring the right one back";
    Error::unavailable(why).with_outage(Outage::Foreign)
}

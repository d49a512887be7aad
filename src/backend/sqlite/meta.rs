//! What the database says of itself.

use rusqlite::Statement;

use crate::contract::Identity;
use crate::engine::sqlite::SqlResult;
use crate::error::Error;
use crate::stamp::Stamp;

use super::codec;
use super::session::Session;

/// Reads which database this is.
pub(super) const IDENTITY: &str = "SELECT identity, canary FROM meta WHERE id = 1";

const RAISE: &str = "UPDATE meta SET canary = canary + 1 WHERE id = 1 RETURNING identity, canary";

/// Raises the number that tells a restored copy from this database, and so proves that it can be written.
pub(super) fn raise_canary(session: &Session<'_>) -> SqlResult<Identity> {
    read(&mut *session.connection.prepare_cached(RAISE)?)
}

/// Reads which database this is.
pub(super) fn identity(session: &Session<'_>) -> SqlResult<Identity> {
    read(&mut *session.connection.prepare_cached(IDENTITY)?)
}

/// Reads the identity that a statement answers.
pub(super) fn read(statement: &mut Statement<'_>) -> SqlResult<Identity> {
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or_else(lost)?;
    let identity = Identity::new(u128::from_be_bytes(row.get(0)?), codec::number(row, 1)?);
    // A statement that changes something is done only at its end.
    rows.next()?;
    Ok(identity)
}

/// Reads the stamp before which deletes may be forgotten.
pub(super) fn gc_floor(session: &Session<'_>) -> SqlResult<Stamp> {
    let mut statement = session.connection.prepare_cached("SELECT gc_floor FROM meta WHERE id = 1")?;
    let mut rows = statement.query([])?;
    codec::stamp(rows.next()?.ok_or_else(lost)?, 0)
}

fn lost() -> Error {
    Error::corrupt("the SQLite file does not say any more which database it is")
}

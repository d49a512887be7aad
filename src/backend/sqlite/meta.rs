//! What the database says of itself.

use crate::contract::Identity;
use crate::engine::sqlite::SqlResult;
use crate::error::Error;

use super::codec;
use super::session::Session;

/// Raises the number that tells a restored copy from this database, and proves that it can be written.
pub(super) fn raise_canary(session: &Session<'_>) -> SqlResult<()> {
    match session.connection.prepare_cached("UPDATE meta SET canary = canary + 1 WHERE id = 1")?.execute([])? {
        1 => Ok(()),
        _ => Err(lost().into()),
    }
}

/// Reads which database this is.
pub(super) fn identity(session: &Session<'_>) -> SqlResult<Identity> {
    let mut statement = session.connection.prepare_cached("SELECT identity, canary FROM meta WHERE id = 1")?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or_else(lost)?;
    Ok(Identity::new(u128::from_be_bytes(row.get(0)?), codec::number(row, 1)?))
}

fn lost() -> Error {
    Error::corrupt("the SQLite file does not say any more which database it is")
}

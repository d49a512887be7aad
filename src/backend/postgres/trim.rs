//! Trimming lists, and taking the payload of what was trimmed or deleted.

use std::sync::Arc;

use crate::error::Result;
use crate::key::Key;
use crate::stamp::Stamp;

use super::record;
use super::session::Session;

/// How many positions of a list are cleaned by one statement, so that none holds its locks for long. The sweeper does the
/// rest.
const CLEAN_BATCH: i64 = 5000;

/// Cuts a list to its last items; says how many went.
///
/// What stays is fixed before the trim is sent: one that lands late takes nothing that was appended meanwhile.
pub(super) async fn trim(session: &mut Session, key: &Key, keep_last: u64) -> Result<u64> {
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.ends, |statement| statement.bind(key.as_str())).await?;
    let Some(row) = rows.first() else { return Ok(0) };
    let (first, next) = (record::number(row, 0)?, record::number(row, 1)?);
    let bound = next.saturating_sub(keep_last);
    if bound <= first {
        return Ok(0);
    }
    let stamp = session.clock.issue_after(record::stamp(row, 2)?.unwrap_or(Stamp::MIN));
    let bound = i64::try_from(bound).unwrap_or(i64::MAX);
    let bind = |statement: super::session::Statement| statement.bind(key.as_str()).bind(bound).bind(stamp.to_bytes());
    let rows = session.write(&sql.trim, bind).await?;
    // Without a row, somebody else trimmed or deleted as much meanwhile.
    let Some(row) = rows.first() else { return Ok(0) };
    session.mark_unclean(key);
    record::number(row, 0)
}

/// Takes the payload of the removed items of lists, as much as one statement may.
pub(super) async fn clean(session: &mut Session, keys: &[Key]) -> Result<()> {
    let sql = Arc::clone(&session.sql);
    let keys = super::batch::distinct(keys);
    session.read(&sql.clean, |statement| statement.bind(keys.as_slice()).bind(CLEAN_BATCH)).await.map(drop)
}

/// Cleans the lists that a call left unclean. What fails is left to the sweeper.
pub(super) async fn clean_up(session: &mut Session) {
    let keys = session.take_unclean();
    if keys.is_empty() || !session.is_usable() || session.in_transaction() {
        return;
    }
    if let Err(error) = clean(session, &keys).await {
        tracing::debug!(%error, "removed items keep their payload until the next sweep");
    }
}

//! Listing, counting and clearing the keys of a prefix.

use std::collections::BTreeMap;
use std::sync::{Arc, Once};

use sqlx::postgres::PgRow;

use crate::contract::{Attempt, Cursor, KeyPage, ListOptions, Write};
use crate::error::{Behind, Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

use super::error::{column, is_contention};
use super::record;
use super::session::{Session, Statement};
use super::sql::{Scans, Sql};
use super::write::write_many;

/// How many keys a clear removes in one transaction.
pub(super) const CLEAR_BATCH: usize = 1000;

/// The keys of a prefix after a cursor, as the statements take them.
#[derive(Clone, Debug)]
pub(super) struct Under<'a> {
    prefix: &'a str,
    pub(super) after: String,
    before: Option<String>,
}

impl<'a> Under<'a> {
    pub(super) fn new(prefix: &'a KeyPrefix) -> Self {
        Self { prefix: prefix.as_str(), after: String::new(), before: prefix.upper_bound() }
    }

    pub(super) fn scans<'s>(&self, sql: &'s Sql) -> &'s Scans {
        if self.before.is_some() { &sql.bounded } else { &sql.unbounded }
    }

    pub(super) fn bind(&self, statement: Statement) -> Statement {
        statement.bind(self.prefix).bind(self.after.as_str()).bind(self.before.as_deref())
    }
}

/// Lists one page of keys in byte order.
///
/// A page ends with a row, not with a key: one that holds rows without a valid key is short, and the next goes on behind it.
pub(super) async fn list(session: &mut Session, prefix: &KeyPrefix, options: &ListOptions) -> Result<KeyPage> {
    let sql = Arc::clone(&session.sql);
    let mut under = Under::new(prefix);
    if let Some(cursor) = &options.cursor {
        under.after = row_text(cursor)?.to_owned();
    }
    let limit = options.limit.clamp(1, ListOptions::MAX_LIMIT);
    let rows = session.read(&under.scans(&sql).list, |statement| under.bind(statement).bind(count(limit))).await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        keys.extend(key(row)?);
    }
    let last = rows.last().filter(|_| rows.len() >= limit);
    let next = last.map(|row| column::<String>(row, 0)).transpose()?.map(Cursor::new);
    Ok(KeyPage::new(keys, next))
}

/// The text of the row that a cursor stands at. It need not be a key's, but no stored text is empty or holds a NUL.
fn row_text(cursor: &Cursor) -> Result<&str> {
    match cursor.as_str() {
        text if text.is_empty() || text.contains('\0') => {
            Err(Error::invalid_value("the cursor is not one that this database gave"))
        }
        text => Ok(text),
    }
}

/// Counts the keys. Rows without a valid key, which a listing passes over, are counted too: to tell them apart the server would
/// have to look into every key.
pub(super) async fn count_keys(session: &mut Session, prefix: &KeyPrefix) -> Result<u64> {
    let sql = Arc::clone(&session.sql);
    let under = Under::new(prefix);
    let rows = session.read(&under.scans(&sql).count, |statement| under.bind(statement)).await?;
    record::number(rows.first().ok_or_else(super::session::unanswered)?, 0)
}

/// Removes all keys that were there before the call; says how many. Where it may not be stamped anew, it removes only what is older.
///
/// Page by page, each in a transaction that locks what it removes: a page that lands late is one whose locks nobody passed.
pub(super) async fn clear(session: &mut Session, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt) -> Result<u64> {
    let mut under = Under::new(prefix);
    let (mut removed, mut refused, mut newest) = (0_u64, false, None);
    loop {
        let page = clear_once(session, &under, stamp, attempt).await.map_err(|failure| broken_off(failure, removed))?;
        removed = removed.saturating_add(page.removed);
        refused |= page.refused;
        newest = newest.max(page.newest);
        match page.last {
            Some(last) => under.after = last,
            None if refused => {
                return Err(attempt.refusal(Behind::after_removing(removed).with_standing(newest)));
            }
            None => return Ok(removed),
        }
    }
}

/// A failure after some keys went is not one of a write that was not applied.
fn broken_off(failure: Error, removed: u64) -> Error {
    if removed == 0 || failure.kind() != ErrorKind::Unavailable {
        return failure;
    }
    Error::outcome_unknown("clearing broke off in the middle; some keys are gone").with_source(failure)
}

/// Removes a page in a transaction of its own, again where others collide with it.
async fn clear_once(session: &mut Session, under: &Under<'_>, stamp: Stamp, attempt: Attempt) -> Result<ClearedPage> {
    loop {
        session.check_deadline()?;
        session.begin().await?;
        match clear_page(session, under, stamp, attempt).await {
            Ok(page) => return session.commit().await.map(|()| page),
            Err(error) => {
                session.rollback().await;
                if !is_contention(&error) {
                    return Err(error);
                }
            }
        }
    }
}

struct ClearedPage {
    removed: u64,
    /// Whether something newer stayed.
    refused: bool,
    /// The newest stamp of all that was looked at.
    newest: Option<Stamp>,
    /// The page's last key, if there may be more.
    last: Option<String>,
}

async fn clear_page(session: &mut Session, under: &Under<'_>, stamp: Stamp, attempt: Attempt) -> Result<ClearedPage> {
    let sql = Arc::clone(&session.sql);
    let scans = under.scans(&sql);
    let bind = |statement: Statement| under.bind(statement).bind(count(CLEAR_BATCH));
    let values = session.read(&scans.clear_values, bind).await?;
    let lists = session.read(&scans.clear_lists, bind).await?;
    // Where one of the two has more than a page, the page ends with it.
    let end = [&values, &lists].into_iter().filter(|rows| rows.len() >= CLEAR_BATCH).filter_map(|rows| rows.last());
    let end = end.map(|row| column::<String>(row, 0)).collect::<Result<Vec<_>>>()?.into_iter().min();
    let mut newest: BTreeMap<Key, Stamp> = BTreeMap::new();
    for row in values.iter().chain(&lists) {
        let Some(key) = key(row)? else { continue };
        let stamp = record::stamp(row, 1)?.unwrap_or(Stamp::MIN);
        if end.as_deref().is_none_or(|end| key.as_str() <= end) {
            newest.entry(key).and_modify(|newest| *newest = stamp.max(*newest)).or_insert(stamp);
        }
    }
    let mut latest = newest.values().max().copied();
    let (stamp, mut refused) = match attempt.stamp_past(latest, stamp, &session.clock) {
        Ok(stamp) => (stamp, false),
        Err(_) => (stamp, true),
    };
    let older = newest.into_iter().filter(|(_, newest)| *newest < stamp);
    // A list that is empty was not looked at, and may be newer.
    let attempt = attempt.min(Attempt::Fixed);
    let deletes: Vec<Write> = older.map(|(key, _)| Write { attempt, ..Write::delete(key, stamp) }).collect();
    let mut removed = 0;
    for answer in write_many(session, &deletes).await {
        match answer.map_err(|error| (error.as_behind(), error)) {
            Ok(ack) => removed += u64::from(ack.existed == Some(true)),
            Err((Some(behind), _)) => {
                removed += behind.removed;
                latest = latest.max(behind.standing());
                refused = true;
            }
            Err((None, error)) => return Err(error),
        }
    }
    Ok(ClearedPage { removed, refused, newest: latest, last: end })
}

/// Reads a row's key.
///
/// A row whose key is none was not written by this crate. It is passed over, so that it does not hide the others. That is said
/// once, because every listing would say it again.
fn key(row: &PgRow) -> Result<Option<Key>> {
    static SAID: Once = Once::new();
    let key = Key::parse(column::<&str>(row, 0)?).ok();
    if key.is_none() {
        SAID.call_once(|| tracing::warn!("rows of the PostgreSQL database without a valid key are passed over"));
    }
    Ok(key)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

//! Writes that were acknowledged and lost, kept until somebody has seen to them.

use std::sync::Arc;

use sqlx::postgres::PgRow;

use crate::contract::{ConflictOptions, ConflictRecord, ItemId, LostOperation};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;
use crate::time::Timestamp;
use crate::value::{Format, Value};

use super::batch::{chunks, json_text};
use super::error::column;
use super::judge::{Lost, Operation};
use super::record;
use super::session::{Session, Statement, unanswered};
use super::sql::Text;

/// Keeps writes that lost, those that were stored as they still are: they do not leave the server. One that is kept already
/// stays as it is.
///
/// # Errors
///
/// `Corrupt` if one that was stored cannot be read: nobody could read what was kept of it either.
pub(super) async fn keep(session: &mut Session, lost: Vec<Lost<'_>>, now: Timestamp) -> Result<()> {
    let (mut values, mut items, mut brought) = (Stored::default(), Stored::default(), Vec::new());
    for lost in lost {
        match lost.operation {
            Operation::StoredValue => values.push(&lost, None),
            Operation::StoredItem(position) => items.push(&lost, Some(position)),
            Operation::Put(..) | Operation::Delete | Operation::Append(..) => brought.push(lost),
        }
    }
    let sql = Arc::clone(&session.sql);
    keep_stored(session, &sql.keep_values, &values, now).await?;
    keep_stored(session, &sql.keep_items, &items, now).await?;
    for chunk in chunks(brought, |lost| value_of(&lost.operation).map_or(0, Value::len)) {
        keep_chunk(session, &chunk, now).await?;
    }
    Ok(())
}

async fn keep_stored(session: &mut Session, text: &Text, stored: &Stored<'_>, now: Timestamp) -> Result<()> {
    if stored.keys.is_empty() {
        return Ok(());
    }
    let bind = |statement: Statement| {
        let statement = statement
            .bind(stored.keys.as_slice())
            .bind(stored.stamps.as_slice())
            .bind(stored.winners.as_slice())
            .bind(record::signed(now.as_millis()));
        if stored.positions.is_empty() { statement } else { statement.bind(stored.positions.as_slice()) }
    };
    let rows = session.write(text, bind).await?;
    let row = rows.first().ok_or_else(unanswered)?;
    if record::number(row, 0)? != stored.keys.len() as u64 {
        return Err(unanswered());
    }
    if record::number(row, 1)? == 0 { Ok(()) } else { Err(record::unreadable()) }
}

async fn keep_chunk(session: &mut Session, lost: &[Lost<'_>], now: Timestamp) -> Result<()> {
    let mut columns = Columns::default();
    for lost in lost {
        columns.push(lost)?;
    }
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| {
        statement
            .bind(columns.keys.as_slice())
            .bind(columns.stamps.as_slice())
            .bind(columns.operations.as_slice())
            .bind(columns.item_ids.as_slice())
            .bind(columns.expiries.as_slice())
            .bind(columns.winners.as_slice())
            .bind(columns.json.as_slice())
            .bind(columns.bin.as_slice())
            .bind(record::signed(now.as_millis()))
    };
    session.write(&sql.keep_conflicts, bind).await.map(drop)
}

/// The columns that name what is stored.
#[derive(Debug, Default)]
struct Stored<'a> {
    keys: Vec<&'a str>,
    stamps: Vec<[u8; 16]>,
    winners: Vec<[u8; 16]>,
    /// Of items.
    positions: Vec<i64>,
}

impl<'a> Stored<'a> {
    fn push(&mut self, lost: &Lost<'a>, position: Option<u64>) {
        self.keys.push(lost.key.as_str());
        self.stamps.push(lost.stamp.to_bytes());
        self.winners.push(lost.winner.to_bytes());
        self.positions.extend(position.map(record::signed));
    }
}

/// The columns of conflicts.
#[derive(Debug, Default)]
struct Columns<'a> {
    keys: Vec<&'a str>,
    stamps: Vec<[u8; 16]>,
    operations: Vec<&'static str>,
    item_ids: Vec<Option<&'a str>>,
    expiries: Vec<Option<i64>>,
    winners: Vec<[u8; 16]>,
    json: Vec<Option<&'a str>>,
    bin: Vec<Option<&'a [u8]>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, lost: &'a Lost<'a>) -> Result<()> {
        let (name, item_id, expires_at) = match &lost.operation {
            Operation::Put(_, expires_at) => ("put", None, *expires_at),
            Operation::Delete => ("delete", None, None),
            Operation::Append(_, item_id) => ("append", Some(*item_id), None),
            Operation::StoredValue | Operation::StoredItem(_) => return Err(unanswered()),
        };
        let value = value_of(&lost.operation);
        let json = value.filter(|value| value.format() == Format::Json).map(json_text).transpose()?;
        self.keys.push(lost.key.as_str());
        self.stamps.push(lost.stamp.to_bytes());
        self.operations.push(name);
        self.item_ids.push(item_id.map(ItemId::as_str));
        self.expiries.push(expires_at.map(|at| record::signed(at.as_millis())));
        self.winners.push(lost.winner.to_bytes());
        self.json.push(json);
        self.bin.push(value.filter(|value| value.format() != Format::Json).map(Value::as_bytes));
        Ok(())
    }
}

fn value_of<'a>(operation: &'a Operation<'a>) -> Option<&'a Value> {
    match operation {
        Operation::Put(value, _) | Operation::Append(value, _) => Some(value),
        Operation::Delete | Operation::StoredValue | Operation::StoredItem(_) => None,
    }
}

/// Lists one page, in the order of the stamps, then of the keys.
pub(super) async fn page(session: &mut Session, options: &ConflictOptions) -> Result<Vec<ConflictRecord>> {
    let limit = options.limit.clamp(1, ConflictOptions::MAX_LIMIT);
    let (stamp, key) = options.after.as_ref().map(|(stamp, key)| (stamp.to_bytes().to_vec(), key.as_str())).unzip();
    let (stamp, key) = (stamp.unwrap_or_default(), key.unwrap_or_default());
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| statement.bind(stamp.as_slice()).bind(key).bind(record::signed(limit as u64));
    session.read(&sql.conflicts, bind).await?.iter().map(record_of).collect()
}

/// Forgets a write that lost; `false` if it is not there.
pub(super) async fn forget(session: &mut Session, key: &Key, stamp: Stamp) -> Result<bool> {
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| statement.bind(stamp.to_bytes()).bind(key.as_str());
    Ok(!session.write(&sql.forget_conflict, bind).await?.is_empty())
}

/// Reads the columns stamp, key, operation, item id, expiry, kind, JSON, binary, winner, moment.
fn record_of(row: &PgRow) -> Result<ConflictRecord> {
    let key = Key::parse(column::<&str>(row, 1)?).map_err(corrupt)?;
    let lost = match (column::<&str>(row, 2)?, record::value_or_tombstone(row, 5)?) {
        ("put", Some(value)) => LostOperation::Put { value, expires_at: record::moment(row, 4)? },
        ("delete", None) => LostOperation::Delete,
        ("append", Some(value)) => {
            let item_id = ItemId::parse(column::<Option<&str>>(row, 3)?.unwrap_or_default()).map_err(corrupt)?;
            LostOperation::Append { value, item_id }
        }
        _ => return Err(Error::corrupt("a stored conflict is of no operation that is known")),
    };
    let (stamp, winner) = (Stamp::from_slice(column(row, 0)?)?, Stamp::from_slice(column(row, 8)?)?);
    Ok(ConflictRecord::new(key, stamp, lost, winner, Timestamp::from_millis(record::number(row, 9)?)))
}

fn corrupt(error: Error) -> Error {
    Error::corrupt("a stored conflict has an unreadable name").with_source(error)
}

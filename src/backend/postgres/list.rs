//! Lists: appending, reading, trimming.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgRow;

use crate::contract::{Append, AppendAck, Attempt, Item, ItemId, ListRange};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;

use super::batch::{Columns, chunks};
use super::error::{column, is_duplicate, is_position_taken};
use super::record;
use super::session::{Session, Statement};
use super::standing;

/// How often items may collide with others before their list is taken to be corrupt. The next attempt sees what the last one
/// collided with, unless the list's row does not fit its items.
const MOST_COLLISIONS: u32 = 20;

/// An item that has no answer yet.
#[derive(Clone, Debug)]
struct Pending<'a> {
    index: usize,
    append: &'a Append,
}

/// Appends items: one answer an item, in order; those of one list are appended in order.
pub(super) async fn append_many(session: &mut Session, items: &[Append]) -> Vec<Result<AppendAck>> {
    let mut answers: Vec<Option<Result<AppendAck>>> = items.iter().map(|_| None).collect();
    // A second item of the same id in the batch is a repetition of the first.
    let mut first_of: HashMap<(&Key, &ItemId), usize> = HashMap::new();
    let mut repeats: Vec<(usize, usize)> = Vec::new();
    let mut pending: Vec<Pending<'_>> = Vec::with_capacity(items.len());
    for (index, append) in items.iter().enumerate() {
        match first_of.entry((&append.key, &append.item_id)) {
            std::collections::hash_map::Entry::Occupied(first) => repeats.push((index, *first.get())),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(index);
                pending.push(Pending { index, append });
            }
        }
    }
    for mut round in rounds_of(pending) {
        // Stable: the items of one list stay in their order.
        round.sort_by(|a, b| a.append.key.cmp(&b.append.key));
        for chunk in chunks(round, |pending| pending.append.value.len()) {
            settle_chunk(session, chunk, &mut answers).await;
        }
    }
    for (index, first) in repeats {
        let repeated = match answers.get(first) {
            Some(Some(Ok(ack))) => Ok(AppendAck { existed: Some(true), ..*ack }),
            Some(Some(Err(error))) => Err(error.clone()),
            _ => Err(unanswered()),
        };
        if let Some(slot) = answers.get_mut(index) {
            *slot = Some(repeated);
        }
    }
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered()))).collect()
}

fn unanswered() -> Error {
    Error::internal("an append of a batch was not answered")
}

/// Cuts items into rounds so that a repeated one has its list for itself: items of one list are guarded by their newest stamp,
/// and a repeated one must not pass a delete on the stamp of another. Nearly always there is one round.
fn rounds_of(pending: Vec<Pending<'_>>) -> Vec<Vec<Pending<'_>>> {
    let mut lists: HashMap<&Key, (usize, Attempt)> = HashMap::new();
    let mut rounds: Vec<Vec<Pending<'_>>> = Vec::new();
    for pending in pending {
        let attempt = pending.append.attempt;
        let round = match lists.get(&pending.append.key) {
            None => 0,
            Some((round, Attempt::First)) if attempt == Attempt::First => *round,
            Some((round, _)) => round + 1,
        };
        lists.insert(&pending.append.key, (round, attempt));
        if rounds.len() <= round {
            rounds.push(Vec::new());
        }
        if let Some(round) = rounds.get_mut(round) {
            round.push(pending);
        }
    }
    rounds
}

/// Sends a chunk until each of its items has an answer.
async fn settle_chunk(session: &mut Session, mut pending: Vec<Pending<'_>>, answers: &mut [Option<Result<AppendAck>>]) {
    let mut stamps = newest_stamps(&pending);
    let mut answer = |index: usize, result: Result<AppendAck>| {
        if let Some(slot) = answers.get_mut(index) {
            *slot = Some(result);
        }
    };
    let mut collisions = 0;
    while !pending.is_empty() {
        let first_key = pending.first().map(|pending| &pending.append.key);
        let sent = match session.check_deadline() {
            Ok(()) => send(session, &pending, &stamps).await,
            Err(error) => Err(error),
        };
        let rows = match sent {
            Ok(Sent::Done(rows)) => rows,
            Ok(Sent::Again(_)) if collisions < MOST_COLLISIONS => {
                collisions += 1;
                continue;
            }
            Ok(Sent::Again(_) | Sent::Corrupt(_))
                if pending.iter().any(|pending| Some(&pending.append.key) != first_key) =>
            {
                // One list must not fail the others: each goes by itself.
                for list in pending.chunk_by(|a, b| a.append.key == b.append.key) {
                    Box::pin(settle_chunk(session, list.to_vec(), answers)).await;
                }
                return;
            }
            Ok(Sent::Again(error) | Sent::Corrupt(error)) | Err(error) => {
                return pending.iter().for_each(|pending| answer(pending.index, Err(error.clone())));
            }
        };
        let appended = match rows.iter().map(appended).collect::<Result<HashMap<_, _>>>() {
            Ok(appended) => appended,
            Err(error) => return pending.iter().for_each(|pending| answer(pending.index, Err(error.clone()))),
        };
        let mut refused = Vec::new();
        for pending in pending {
            match appended.get(&(pending.append.key.as_str(), pending.append.item_id.as_str())) {
                Some(ack) => answer(pending.index, Ok(*ack)),
                None => refused.push(pending),
            }
        }
        let restamped = match restamp(session, &refused, &mut stamps).await {
            Ok(restamped) => restamped,
            Err(error) => return refused.iter().for_each(|pending| answer(pending.index, Err(error.clone()))),
        };
        pending = Vec::with_capacity(refused.len());
        for (refusal, restamped) in refused.into_iter().zip(restamped) {
            match restamped {
                Ok(()) => pending.push(refusal),
                Err(error) => answer(refusal.index, Err(error)),
            }
        }
    }
}

/// The stamps that items are sent with: of each list the newest, so that a list is taken or refused as a whole.
fn newest_stamps<'a>(pending: &[Pending<'a>]) -> HashMap<&'a Key, Stamp> {
    let mut stamps: HashMap<&Key, Stamp> = HashMap::new();
    for Pending { append, .. } in pending {
        stamps.entry(&append.key).and_modify(|stamp| *stamp = append.stamp.max(*stamp)).or_insert(append.stamp);
    }
    stamps
}

/// Gives lists that were deleted later than their items were stamped a newer stamp; the items keep their ids. Answers for each
/// item whether it may be sent again: not one that may have been appended before the delete.
async fn restamp<'a>(
    session: &mut Session,
    refused: &[Pending<'a>],
    stamps: &mut HashMap<&'a Key, Stamp>,
) -> Result<Vec<Result<()>>> {
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let standing = standing::read(session, refused.iter().map(|pending| &pending.append.key)).await?;
    let mut restamp = |append: &'a Append| {
        let floor = standing.of(&append.key)?.floor;
        // Its list's stamp may be that of another item; its own says what a lost reply stood for.
        append.attempt.stamp_past(floor, append.stamp, &session.clock)?;
        if let Some(stamp) = stamps.get_mut(&append.key) {
            *stamp = Attempt::First.stamp_past(floor, *stamp, &session.clock)?;
        }
        Ok(())
    };
    Ok(refused.iter().map(|pending| restamp(pending.append)).collect())
}

/// What came of a chunk that was sent.
enum Sent {
    /// There is a row for each item that is now in its list.
    Done(Vec<PgRow>),
    /// Nothing was applied, and it is to be sent again; the error is what it means if that does not help.
    Again(Error),
    /// Nothing was applied: one of the lists cannot be appended to.
    Corrupt(Error),
}

/// Sends a chunk.
async fn send(session: &mut Session, pending: &[Pending<'_>], stamps: &HashMap<&Key, Stamp>) -> Result<Sent> {
    let sql = Arc::clone(&session.sql);
    let ids: Vec<&str> = pending.iter().map(|pending| pending.append.item_id.as_str()).collect();
    let mut columns = Columns::default();
    for Pending { append, .. } in pending {
        let stamp = stamps.get(&append.key).copied().unwrap_or(append.stamp);
        columns.push(&append.key, stamp, Some((&append.value, None)))?;
    }
    if session.in_transaction() {
        // A collision would end the transaction; the lists are locked, so none can come after this.
        forget(session, &columns.keys, &ids).await?;
    }
    let sent = session
        .write(&sql.append, |statement| {
            statement
                .bind(columns.keys.as_slice())
                .bind(ids.as_slice())
                .bind(columns.stamps.as_slice())
                .bind(columns.kinds.as_slice())
                .bind(columns.json.as_slice())
                .bind(columns.bin.as_slice())
        })
        .await;
    match sent {
        Ok(rows) => Ok(Sent::Done(rows)),
        // Somebody appended the same id at the same time, or a deleted list's items are still there.
        Err(error) if is_duplicate(&error) && !session.in_transaction() => {
            let forgotten = forget(session, &columns.keys, &ids).await?;
            let stays = forgotten == 0 && is_position_taken(&error);
            let error = beyond_count(error);
            Ok(if stays { Sent::Corrupt(error) } else { Sent::Again(error) })
        }
        Err(error) if is_position_taken(&error) => Err(beyond_count(error)),
        Err(error) => Err(error),
    }
}

/// The row of the list was lost, or somebody changed its count.
fn beyond_count(collided: Error) -> Error {
    Error::corrupt("the list has items beyond its count; delete it to begin anew").with_source(collided)
}

/// Removes what deleted lists left in the way; says how many items.
async fn forget(session: &mut Session, keys: &[&str], ids: &[&str]) -> Result<usize> {
    let sql = Arc::clone(&session.sql);
    Ok(session.read(&sql.forget, |statement| statement.bind(keys).bind(ids)).await?.len())
}

/// Reads the columns key, id, position, existed.
fn appended(row: &PgRow) -> Result<((&str, &str), AppendAck)> {
    Ok(((column(row, 0)?, column(row, 1)?), AppendAck::primary(record::number(row, 2)?, column(row, 3)?)))
}

/// Reads items of a list.
pub(super) async fn range(session: &mut Session, key: &Key, range: ListRange) -> Result<Vec<Item>> {
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| statement.bind(key.as_str()).bind(range.start).bind(range.end);
    let rows = session.read(&sql.range, bind).await?;
    let expected = rows.first().map_or(Ok(0), |row| record::number(row, 5))?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        if column::<Option<i64>>(row, 0)?.is_some() {
            items.push(record::item(row)?);
        }
    }
    if items.len() as u64 == expected {
        Ok(items)
    } else {
        Err(Error::corrupt("the list lacks items that were stored in it"))
    }
}

/// Counts the items of a list.
pub(super) async fn length(session: &mut Session, key: &Key) -> Result<u64> {
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.length, |statement| statement.bind(key.as_str())).await?;
    rows.first().map_or(Ok(0), |row| record::number(row, 0))
}

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
    let bind = |statement: Statement| statement.bind(key.as_str()).bind(bound).bind(stamp.to_bytes());
    let rows = session.write(&sql.trim, bind).await?;
    // Without a row, somebody else trimmed or deleted as much meanwhile.
    let Some(row) = rows.first() else { return Ok(0) };
    session.mark_unclean(key);
    record::number(row, 0)
}

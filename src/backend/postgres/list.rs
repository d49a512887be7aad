//! Lists: appending, reading, trimming.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::postgres::PgRow;

use crate::contract::{Append, AppendAck, Attempt, Item, ItemId, ListRange};
use crate::error::{Behind, Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;

use super::batch::{Columns, Finder, Row, chunks};
use super::error::{column, is_duplicate, is_position_taken};
use super::record;
use super::session::{Session, Statement};
use super::standing;
use super::write::is_behind;

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
    // The lists of which a fixed item was behind: no later one of the batch may overtake it.
    let mut refused: HashSet<&Key> = HashSet::new();
    for mut round in rounds_of(pending) {
        // Stable: the items of one list stay in their order.
        round.sort_by(|a, b| a.append.key.cmp(&b.append.key));
        for mut chunk in chunks(round, |pending| pending.append.value.len()) {
            chunk.retain(|Pending { index, append }| {
                let follows = append.attempt == Attempt::Fixed && refused.contains(&append.key);
                if let (true, Some(slot)) = (follows, answers.get_mut(*index)) {
                    *slot = Some(Err(append.attempt.refusal(Behind::NOT_BEGUN)));
                }
                !follows
            });
            settle_chunk(session, chunk.clone(), &mut answers).await;
            let behind = chunk.iter().filter(|pending| is_behind(&answers, pending.index));
            refused.extend(behind.map(|pending| &pending.append.key));
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

/// Cuts items into rounds so that a repeated one has its list for itself: items of one list are guarded together, and a repeated
/// one must not pass a delete on the stamp of another. Nearly always there is one round.
fn rounds_of(pending: Vec<Pending<'_>>) -> Vec<Vec<Pending<'_>>> {
    let mut lists: HashMap<&Key, (usize, Attempt)> = HashMap::new();
    let mut rounds: Vec<Vec<Pending<'_>>> = Vec::new();
    for pending in pending {
        let attempt = pending.append.attempt;
        let round = match lists.get(&pending.append.key) {
            None => 0,
            Some((round, last)) if *last == attempt && attempt != Attempt::Repeat => *round,
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
            // What collides may be there already.
            Ok(()) => send(session, &pending, &stamps, collisions > 0).await,
            Err(error) => Err(error),
        };
        let appended = match sent {
            Ok(Sent::Done(appended)) => appended,
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
        let mut refused = Vec::new();
        for (pending, appended) in pending.into_iter().zip(appended) {
            match appended {
                Some(ack) => answer(pending.index, Ok(ack)),
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
fn newest_stamps<'a>(pending: &[Pending<'a>]) -> HashMap<&'a Key, ListStamp> {
    let mut stamps: HashMap<&Key, ListStamp> = HashMap::new();
    for Pending { append, .. } in pending {
        let of_list = stamps.entry(&append.key).or_insert(ListStamp { newest: append.stamp, anew: false });
        of_list.newest = append.stamp.max(of_list.newest);
    }
    stamps
}

/// The stamp that a list is sent with.
#[derive(Clone, Copy, Debug)]
struct ListStamp {
    newest: Stamp,
    /// Whether the list was stamped anew: its items are stored under newer stamps then, else under their own.
    anew: bool,
}

/// Gives lists that were deleted later than their items were stamped a newer stamp; the items keep their ids. Answers for each
/// item whether it may be sent again: not one that may have been appended before the delete.
async fn restamp<'a>(
    session: &mut Session,
    refused: &[Pending<'a>],
    stamps: &mut HashMap<&'a Key, ListStamp>,
) -> Result<Vec<Result<()>>> {
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let standing = standing::read(session, refused.iter().map(|pending| &pending.append.key)).await?;
    let mut behind: HashSet<&Key> = HashSet::new();
    let mut restamp = |append: &'a Append| {
        let floor = standing.of(&append.key)?.floor;
        if append.attempt == Attempt::Fixed {
            // The list was refused as a whole: what follows an item that is behind stays behind it.
            let judged = append.attempt.stamp_past(floor, append.stamp, &session.clock).map(drop);
            if judged.is_err() {
                behind.insert(&append.key);
            } else if behind.contains(&append.key) {
                return Err(append.attempt.refusal(Behind::NOT_BEGUN));
            }
            return judged;
        }
        // Its list's stamp may be that of another item; its own says what a lost reply stood for.
        let stamp = append.attempt.stamp_past(floor, append.stamp, &session.clock)?;
        if let Some(of_list) = stamps.get_mut(&append.key).filter(|_| stamp != append.stamp) {
            *of_list = ListStamp { newest: session.clock.issue_after(stamp.max(of_list.newest)), anew: true };
        }
        Ok(())
    };
    Ok(refused.iter().map(|pending| restamp(pending.append)).collect())
}

/// What came of a chunk that was sent.
enum Sent {
    /// There is an answer for each item that is now in its list.
    Done(Vec<Option<AppendAck>>),
    /// Nothing was applied, and it is to be sent again; the error is what it means if that does not help.
    Again(Error),
    /// Nothing was applied: one of the lists cannot be appended to.
    Corrupt(Error),
}

/// Sends a chunk, whose lists are in order. Items of which none was sent before are taken to be new, until that proves wrong.
async fn send(
    session: &mut Session,
    pending: &[Pending<'_>],
    stamps: &HashMap<&Key, ListStamp>,
    collided: bool,
) -> Result<Sent> {
    let ids: Vec<&str> = pending.iter().map(|pending| pending.append.item_id.as_str()).collect();
    let mut columns = Columns::with_capacity(pending.len());
    // A replayed delete judges each item by its own stamp, and keeps it under that if it loses.
    let mut own = Vec::with_capacity(pending.len());
    let mut newest: HashMap<&Key, Stamp> = HashMap::new();
    for Pending { append, .. } in pending {
        let of_list = stamps.get(&append.key).ok_or_else(unanswered)?;
        let stamp = if of_list.anew { session.clock.issue_after(of_list.newest) } else { append.stamp };
        newest.insert(&append.key, if of_list.anew { stamp } else { of_list.newest });
        own.push(stamp.to_bytes());
    }
    for Pending { append, .. } in pending {
        let stamp = *newest.get(&append.key).ok_or_else(unanswered)?;
        columns.push(&append.key, stamp, Some((&append.value, None)))?;
    }
    if session.in_transaction() {
        // A collision would end the transaction; the lists are locked, so none can come after this.
        forget(session, &columns.keys, &ids).await?;
    }
    let new = !collided && pending.iter().all(|pending| pending.append.attempt != Attempt::Repeat);
    let stamps = Stamps::new(own);
    let sent = if new {
        append_new(session, &columns, &ids, &stamps).await
    } else {
        append(session, &columns, &ids, &stamps).await
    };
    match sent {
        Ok(appended) => Ok(Sent::Done(appended)),
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

/// The stamps that the items of a chunk are stored under.
struct Stamps {
    own: Vec<[u8; 16]>,
    /// The oldest of them: the last delete of each list must be older, or items would be older than it and yet live.
    oldest: [u8; 16],
}

impl Stamps {
    fn new(own: Vec<[u8; 16]>) -> Self {
        let oldest = own.iter().min().copied().unwrap_or([u8::MAX; 16]);
        Self { own, oldest }
    }
}

/// Appends items that may be there, one by one.
async fn append(
    session: &mut Session,
    columns: &Columns<'_>,
    ids: &[&str],
    stamps: &Stamps,
) -> Result<Vec<Option<AppendAck>>> {
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| {
        statement
            .bind(columns.keys.as_slice())
            .bind(ids)
            .bind(columns.stamps.as_slice())
            .bind(columns.json())
            .bind(columns.bin())
            .bind(&stamps.oldest[..])
            .bind(stamps.own.as_slice())
    };
    let rows = session.write(&sql.append, bind).await?;
    let appended = rows.iter().map(appended).collect::<Result<HashMap<_, _>>>()?;
    Ok(columns.keys.iter().zip(ids).map(|(key, id)| appended.get(&(*key, *id)).copied()).collect())
}

/// Appends items that are taken to be new, list by list.
async fn append_new(
    session: &mut Session,
    columns: &Columns<'_>,
    ids: &[&str],
    stamps: &Stamps,
) -> Result<Vec<Option<AppendAck>>> {
    let lists = Lists::of(columns);
    let rows = match (columns.only(), ids) {
        // A collision would end a transaction.
        (Some(item), [id]) if !session.in_transaction() => append_one(session, item, id).await?,
        _ => append_lists(session, columns, &lists, ids, stamps).await?,
    };
    if rows.is_empty() {
        // One of the ids is known, or all lists were deleted later than their items were stamped.
        return append(session, columns, ids, stamps).await;
    }
    let mut ends: Vec<Option<u64>> = vec![None; lists.keys.len()];
    let mut finder = Finder::default();
    for row in &rows {
        let index = finder.find(&lists.keys, column(row, 0)?, |key| key);
        *index.and_then(|index| ends.get_mut(index)).ok_or_else(unanswered)? = Some(record::number(row, 1)?);
    }
    let mut acks = Vec::with_capacity(ids.len());
    for (end, count) in ends.into_iter().zip(&lists.counts) {
        for back in (1..=count.unsigned_abs()).rev() {
            acks.push(end.map(|end| AppendAck::primary(end.saturating_sub(back), false)));
        }
    }
    Ok(acks)
}

async fn append_one(session: &mut Session, item: Row<'_>, id: &str) -> Result<Vec<PgRow>> {
    let sql = Arc::clone(&session.sql);
    let bind =
        |statement: Statement| statement.bind(item.key).bind(&item.stamp[..]).bind(id).bind(item.json).bind(item.bin);
    session.write(&sql.append_one, bind).await
}

async fn append_lists(
    session: &mut Session,
    columns: &Columns<'_>,
    lists: &Lists<'_>,
    ids: &[&str],
    stamps: &Stamps,
) -> Result<Vec<PgRow>> {
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| {
        statement
            .bind(lists.keys.as_slice())
            .bind(lists.stamps.as_slice())
            .bind(lists.counts.as_slice())
            .bind(columns.keys.as_slice())
            .bind(lists.of_items.as_slice())
            .bind(lists.backs.as_slice())
            .bind(ids)
            .bind(stamps.own.as_slice())
            .bind(columns.json())
            .bind(columns.bin())
            .bind(&stamps.oldest[..])
    };
    session.write(&sql.append_new, bind).await
}

/// The lists of a chunk, and where in them its items go.
#[derive(Debug, Default)]
struct Lists<'a> {
    keys: Vec<&'a str>,
    stamps: Vec<[u8; 16]>,
    counts: Vec<i64>,
    /// Of each item the number of its list, from 1.
    of_items: Vec<i32>,
    /// Of each item how far before the end of its list it goes, from 1.
    backs: Vec<i64>,
}

impl<'a> Lists<'a> {
    fn of(columns: &Columns<'a>) -> Self {
        let mut lists = Self::default();
        let mut stamps = columns.stamps.iter();
        for (list, items) in (1..).zip(columns.keys.chunk_by(|a, b| a == b)) {
            let count = (1..).zip(items).map(|(count, _)| count).last().unwrap_or(0);
            lists.keys.extend(items.first());
            // The items of a list go by one stamp.
            lists.stamps.extend(stamps.by_ref().take(items.len()).last());
            lists.counts.push(count);
            lists.of_items.extend(items.iter().map(|_| list));
            lists.backs.extend((1..=count).rev());
        }
        lists
    }
}

/// The row of the list was lost, or somebody changed its count.
pub(super) fn beyond_count(collided: Error) -> Error {
    Error::corrupt("the list has items beyond its count; delete it to begin anew").with_source(collided)
}

/// Removes what deleted lists left in the way; says how many items.
pub(super) async fn forget(session: &mut Session, keys: &[&str], ids: &[&str]) -> Result<usize> {
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
/// What stays is fixed before the trim is sent: one that lands late takes nothing that was appended meanwhile. It gets a stamp of its
/// own, but none newer than that of the delete that follows in the same transaction, if one does.
pub(super) async fn trim(session: &mut Session, key: &Key, keep_last: u64, delete: Option<Stamp>) -> Result<u64> {
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.ends, |statement| statement.bind(key.as_str())).await?;
    let Some(row) = rows.first() else { return Ok(0) };
    let (first, next) = (record::number(row, 0)?, record::number(row, 1)?);
    let bound = next.saturating_sub(keep_last);
    if bound <= first {
        return Ok(0);
    }
    let stamp = session.clock.issue_after(record::stamp(row, 2)?.unwrap_or(Stamp::MIN));
    let stamp = delete.map_or(stamp, |delete| delete.min(stamp));
    let bound = i64::try_from(bound).unwrap_or(i64::MAX);
    let bind = |statement: Statement| statement.bind(key.as_str()).bind(bound).bind(stamp.to_bytes());
    let rows = session.write(&sql.trim, bind).await?;
    // Without a row, somebody else trimmed or deleted as much meanwhile.
    let Some(row) = rows.first() else { return Ok(0) };
    session.mark_unclean(key);
    record::number(row, 0)
}

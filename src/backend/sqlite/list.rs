//! Lists: a head that says which positions are live, and a row an item.

use std::collections::HashMap;

use rusqlite::{CachedStatement, ErrorCode, Row};

use crate::contract::{Append, AppendAck, Attempt, Item, ItemId, ListRange, Refused};
use crate::engine::sqlite::{SqlError, SqlResult};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;

use super::codec::{self, Columns};
use super::error::of_item;
use super::session::Session;

const HEAD: &str = "SELECT floor, max_stamp, first_position, next_position FROM list WHERE key = ?1";

// A delete that found no list left its stamp with the value, or as the tombstone.
const DELETED: &str = "SELECT CASE kind WHEN 0 THEN stamp ELSE floor END FROM kv WHERE key = ?1";

const PUT_HEAD: &str = "INSERT INTO list (key, floor, max_stamp, first_position, next_position) \
                        VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key) DO UPDATE SET floor = excluded.floor, \
                        max_stamp = excluded.max_stamp, first_position = excluded.first_position, \
                        next_position = excluded.next_position";

const FIND: &str = "SELECT position FROM item WHERE key = ?1 AND item_id = ?2";

const INSERT: &str = "INSERT INTO item (key, position, item_id, stamp, kind, json, bin) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (item_id, key) DO NOTHING";

const RANGE: &str = "SELECT position, item_id, kind, json, bin FROM item \
                     WHERE key = ?1 AND position BETWEEN ?2 AND ?3 ORDER BY position";

const EMPTY: &str = "UPDATE item SET stamp = ?4, kind = 0, json = NULL, bin = NULL \
                     WHERE key = ?1 AND position >= ?2 AND position < ?3";

const DELETE: &str = "DELETE FROM item WHERE key = ?1";

/// The head of a list: its items are the positions from `first` up to, not including, `next`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) floor: Stamp,
    pub(super) max_stamp: Stamp,
    pub(super) first: u64,
    pub(super) next: u64,
}

impl Head {
    /// Reads the head of a list; one that was emptied or deleted still has one.
    pub(super) fn of(session: &Session<'_>, key: &Key) -> SqlResult<Option<Self>> {
        let mut statement = session.connection.prepare_cached(HEAD)?;
        let mut rows = statement.query([key.as_str()])?;
        rows.next()?.map(Self::read).transpose()
    }

    /// As [`Head::of`]; where there is no list, one that begins with the last delete of the key as its floor.
    pub(super) fn to_append(session: &Session<'_>, key: &Key) -> SqlResult<Self> {
        if let Some(head) = Self::of(session, key)? {
            return Ok(head);
        }
        let mut statement = session.connection.prepare_cached(DELETED)?;
        let mut rows = statement.query([key.as_str()])?;
        let deleted = rows.next()?.and_then(|row| codec::stamp(row, 0).ok());
        Ok(Self { floor: deleted.unwrap_or(Stamp::MIN), ..Self::new() })
    }

    /// As [`Head::of`], for the delete that mends a corrupt list: what cannot be read of it counts as nothing.
    pub(super) fn to_delete(session: &Session<'_>, key: &Key) -> SqlResult<Option<Self>> {
        let mut statement = session.connection.prepare_cached(HEAD)?;
        let mut rows = statement.query([key.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some(Self::read(row).unwrap_or_else(|_| Self {
            floor: codec::stamp(row, 0).unwrap_or(Stamp::MIN),
            max_stamp: codec::stamp(row, 1).unwrap_or(Stamp::MIN),
            // There was something, whatever it was.
            first: 0,
            next: codec::number(row, 2).unwrap_or_default().max(codec::number(row, 3).unwrap_or_default()).max(1),
        })))
    }

    fn read(row: &Row<'_>) -> SqlResult<Self> {
        let (floor, max_stamp) = (codec::stamp(row, 0)?, codec::stamp(row, 1)?);
        let (first, next) = (codec::number(row, 2)?, codec::number(row, 3)?);
        if first > next {
            return Err(Error::corrupt("a list begins after its end; delete it to begin anew").into());
        }
        Ok(Self { floor, max_stamp, first, next })
    }

    const fn new() -> Self {
        Self { floor: Stamp::MIN, max_stamp: Stamp::MIN, first: 0, next: 0 }
    }

    pub(super) const fn length(&self) -> u64 {
        self.next - self.first
    }

    /// The stamp of the last delete, if there was one.
    pub(super) fn deleted(&self) -> Option<Stamp> {
        Some(self.floor).filter(|floor| *floor > Stamp::MIN)
    }

    pub(super) fn put(&self, session: &Session<'_>, key: &Key) -> SqlResult<()> {
        let Self { floor, max_stamp, first, next } = *self;
        let (first, next) = (codec::signed(first)?, codec::signed(next)?);
        let parameters = (key.as_str(), floor.to_bytes(), max_stamp.to_bytes(), first, next);
        session.connection.prepare_cached(PUT_HEAD)?.execute(parameters)?;
        Ok(())
    }
}

/// What an append takes of the queue.
pub(super) fn weight(append: &Append) -> usize {
    append.key.as_str().len() + append.item_id.as_str().len() + append.value.len()
}

/// Puts an item at the tail, unless the list has, or lately had, one of that id.
pub(super) fn append(session: &Session<'_>, append: &Append) -> SqlResult<AppendAck> {
    let mut tails = Tails::new(*session)?;
    let ack = tails.append(append)?;
    tails.put()?;
    Ok(ack)
}

/// Appends items in order, each with its own answer. The head of a list is read and written once.
pub(super) fn append_each(
    session: &Session<'_>,
    items: &[Append],
    refused: &mut Refused,
) -> SqlResult<Vec<Result<AppendAck>>> {
    let mut tails = Tails::new(*session)?;
    let mut one = |item| of_item(tails.append(item));
    let answers =
        items.iter().map(|item| refused.guard(&item.key, item.attempt, || one(item))).collect::<SqlResult<_>>()?;
    tails.put()?;
    Ok(answers)
}

/// Lists that are appended to, and how far. The items are written at once, the heads by [`Tails::put`].
struct Tails<'a> {
    session: Session<'a>,
    find: CachedStatement<'a>,
    insert: CachedStatement<'a>,
    heads: HashMap<&'a Key, Head>,
}

impl<'a> Tails<'a> {
    fn new(session: Session<'a>) -> SqlResult<Self> {
        let (find, insert) = (session.connection.prepare_cached(FIND)?, session.connection.prepare_cached(INSERT)?);
        Ok(Self { session, find, insert, heads: HashMap::new() })
    }

    fn append(&mut self, append: &'a Append) -> SqlResult<AppendAck> {
        let Append { key, value, item_id, stamp, attempt } = append;
        let head = match self.heads.get(key) {
            Some(head) => *head,
            None => Head::to_append(&self.session, key)?,
        };
        if *attempt == Attempt::Repeat
            && let Some(position) = self.find(append)?
        {
            return Ok(AppendAck::primary(position, true));
        }
        // Only a delete outvotes an append: the order of the items is that of their commits, whatever their clocks say.
        let stamp = self.session.newer_than(Some(head.floor), *stamp, *attempt)?;
        let Columns { kind, json, bin } = Columns::from(value);
        let position = codec::signed(head.next)?;
        let parameters = (key.as_str(), position, item_id.as_str(), stamp.to_bytes(), kind, json, bin);
        if self.insert.execute(parameters).map_err(position_is_taken)? == 0 {
            let gone = || Error::internal("an item that was in the way of another could not be found");
            return Ok(AppendAck::primary(self.find(append)?.ok_or_else(gone)?, true));
        }
        self.heads.insert(key, Head { max_stamp: head.max_stamp.max(stamp), next: head.next + 1, ..head });
        Ok(AppendAck::primary(head.next, false))
    }

    /// The position of an item that has the id already.
    fn find(&mut self, append: &Append) -> SqlResult<Option<u64>> {
        let parameters = (append.key.as_str(), append.item_id.as_str());
        let mut rows = self.find.query(parameters)?;
        rows.next()?.map(|row| codec::number(row, 0)).transpose()
    }

    /// Writes how far the lists go now.
    fn put(self) -> SqlResult<()> {
        self.heads.iter().try_for_each(|(key, head)| head.put(&self.session, key))
    }
}

/// Whether the list has, or lately had, an item of an id.
pub(super) fn knows(session: &Session<'_>, key: &Key, id: &ItemId) -> SqlResult<bool> {
    Ok(session.connection.prepare_cached(FIND)?.exists((key.as_str(), id.as_str()))?)
}

/// Puts an item of an unknown id at the tail, under the stamp it has.
pub(super) fn push(session: &Session<'_>, append: &Append, head: Head) -> SqlResult<()> {
    let Append { key, value, item_id, stamp, .. } = append;
    let Columns { kind, json, bin } = Columns::from(value);
    let position = codec::signed(head.next)?;
    let parameters = (key.as_str(), position, item_id.as_str(), stamp.to_bytes(), kind, json, bin);
    session.connection.prepare_cached(INSERT)?.execute(parameters).map_err(position_is_taken)?;
    Head { max_stamp: head.max_stamp.max(*stamp), next: head.next + 1, ..head }.put(session, key)
}

/// Reads items in order. It costs what it returns, wherever in the list that is.
pub(super) fn range(session: &Session<'_>, key: &Key, range: ListRange) -> SqlResult<Vec<Item>> {
    let head = Head::of(session, key)?.unwrap_or(Head::new());
    let Some((start, end)) = range.resolve(head.length()) else { return Ok(Vec::new()) };
    let (first, last) = (codec::signed(head.first + start)?, codec::signed(head.first + end)?);
    let mut statement = session.connection.prepare_cached(RANGE)?;
    let mut rows = statement.query((key.as_str(), first, last))?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let id = ItemId::parse(row.get::<_, String>(1)?)
            .map_err(|error| Error::corrupt("a stored item has an unreadable id").with_source(error))?;
        let value = codec::value(row, 2)?.ok_or_else(gap)?;
        items.push(Item::new(codec::number(row, 0)?, id, value));
    }
    if items.len() as u64 == end - start + 1 { Ok(items) } else { Err(gap().into()) }
}

/// An item at a position that the head does not know of makes the list corrupt, and nothing else.
fn position_is_taken(error: rusqlite::Error) -> SqlError {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        return Error::corrupt("the list has items beyond its count; delete it to begin anew")
            .with_source(error)
            .into();
    }
    error.into()
}

fn gap() -> Error {
    Error::corrupt("the list lacks items that were stored in it")
}

/// Counts the items.
pub(super) fn length(session: &Session<'_>, key: &Key) -> SqlResult<u64> {
    Ok(Head::of(session, key)?.map_or(0, |head| head.length()))
}

/// Cuts a list to its last items. Those that go keep their ids for a while.
pub(super) fn trim(session: &Session<'_>, key: &Key, keep_last: u64) -> SqlResult<u64> {
    let Some(head) = Head::of(session, key)? else { return Ok(0) };
    let trimmed = head.length().saturating_sub(keep_last);
    if trimmed == 0 {
        return Ok(0);
    }
    let first = head.first + trimmed;
    // The items carry the trim's stamp from now on, so that their ids stay for the whole retention. It is not the list's: a delete that
    // follows in the same transaction is stamped already, and goes past what was appended.
    let stamp = session.stamps.issue_after(head.max_stamp);
    let parameters = (key.as_str(), codec::signed(head.first)?, codec::signed(first)?, stamp.to_bytes());
    session.connection.prepare_cached(EMPTY)?.execute(parameters)?;
    Head { first, ..head }.put(session, key)?;
    Ok(trimmed)
}

/// Removes all items and ids. The head stays and goes on counting where it stopped.
pub(super) fn delete(session: &Session<'_>, key: &Key, head: Head, stamp: Stamp) -> SqlResult<()> {
    session.connection.prepare_cached(DELETE)?.execute([key.as_str()])?;
    Head { floor: stamp, max_stamp: stamp, first: head.next, ..head }.put(session, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sqlite::migrate;
    use rusqlite::Connection;

    #[test]
    fn an_item_is_found_by_its_id_and_a_range_in_order() {
        let connection = Connection::open_in_memory().unwrap();
        (migrate::LAYOUT.migrate)(&connection).unwrap();
        for (statement, search) in [(FIND, "(item_id=? AND key=?)"), (RANGE, "(key=? AND position>? AND position<?)")] {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            let mut rows = plan.raw_query();
            let mut steps = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                steps.push(row.get::<_, String>(3).unwrap());
            }
            assert!(steps.len() == 1 && steps[0].contains(search), "{steps:?}");
        }
    }
}

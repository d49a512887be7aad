//! What a replayed delete does to a list: what is newer than it, and not our own, stays.

use crate::contract::{ItemId, LostOperation, ReplayDecision};
use crate::engine::sqlite::SqlResult;
use crate::error::Error;
use crate::key::Key;
use crate::stamp::Stamp;

use super::codec;
use super::conflict;
use super::list::Head;
use super::replay::{Replay, Standing};

// Beneath a value, the delete of a list that there is not, or not yet.
const RAISE_FLOOR: &str = "UPDATE kv SET floor = ?2 WHERE key = ?1 AND kind <> 0 AND (floor IS NULL OR floor < ?2)";

const ITEM_STAMPS: &str = "SELECT position, stamp FROM item WHERE key = ?1 AND position >= ?2 AND position < ?3 \
                           ORDER BY position";

const ITEM: &str = "SELECT item_id, kind, json, bin FROM item WHERE key = ?1 AND position = ?2";

const DELETE_ITEM: &str = "DELETE FROM item WHERE key = ?1 AND position = ?2";

const MOVE_ITEM: &str = "UPDATE item SET position = ?3 WHERE key = ?1 AND position = ?2";

// The id of an item trimmed later is still to be known.
const DELETE_ALL: &str = "DELETE FROM item WHERE key = ?1 AND NOT (kind = 0 AND stamp > ?2)";

const DELETE_TRIMMED: &str = "DELETE FROM item WHERE key = ?1 AND kind = 0 AND stamp <= ?2";

/// What a delete does to a list.
#[derive(Debug, Default)]
pub(super) struct Sentence {
    /// Whether items that it beats go, and its stamp becomes the floor.
    applies: bool,
    head: Option<Head>,
    /// The positions of the items that go, if some stay, and those of the items that stay.
    gone: Vec<u64>,
    stay: Vec<u64>,
    /// The items of others that go, which were appended meanwhile.
    overwritten: Vec<(Stamp, LostOperation)>,
    /// The newest stamp of what stays of others.
    pub(super) winner: Option<Stamp>,
}

impl Sentence {
    /// Whether any item goes.
    pub(super) fn removes(&self) -> bool {
        self.applies && self.head.is_some_and(|head| head.length() > self.stay.len() as u64)
    }
}

impl Replay<'_> {
    pub(super) fn judge_list(&self, key: &Key, stamp: Stamp, standing: Option<Standing>) -> SqlResult<Sentence> {
        let head = Head::to_delete(self.session, key)?;
        let floor = match head {
            Some(head) => head.deleted(),
            None => standing.and_then(|standing| standing.floor),
        };
        let mut sentence = Sentence { head, ..Sentence::default() };
        match self.judge(stamp, floor) {
            ReplayDecision::Skip => return Ok(sentence),
            ReplayDecision::Lose { winner } => {
                sentence.winner = Some(winner);
                return Ok(sentence);
            }
            ReplayDecision::Apply { .. } => sentence.applies = true,
        }
        // Where nobody changed the list since the outage began, all of it goes.
        if let Some(head) = head.filter(|head| head.length() > 0 && head.max_stamp >= self.options.since.min(stamp)) {
            self.judge_items(key, stamp, head, &mut sentence)?;
        }
        Ok(sentence)
    }

    fn judge_items(&self, key: &Key, stamp: Stamp, head: Head, sentence: &mut Sentence) -> SqlResult<()> {
        let mut statement = self.session.connection.prepare_cached(ITEM_STAMPS)?;
        let (first, next) = (codec::signed(head.first)?, codec::signed(head.next)?);
        let mut rows = statement.query((key.as_str(), first, next))?;
        while let Some(row) = rows.next()? {
            // An item whose stamp was corrupted goes with the oldest.
            let (position, appended) = (codec::number(row, 0)?, codec::stamp(row, 1).unwrap_or(Stamp::MIN));
            match self.judge(stamp, Some(appended)) {
                ReplayDecision::Apply { keep_overwritten } => {
                    sentence.gone.push(position);
                    if keep_overwritten {
                        sentence.overwritten.push((appended, self.item(key, position)?));
                    }
                }
                ReplayDecision::Skip => sentence.stay.push(position),
                ReplayDecision::Lose { winner } => {
                    sentence.stay.push(position);
                    sentence.winner = sentence.winner.max(Some(winner));
                }
            }
        }
        Ok(())
    }

    fn item(&self, key: &Key, position: u64) -> SqlResult<LostOperation> {
        let unreadable = || Error::corrupt("an item that was overwritten cannot be read");
        let mut statement = self.session.connection.prepare_cached(ITEM)?;
        let mut rows = statement.query((key.as_str(), codec::signed(position)?))?;
        let row = rows.next()?.ok_or_else(unreadable)?;
        let item_id = ItemId::parse(row.get::<_, String>(0)?).map_err(|error| unreadable().with_source(error))?;
        Ok(LostOperation::Append { value: codec::value(row, 1)?.ok_or_else(unreadable)?, item_id })
    }

    /// Does to a list what was judged.
    ///
    /// Its live items are all positions from the first to the next, so those that stay behind a gap move to the tail.
    pub(super) fn execute(&self, key: &Key, stamp: Stamp, list: Sentence) -> SqlResult<()> {
        if !list.applies {
            return Ok(());
        }
        let connection = self.session.connection;
        let Some(mut head) = list.head else {
            connection.prepare_cached(RAISE_FLOOR)?.execute((key.as_str(), stamp.to_bytes()))?;
            return Ok(());
        };
        for (appended, lost) in &list.overwritten {
            conflict::keep(self.session, key, *appended, lost, stamp)?;
        }
        if list.stay.is_empty() {
            connection.prepare_cached(DELETE_ALL)?.execute((key.as_str(), stamp.to_bytes()))?;
            head.first = head.next;
        } else {
            connection.prepare_cached(DELETE_TRIMMED)?.execute((key.as_str(), stamp.to_bytes()))?;
            let mut delete = connection.prepare_cached(DELETE_ITEM)?;
            for position in &list.gone {
                delete.execute((key.as_str(), codec::signed(*position)?))?;
            }
            head = self.close_gaps(key, head, &list.stay)?;
        }
        head.floor = head.floor.max(stamp);
        head.max_stamp = head.max_stamp.max(stamp);
        head.put(self.session, key)
    }

    fn close_gaps(&self, key: &Key, mut head: Head, stay: &[u64]) -> SqlResult<Head> {
        let (first, count) = (stay.first().copied().unwrap_or(head.next), stay.len() as u64);
        if head.next - first == count {
            head.first = first;
            return Ok(head);
        }
        head.first = head.next;
        let mut statement = self.session.connection.prepare_cached(MOVE_ITEM)?;
        for position in stay {
            statement.execute((key.as_str(), codec::signed(*position)?, codec::signed(head.next)?))?;
            head.next += 1;
        }
        Ok(head)
    }
}

//! Batches as the statements take them: cut up, each key once, sorted, a column an array.

use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;
use crate::time::Ttl;
use crate::value::{Format, Value};

/// The most rows of one statement.
pub(super) const MAX_ROWS: usize = 1000;

/// The most bytes of values of one statement. A message of the protocol, and an array, may have 1 GiB.
const MAX_BYTES: usize = 16 << 20;

/// Cuts items up so that each piece fits into one statement.
pub(super) fn chunks<T>(items: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut room = 0_usize;
    for item in items {
        let size = bytes(&item);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < MAX_ROWS && size <= room => {
                room -= size;
                chunk.push(item);
            }
            _ => {
                room = MAX_BYTES.saturating_sub(size);
                chunks.push(vec![item]);
            }
        }
    }
    chunks
}

/// Sorts the indices of items into rounds, each sorted by name: each round has each name at most once, and those of one name
/// come in order.
pub(super) fn rounds<N: Ord + Copy>(names: &[N]) -> Vec<Vec<usize>> {
    let mut sorted: Vec<(N, usize)> = names.iter().copied().zip(0..).collect();
    sorted.sort_unstable();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for alike in sorted.chunk_by(|a, b| a.0 == b.0) {
        for (nth, (_, index)) in alike.iter().enumerate() {
            match rounds.get_mut(nth) {
                Some(round) => round.push(*index),
                None => {
                    // Nearly always there is one round.
                    let mut round = Vec::with_capacity(if nth == 0 { names.len() } else { 1 });
                    round.push(*index);
                    rounds.push(round);
                }
            }
        }
    }
    rounds
}

/// The keys' texts, sorted, each once.
pub(super) fn distinct<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Vec<&'a str> {
    let mut texts: Vec<&str> = keys.into_iter().map(Key::as_str).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// Finds texts among sorted ones: at once while they come in the same order, as the rows of a statement do.
#[derive(Debug, Default)]
pub(super) struct Finder {
    next: usize,
}

impl Finder {
    /// The index of what stands for this text among items that are sorted by their texts.
    pub(super) fn find<T>(&mut self, items: &[T], text: &str, of: impl Fn(&T) -> &str) -> Option<usize> {
        let found = match items.get(self.next) {
            Some(item) if of(item) == text => self.next,
            _ => items.binary_search_by(|item| of(item).cmp(text)).ok()?,
        };
        self.next = found + 1;
        Some(found)
    }
}

/// The columns of rows that carry values.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    pub(super) keys: Vec<&'a str>,
    pub(super) stamps: Vec<[u8; 16]>,
    ttls: Vec<Option<i64>>,
    json: Vec<Option<&'a str>>,
    bin: Vec<Option<&'a [u8]>>,
}

impl<'a> Columns<'a> {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self {
            keys: Vec::with_capacity(rows),
            stamps: Vec::with_capacity(rows),
            ttls: Vec::with_capacity(rows),
            json: Vec::with_capacity(rows),
            bin: Vec::with_capacity(rows),
        }
    }

    /// Adds a row; one without a value is a tombstone's.
    pub(super) fn push(&mut self, key: &'a Key, stamp: Stamp, value: Option<(&'a Value, Option<Ttl>)>) -> Result<()> {
        let (json, bin) = match value {
            Some((value, _)) if value.format() == Format::Json => (Some(json_text(value)?), None),
            Some((value, _)) => (None, Some(value.as_bytes())),
            None => (None, None),
        };
        self.keys.push(key.as_str());
        self.stamps.push(stamp.to_bytes());
        self.ttls.push(value.and_then(|(_, ttl)| ttl).map(millis));
        self.json.push(json);
        self.bin.push(bin);
        Ok(())
    }

    /// Lets the row that was pushed last end when it would have ended.
    pub(super) fn keep_expiry(&mut self) {
        if let Some(ttl) = self.ttls.last_mut() {
            *ttl = Some(KEEP_EXPIRY);
        }
    }

    /// The column of TTLs.
    pub(super) fn ttls(&self) -> Option<&[Option<i64>]> {
        unless_empty(&self.ttls)
    }

    /// The column of JSON values.
    pub(super) fn json(&self) -> Option<&[Option<&'a str>]> {
        unless_empty(&self.json)
    }

    /// The column of binary values.
    pub(super) fn bin(&self) -> Option<&[Option<&'a [u8]>]> {
        unless_empty(&self.bin)
    }

    /// The only row, if there is but one.
    pub(super) fn only(&self) -> Option<Row<'a>> {
        match (&*self.keys, &*self.stamps, &*self.ttls, &*self.json, &*self.bin) {
            ([key], [stamp], [ttl], [json], [bin]) => {
                Some(Row { key, stamp: *stamp, ttl: *ttl, json: *json, bin: *bin })
            }
            _ => None,
        }
    }
}

/// A column of NULLs is sent as one NULL.
fn unless_empty<T>(column: &[Option<T>]) -> Option<&[Option<T>]> {
    column.iter().any(Option::is_some).then_some(column)
}

/// One row that carries a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) key: &'a str,
    pub(super) stamp: [u8; 16],
    pub(super) ttl: Option<i64>,
    pub(super) json: Option<&'a str>,
    pub(super) bin: Option<&'a [u8]>,
}

/// What stands in the place of a TTL where the entry keeps its expiry; the statement knows it as a negative one.
const KEEP_EXPIRY: i64 = -1;

/// A TTL in the server's unit; the longest fits by far.
pub(super) fn millis(ttl: Ttl) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
}

/// The text of a JSON value.
pub(super) fn json_text(value: &Value) -> Result<&str> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| Error::invalid_value("a JSON value must be UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_each_name_once_and_keeps_their_order() {
        assert_eq!(rounds(&["b", "a", "b", "b", "a"]), [vec![1, 0], vec![4, 2], vec![3]]);
        assert!(rounds::<u8>(&[]).is_empty());
    }

    #[test]
    fn a_text_is_found_in_any_order() {
        let texts = ["a", "b", "d"];
        let mut finder = Finder::default();
        let mut find = |text| finder.find(&texts, text, |text| text);
        assert_eq!(
            ["a", "b", "c", "d", "a", "d", "e"].map(&mut find),
            [Some(0), Some(1), None, Some(2), Some(0), Some(2), None]
        );
    }

    #[test]
    fn a_column_without_a_value_is_not_sent() {
        let (key, value) = (Key::parse("a").unwrap(), Value::json("{}").unwrap());
        let mut columns = Columns::with_capacity(2);
        columns.push(&key, Stamp::MIN, Some((&value, None))).unwrap();
        assert!(columns.only().is_some_and(|row| row.json == Some("{}")));
        columns.push(&key, Stamp::MIN, None).unwrap();
        assert_eq!(columns.json(), Some(&[Some("{}"), None][..]));
        assert!(columns.ttls().is_none() && columns.bin().is_none() && columns.only().is_none());
    }

    #[test]
    fn a_chunk_is_bounded_by_rows_and_bytes() {
        let sizes = |items: Vec<usize>| chunks(items, |size| *size).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![0; MAX_ROWS + 1]), [MAX_ROWS, 1]);
        assert_eq!(sizes(vec![MAX_BYTES / 2, MAX_BYTES / 2, 1]), [2, 1]);
        assert_eq!(sizes(vec![4 * MAX_BYTES, 1]), [1, 1]);
    }

    #[test]
    fn distinct_keys_are_in_byte_order() {
        let keys = ["b", "a", "B", "ü", "a"].map(|text| Key::parse(text).unwrap());
        assert_eq!(distinct(&keys), ["B", "a", "b", "ü"]);
    }
}

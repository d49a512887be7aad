//! Batches as the statements take them: cut up, each key once, sorted, a column an array.

use std::collections::HashMap;
use std::hash::Hash;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;
use crate::time::Ttl;
use crate::value::{Format, Value};

/// The most rows of one statement.
const MAX_ROWS: usize = 1000;

/// The most bytes of values of one statement. A message of the protocol, and an array, may have 1 GiB.
const MAX_BYTES: usize = 16 << 20;

/// The number in the column `kind` of a row without a value.
pub(super) const TOMBSTONE: i16 = 0;

/// The number in the column `kind` of a row with this value.
pub(super) const fn kind_of(value: &Value) -> i16 {
    match value.format() {
        Format::Json => 1,
        Format::Binary => 2,
    }
}

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

/// Sorts the indices of items into rounds: each round has each name at most once, and those of one name come in order.
pub(super) fn rounds<N: Eq + Hash>(names: impl IntoIterator<Item = N>) -> Vec<Vec<usize>> {
    let mut seen: HashMap<N, usize> = HashMap::new();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let round = seen.entry(name).and_modify(|round| *round += 1).or_insert(0);
        match rounds.get_mut(*round) {
            Some(round) => round.push(index),
            None => rounds.push(vec![index]),
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

/// The columns of rows that carry values.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) keys: Vec<&'a str>,
    pub(super) stamps: Vec<[u8; 16]>,
    pub(super) kinds: Vec<i16>,
    pub(super) ttls: Vec<Option<i64>>,
    pub(super) json: Vec<Option<&'a str>>,
    pub(super) bin: Vec<Option<&'a [u8]>>,
}

impl<'a> Columns<'a> {
    /// Adds a row; one without a value is a tombstone's.
    pub(super) fn push(&mut self, key: &'a Key, stamp: Stamp, value: Option<(&'a Value, Option<Ttl>)>) -> Result<()> {
        let (json, bin) = match value {
            Some((value, _)) if value.format() == Format::Json => (Some(json_text(value)?), None),
            Some((value, _)) => (None, Some(value.as_bytes())),
            None => (None, None),
        };
        self.keys.push(key.as_str());
        self.stamps.push(stamp.to_bytes());
        self.kinds.push(value.map_or(TOMBSTONE, |(value, _)| kind_of(value)));
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
}

/// What stands in the place of a TTL where the entry keeps its expiry; the statement knows it as a negative one.
const KEEP_EXPIRY: i64 = -1;

/// A TTL in the server's unit; the longest fits by far.
pub(super) fn millis(ttl: Ttl) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
}

fn json_text(value: &Value) -> Result<&str> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| Error::invalid_value("a JSON value must be UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_each_name_once_and_keeps_their_order() {
        assert_eq!(rounds(["a", "b", "a", "a", "b"]), [vec![0, 1], vec![2, 4], vec![3]]);
        assert!(rounds(Vec::<u8>::new()).is_empty());
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

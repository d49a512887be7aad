//! A journal in memory, for those who accept that what is owed is lost with the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;

use crate::contract::{Durability, Identity, Succession};
use crate::error::{Error, Result};
use crate::stamp::Stamp;

use super::operation::{Episode, Exported, Header, Meta, Operation};
use super::room::Room;
use super::store::Journal;

/// Operations in memory, bounded by bytes.
#[derive(Debug)]
pub(crate) struct VolatileJournal {
    state: Mutex<State>,
    room: Room,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<u64, Entry>,
    last_seq: u64,
    bytes: u64,
    meta: Meta,
    episode: Episode,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    operation: Operation,
    parked: Option<String>,
}

impl VolatileJournal {
    /// Makes an empty journal that may hold so many bytes.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { state: Mutex::default(), room: Room::new(max_bytes) }
    }

    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(Error::closed()) } else { Ok(state) }
    }
}

impl State {
    fn begin(&mut self, since: Stamp) {
        self.episode.since = Some(self.episode.since.map_or(since, |earlier| earlier.min(since)));
    }

    fn end_if_settled(&mut self) {
        if self.entries.values().all(|entry| entry.parked.is_some()) {
            self.episode.since = None;
        }
    }

    fn after(&self, after: u64) -> impl Iterator<Item = (&u64, &Entry)> {
        self.entries.range((Bound::Excluded(after), Bound::Unbounded))
    }
}

fn size(operation: &Operation) -> u64 {
    u64::try_from(operation.size()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Journal for VolatileJournal {
    async fn append(&self, operations: Vec<Operation>, since: Stamp, _deadline: Instant) -> Result<Vec<u64>> {
        let mut state = self.open()?;
        let bytes = operations.iter().map(size).sum();
        self.room.check(bytes)?;
        state.begin(since);
        state.bytes += bytes;
        self.room.set_used(state.bytes);
        let keep = |operation| {
            state.last_seq += 1;
            let seq = state.last_seq;
            state.entries.insert(seq, Entry { operation, parked: None });
            seq
        };
        Ok(operations.into_iter().map(keep).collect())
    }

    async fn read(&self, seq: u64) -> Result<Option<Operation>> {
        Ok(self.open()?.entries.get(&seq).map(|entry| entry.operation.clone()))
    }

    async fn read_many(&self, seqs: Vec<u64>, max_bytes: usize) -> Result<Vec<(u64, Operation)>> {
        let state = self.open()?;
        let found = seqs.into_iter().filter_map(|seq| Some((seq, state.entries.get(&seq)?.operation.clone())));
        Ok(within(found, max_bytes, |(_, operation)| operation))
    }

    async fn settle(&self, done: Vec<u64>, parked: Vec<(u64, String)>) -> Result<()> {
        let mut state = self.open()?;
        for seq in done {
            if let Some(entry) = state.entries.remove(&seq) {
                state.bytes -= size(&entry.operation);
            }
        }
        for (seq, reason) in parked {
            if let Some(entry) = state.entries.get_mut(&seq) {
                entry.parked = Some(reason);
            }
        }
        state.end_if_settled();
        self.room.set_used(state.bytes);
        Ok(())
    }

    async fn unpark(&self, seqs: Vec<u64>) -> Result<()> {
        let mut state = self.open()?;
        for seq in seqs {
            let parked = state.entries.get_mut(&seq).filter(|entry| entry.parked.is_some());
            if let Some(entry) = parked {
                entry.parked = None;
                let stamp = entry.operation.stamp;
                state.begin(stamp);
            }
        }
        Ok(())
    }

    async fn drop_parked(&self, seq: u64) -> Result<bool> {
        let mut state = self.open()?;
        if state.entries.get(&seq).is_none_or(|entry| entry.parked.is_none()) {
            return Ok(false);
        }
        if let Some(entry) = state.entries.remove(&seq) {
            state.bytes -= size(&entry.operation);
        }
        state.end_if_settled();
        self.room.set_used(state.bytes);
        Ok(true)
    }

    async fn episode(&self) -> Result<Episode> {
        Ok(self.open()?.episode.clone())
    }

    async fn add_succession(&self, added: Succession) -> Result<()> {
        let mut state = self.open()?;
        added.iter().for_each(|(heir, predecessor, from)| state.episode.succession.add(heir, predecessor, from));
        Ok(())
    }

    async fn headers(&self, after: u64, limit: usize) -> Result<Vec<Header>> {
        let header = |(seq, entry): (&u64, &Entry)| {
            let Operation { stamp, action } = &entry.operation;
            Header::new(*seq, *stamp, action.effect(), entry.parked.as_deref())
        };
        Ok(self.open()?.after(after).take(limit).map(header).collect())
    }

    async fn export(&self, after: u64, limit: usize, max_bytes: usize) -> Result<Vec<Exported>> {
        let state = self.open()?;
        let found = state.after(after).take(limit).map(|(seq, entry)| Exported {
            seq: *seq,
            operation: entry.operation.clone(),
            parked: entry.parked.clone(),
        });
        Ok(within(found, max_bytes, |exported| &exported.operation))
    }

    async fn meta(&self) -> Result<Meta> {
        Ok(self.open()?.meta.clone())
    }

    async fn set_meta(&self, meta: Meta) -> Result<()> {
        self.open()?.meta = meta;
        Ok(())
    }

    async fn accepted(&self) -> Option<Identity> {
        None
    }

    async fn forget_accepted(&self) {}

    fn durability(&self) -> Durability {
        Durability::Volatile
    }

    fn bytes(&self) -> u64 {
        self.room.used()
    }

    fn is_full(&self) -> bool {
        self.room.is_full()
    }

    async fn close(&self, _deadline: Instant) -> Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        Ok(())
    }
}

/// The first ones, up to so many bytes of values but at least one.
fn within<T>(found: impl Iterator<Item = T>, max_bytes: usize, operation: impl Fn(&T) -> &Operation) -> Vec<T> {
    let mut bytes = 0_usize;
    let mut taken = Vec::new();
    for one in found {
        bytes = bytes.saturating_add(operation(&one).value_bytes());
        if bytes > max_bytes && !taken.is_empty() {
            break;
        }
        taken.push(one);
    }
    taken
}

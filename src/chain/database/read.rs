//! Reads of values, lists and listings.
//!
//! | | key not owed | key owed |
//! |---|---|---|
//! | get | closed: the primary; open: unavailable | what is owed, marked as pending; closed: or the primary's, where that is newer |
//! | exists | closed: the primary; open: unavailable | by what is owed |
//! | range, length | closed: the primary; open: unavailable | after a pending delete: empty; else unavailable |
//! | list, count | closed: the primary; open: unavailable | unavailable |
//!
//! A delete that was taken over from another process is no answer while the primary can be asked: somebody may have written since. A
//! newer delete at the primary has no stamp that a read shows, and is not seen before the replay.

use crate::chain::core::{Core, still_owed};
use crate::chain::gate::{Answer, Attempt, Call, away};
use crate::chain::journal::Action;
use crate::chain::owed::{OwedList, OwedValue};
use crate::config::OutageReads;
use crate::contract::{Context, Entry, Freshness, GetOptions, Item, KeyPage, ListOptions, ListRange, Lookup};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};
use crate::revision::Revision;
use crate::stamp::Stamp;

use super::item::{is_live, is_there};

/// How often a read looks again at what is owed, because it was paid just then.
const LOOKS: usize = 8;

/// What is owed of a value.
struct OwedLookup {
    lookup: Lookup,
    stamp: Stamp,
}

pub(super) async fn get(core: &Core, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
    core.admit(cx)?;
    let owed = if core.owes_anything() { owed_value(core, key, options, cx).await? } else { None };
    let with_revision = with_revision(options);
    let asked = read(core, core.primary.get(key, &with_revision, cx));
    let asked = match &owed {
        None => Some(asked.await),
        Some(_) if core.is_open() => None,
        Some(_) => before_suspicion(core, cx, asked).await,
    };
    newest(core, key, owed, asked)
}

pub(super) async fn get_many(core: &Core, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
    let owed = |key: Key| async move { owed_value(core, &key, options, cx).await };
    let ask_for_owed = !core.is_open();
    let send = |keys: Vec<Key>| async move { core.primary.get_many(&keys, &with_revision(options), cx).await };
    in_part(core, keys, cx, owed, ask_for_owed, send, |key, owed, asked| newest(core, key, owed, asked)).await
}

/// Waits for the primary to say whether it has something newer than what is owed, until it would be suspect: there is an answer already.
async fn before_suspicion<T>(core: &Core, cx: &Context, asked: impl Future<Output = T>) -> Option<T> {
    let patience = core.gate.suspect_after().min(cx.remaining() / 2);
    Context::with_timeout(patience).limit(asked).await
}

/// What the primary says where nothing is owed. Else what is owed, unless what the primary has is newer: somebody wrote it meanwhile.
fn newest(core: &Core, key: &Key, owed: Option<OwedLookup>, asked: Option<Result<Lookup>>) -> Result<Lookup> {
    let asked = asked.map(|answer| learned(core, answer));
    let Some(owed) = owed else { return guessed_of(core, key, asked.unwrap_or_else(unanswered), missing) };
    let asked = asked.unwrap_or_else(|| Err(still_owed()));
    let newer = match &asked {
        Ok(Lookup::Found(entry)) => entry.revision.to_stamp().filter(|stamp| owed.stamp < *stamp),
        _ => None,
    };
    match (newer, asked) {
        (Some(stamp), asked) if core.change_owed(|owed| owed.note_newer(key, stamp)) => asked,
        (Some(_), _) => Err(still_owed()),
        // Nobody says that nothing was written since.
        (None, Err(error)) if !owed.lookup.is_found() && !core.trusts_delete(owed.stamp) => Err(error),
        _ => Ok(owed.lookup),
    }
}

pub(super) async fn exists(core: &Core, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
    let owed = |key: Key| async move { owed_existence(core, &key, cx).await };
    let send = |keys: Vec<Key>| async move { core.primary.exists(&keys, cx).await };
    let answer = |key: &Key, owed: Option<bool>, asked: Option<Result<bool>>| match owed {
        Some(there) => Ok(there),
        None => guessed_of(core, key, asked.unwrap_or_else(unanswered), || false),
    };
    in_part(core, keys, cx, owed, false, send, answer).await
}

/// The clock learns from the revision, whoever else does without it.
const fn with_revision(options: &GetOptions) -> GetOptions {
    GetOptions { without_revision: false, ..*options }
}

/// Looks up what is owed, and asks the primary for the rest in one batch, with `ask_for_owed` for what is owed in another; `answer` is
/// told of both.
async fn in_part<K, T, O, F>(
    core: &Core,
    keys: &[Key],
    cx: &Context,
    owed: impl Fn(Key) -> O + Send + Sync,
    ask_for_owed: bool,
    send: impl Fn(Vec<Key>) -> F + Send + Sync,
    answer: impl Fn(&Key, Option<K>, Option<Result<T>>) -> Result<T> + Send,
) -> Vec<Result<T>>
where
    K: Send + Sync,
    T: Send,
    O: Future<Output = Result<Option<K>>> + Send,
    F: Future<Output = Vec<Result<T>>> + Send,
{
    if let Err(error) = core.admit(cx) {
        return keys.iter().map(|_| Err(error.clone())).collect();
    }
    let mut found: Vec<Result<Option<K>>> = keys.iter().map(|_| Ok(None)).collect();
    if core.owes_anything() {
        for (key, found) in keys.iter().zip(&mut found) {
            *found = owed(key.clone()).await;
        }
    }
    let of = |is_owed: bool| {
        let of = |found: &Result<Option<K>>| found.as_ref().is_ok_and(|found| found.is_some() == is_owed);
        keys.iter().zip(&found).filter(|(_, found)| of(found)).map(|(key, _)| key.clone()).collect::<Vec<Key>>()
    };
    let (others, owed) = (of(false), if ask_for_owed { of(true) } else { Vec::new() });
    let ask = async |keys: Vec<Key>| match keys.len() {
        0 => Vec::new(),
        count => reads(core, count, send(keys)).await,
    };
    let (others, owed) = tokio::join!(ask(others), before_suspicion(core, cx, ask(owed)));
    let (mut others, mut owed) = (others.into_iter(), owed.into_iter().flatten());
    let found = keys.iter().zip(found);
    found
        .map(|(key, found)| {
            let found = found?;
            let asked = if found.is_some() { owed.next() } else { others.next() };
            answer(key, found, asked)
        })
        .collect()
}

fn unanswered<T>() -> Result<T> {
    Err(Error::internal("a key of a batch was not answered"))
}

/// Looks into the journal for no longer than the caller waits.
async fn in_time<T>(cx: &Context, look: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Err(Error::unavailable("the journal could not be read before the deadline"));
    cx.limit(look).await.unwrap_or_else(late)
}

/// What is owed of a value, read from the journal.
async fn owed_value(core: &Core, key: &Key, options: &GetOptions, cx: &Context) -> Result<Option<OwedLookup>> {
    in_time(cx, look_up(core, key, options, cx)).await
}

async fn look_up(core: &Core, key: &Key, options: &GetOptions, cx: &Context) -> Result<Option<OwedLookup>> {
    for _ in 0..LOOKS {
        let Some(owed) = core.owed().value(key) else { return Ok(None) };
        let lookup = Lookup::Missing { freshness: Freshness::LocalPending };
        let (seq, stamp, expires_at) = match owed {
            OwedValue::Put { seq, stamp, expires_at } => (seq, stamp, expires_at),
            OwedValue::Deleted { stamp } => return Ok(Some(OwedLookup { lookup, stamp })),
            OwedValue::Unsettled => return Err(core.still_owed(key, cx).await),
        };
        if is_live(owed, core.clock.now()) == Some(false) {
            return Ok(Some(OwedLookup { lookup, stamp }));
        }
        let Some(journal) = &core.journal else { return Err(Error::internal("something is owed without a journal")) };
        // What is not there any more was replayed just now.
        let Some(operation) = journal.read(seq).await? else { continue };
        let Action::Put { value, .. } = operation.action else {
            return Err(Error::corrupt("the journal holds another operation than was journaled"));
        };
        let mut entry = Entry::new(value, Revision::from_stamp(stamp));
        if options.expiry {
            entry = entry.with_expiry(expires_at);
        }
        entry.freshness = Freshness::LocalPending;
        return Ok(Some(OwedLookup { lookup: Lookup::Found(entry), stamp }));
    }
    Err(Error::unavailable("what is owed under the key changes faster than it can be read"))
}

/// Whether a value or a list is there by what is owed; `None` where the primary knows.
async fn owed_existence(core: &Core, key: &Key, cx: &Context) -> Result<Option<bool>> {
    let (value, list) = {
        let owed = core.owed();
        (owed.value(key), owed.list(key))
    };
    let there = value.and_then(|value| is_there(core, value, core.clock.now()));
    match (there, list) {
        (Some(true), _) | (_, Some(OwedList::Appended)) => Ok(Some(true)),
        (Some(false), Some(OwedList::Deleted { stamp })) if core.trusts_delete(stamp) => Ok(Some(false)),
        (None, None) if value.is_none() => Ok(None),
        // One of the two is known, or neither; the primary cannot be asked for the other alone.
        _ => Err(core.still_owed(key, cx).await),
    }
}

pub(super) async fn range(core: &Core, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
    let answer = match owed_list(core, key, cx).await? {
        Some(empty) => Ok(empty),
        None => read(core, core.primary.range(key, range, cx)).await,
    };
    guessed(core, answer, Vec::new)
}

pub(super) async fn length(core: &Core, key: &Key, cx: &Context) -> Result<u64> {
    let answer = match owed_list(core, key, cx).await? {
        Some(_) => Ok(0),
        None => read(core, core.primary.length(key, cx)).await,
    };
    guessed(core, answer, || 0)
}

/// The list by what is owed, if that is known: only after a delete it is, and then it is empty.
async fn owed_list(core: &Core, key: &Key, cx: &Context) -> Result<Option<Vec<Item>>> {
    core.admit(cx)?;
    if !core.owes_anything() {
        return Ok(None);
    }
    let owed = core.owed().list(key);
    match owed {
        None => Ok(None),
        Some(OwedList::Deleted { stamp }) if core.trusts_delete(stamp) => Ok(Some(Vec::new())),
        Some(_) => Err(core.still_owed(key, cx).await),
    }
}

pub(super) async fn list(core: &Core, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
    nothing_owed_under(core, prefix, cx)?;
    read(core, core.primary.list(prefix, options, cx)).await
}

pub(super) async fn count(core: &Core, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
    nothing_owed_under(core, prefix, cx)?;
    read(core, core.primary.count(prefix, cx)).await
}

fn nothing_owed_under(core: &Core, prefix: &KeyPrefix, cx: &Context) -> Result<()> {
    core.admit(cx)?;
    if core.owes_anything() && core.owed().owes_under(prefix) { Err(still_owed()) } else { Ok(()) }
}

/// Asks the primary.
pub(super) async fn read<T>(core: &Core, call: impl Future<Output = Result<T>>) -> Result<T>
where
    Result<T>: Answer,
{
    match core.attempt(Call::Read, call).await {
        Attempt::Answered(answer) => answer,
        Attempt::NotSent | Attempt::BrokenOff => Err(away()),
    }
}

async fn reads<T>(core: &Core, count: usize, call: impl Future<Output = Vec<Result<T>>>) -> Vec<Result<T>> {
    match core.attempt(Call::Read, call).await {
        Attempt::Answered(answers) => answers,
        Attempt::NotSent | Attempt::BrokenOff => (0..count).map(|_| Err(away())).collect(),
    }
}

/// Shows the clock the stamp of what was read: what its reader writes next is newer, also where the primary has another clock.
fn learned(core: &Core, answer: Result<Lookup>) -> Result<Lookup> {
    if let Ok(Lookup::Found(entry)) = &answer
        && let Some(stamp) = entry.revision.to_stamp()
    {
        core.stamps.observe(stamp);
    }
    answer
}

/// Where `reads: available` was asked for, an outage is answered as if nothing were there.
fn guessed<T>(core: &Core, answer: Result<T>, nothing: impl FnOnce() -> T) -> Result<T> {
    match answer {
        Err(error)
            if core.settings.reads == OutageReads::Available
                && error.kind() == ErrorKind::Unavailable
                && (core.is_open() || error.outage().is_some()) =>
        {
            Ok(nothing())
        }
        answer => answer,
    }
}

/// The same of a value. What is owed of it is not guessed at, also where readers are told of something newer instead.
fn guessed_of<T>(core: &Core, key: &Key, answer: Result<T>, nothing: impl FnOnce() -> T) -> Result<T> {
    let is_owed = core.owes_anything() && core.owed().owes(key);
    if is_owed { answer } else { guessed(core, answer, nothing) }
}

const fn missing() -> Lookup {
    Lookup::Missing { freshness: Freshness::Fallback }
}

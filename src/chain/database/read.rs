//! Reads of values, lists and listings.
//!
//! | | key not owed | key owed |
//! |---|---|---|
//! | get, exists | closed: the primary; open: unavailable | what is owed, marked as pending |
//! | range, length | closed: the primary; open: unavailable | after a pending delete: empty; else unavailable |
//! | list, count | closed: the primary; open: unavailable | unavailable |

use crate::chain::core::{Core, still_owed};
use crate::chain::gate::{Answer, Attempt, Call, away};
use crate::chain::journal::Action;
use crate::chain::owed::{OwedList, OwedValue};
use crate::config::OutageReads;
use crate::contract::{Context, Entry, Freshness, GetOptions, Item, KeyPage, ListOptions, ListRange, Lookup};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};
use crate::revision::Revision;

use super::item::is_live;

/// How often a read looks again at what is owed, because it was paid just then.
const LOOKS: usize = 8;

pub(super) async fn get(core: &Core, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
    core.admit(cx)?;
    if core.owes_anything()
        && let Some(lookup) = in_time(cx, owed_value(core, key, options, cx)).await?
    {
        return Ok(lookup);
    }
    guessed(core, learned(core, read(core, core.primary.get(key, &with_revision(options), cx)).await), missing)
}

pub(super) async fn get_many(core: &Core, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
    let owed = |key: Key| async move { in_time(cx, owed_value(core, &key, options, cx)).await };
    let send = |keys: Vec<Key>| async move { core.primary.get_many(&keys, &with_revision(options), cx).await };
    in_part(core, keys, cx, owed, send, |answer| guessed(core, learned(core, answer), missing)).await
}

pub(super) async fn exists(core: &Core, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
    let owed = |key: Key| async move { owed_existence(core, &key, cx).await };
    let send = |keys: Vec<Key>| async move { core.primary.exists(&keys, cx).await };
    in_part(core, keys, cx, owed, send, |answer| guessed(core, answer, || false)).await
}

/// The clock learns from the revision, whoever else does without it.
const fn with_revision(options: &GetOptions) -> GetOptions {
    GetOptions { without_revision: false, ..*options }
}

/// Answers what is owed from here, and asks the primary for the rest in one batch; `asked` has the last word on its answers.
async fn in_part<T, O, F>(
    core: &Core,
    keys: &[Key],
    cx: &Context,
    owed: impl Fn(Key) -> O,
    send: impl FnOnce(Vec<Key>) -> F,
    asked: impl Fn(Result<T>) -> Result<T>,
) -> Vec<Result<T>>
where
    O: Future<Output = Result<Option<T>>>,
    F: Future<Output = Vec<Result<T>>>,
{
    if let Err(error) = core.admit(cx) {
        return keys.iter().map(|_| Err(error.clone())).collect();
    }
    let mut answers: Vec<Option<Result<T>>> = keys.iter().map(|_| None).collect();
    if core.owes_anything() {
        for (key, answer) in keys.iter().zip(&mut answers) {
            *answer = owed(key.clone()).await.transpose();
        }
    }
    let rest = keys.iter().zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(key, _)| key.clone());
    let rest: Vec<Key> = rest.collect();
    let count = rest.len();
    let from_primary = if rest.is_empty() { Vec::new() } else { reads(core, count, send(rest)).await };
    let mut from_primary = from_primary.into_iter();
    let unanswered = || Err(Error::internal("a key of a batch was not answered"));
    let mut next = || asked(from_primary.next().unwrap_or_else(unanswered));
    answers.into_iter().map(|answer| answer.unwrap_or_else(&mut next)).collect()
}

/// Looks into the journal for no longer than the caller waits.
async fn in_time<T>(cx: &Context, look: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Err(Error::unavailable("the journal could not be read before the deadline"));
    cx.limit(look).await.unwrap_or_else(late)
}

/// What is owed of a value, read from the journal.
async fn owed_value(core: &Core, key: &Key, options: &GetOptions, cx: &Context) -> Result<Option<Lookup>> {
    for _ in 0..LOOKS {
        let Some(owed) = core.owed().value(key) else { return Ok(None) };
        let pending = Some(Lookup::Missing { freshness: Freshness::LocalPending });
        let (seq, stamp, expires_at) = match owed {
            OwedValue::Put { seq, stamp, expires_at } => (seq, stamp, expires_at),
            OwedValue::Deleted => return Ok(pending),
            OwedValue::Unsettled => return Err(core.still_owed(key, cx).await),
        };
        if is_live(owed, core.clock.now()) == Some(false) {
            return Ok(pending);
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
        return Ok(Some(Lookup::Found(entry)));
    }
    Err(Error::unavailable("what is owed under the key changes faster than it can be read"))
}

/// Whether a value or a list is there by what is owed; `None` where the primary knows.
async fn owed_existence(core: &Core, key: &Key, cx: &Context) -> Result<Option<bool>> {
    let (value, list) = {
        let owed = core.owed();
        (owed.value(key), owed.list(key))
    };
    let live = value.and_then(|value| is_live(value, core.clock.now()));
    match (live, list) {
        (Some(true), _) | (_, Some(OwedList::Appended)) => Ok(Some(true)),
        (Some(false), Some(OwedList::Deleted)) => Ok(Some(false)),
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
        Some(OwedList::Deleted) => Ok(Some(Vec::new())),
        Some(OwedList::Appended | OwedList::Unsettled) => Err(core.still_owed(key, cx).await),
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

const fn missing() -> Lookup {
    Lookup::Missing { freshness: Freshness::Fallback }
}

//! Reads of values, lists and listings.
//!
//! | | key not owed | key owed |
//! |---|---|---|
//! | get | closed: the primary; open: unavailable | what is owed, marked as pending; closed: the primary's, where that is newer |
//! | exists | closed: the primary; open: unavailable | by what is owed |
//! | range, length | closed: the primary; open: unavailable | after a pending delete: empty; else unavailable |
//! | list, count | closed: the primary; open: unavailable | unavailable |
//!
//! A delete that was taken over from another process is no answer while the primary can be asked: somebody may have written since.

use std::borrow::Cow;

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
    if core.owes_anything()
        && let Some(lookup) =
            owed_values(core, std::slice::from_ref(key), options, cx).await.pop().unwrap_or(Ok(None))?
    {
        return Ok(lookup);
    }
    let answer = read(core, core.primary.get(key, &with_revision(options), cx)).await;
    guessed_of(core, key, learned(core, answer), missing)
}

pub(super) async fn get_many<'a>(
    core: &Core,
    keys: &'a [Key],
    options: &GetOptions,
    cx: &Context,
) -> Vec<Result<Lookup>> {
    if let Err(error) = core.admit(cx) {
        return keys.iter().map(|_| Err(error.clone())).collect();
    }
    let owed = owed_values(core, keys, options, cx).await;
    let send = |keys: Cow<'a, [Key]>| async move { core.primary.get_many(&keys, &with_revision(options), cx).await };
    with_others(core, keys, owed, send, |key, answer| guessed_of(core, key, learned(core, answer), missing)).await
}

pub(super) async fn exists<'a>(core: &Core, keys: &'a [Key], cx: &Context) -> Vec<Result<bool>> {
    if let Err(error) = core.admit(cx) {
        return keys.iter().map(|_| Err(error.clone())).collect();
    }
    let mut owed: Vec<Result<Option<bool>>> = Vec::new();
    if core.owes_anything() {
        for key in keys {
            owed.push(owed_existence(core, key, cx).await);
        }
    }
    let send = |keys: Cow<'a, [Key]>| async move { core.primary.exists(&keys, cx).await };
    with_others(core, keys, owed, send, |key, answer| guessed_of(core, key, answer, || false)).await
}

/// The clock learns from the revision, whoever else does without it.
const fn with_revision(options: &GetOptions) -> GetOptions {
    GetOptions { without_revision: false, ..*options }
}

/// Answers what is owed, if anything is, and asks the primary for the rest in one batch; `asked` has the last word on its answers.
async fn with_others<'a, T, F>(
    core: &Core,
    keys: &'a [Key],
    owed: Vec<Result<Option<T>>>,
    send: impl FnOnce(Cow<'a, [Key]>) -> F,
    asked: impl Fn(&Key, Result<T>) -> Result<T>,
) -> Vec<Result<T>>
where
    F: Future<Output = Vec<Result<T>>>,
{
    if owed.is_empty() {
        let answers = reads(core, keys.len(), send(Cow::Borrowed(keys))).await;
        let answers = answers.into_iter().chain(std::iter::repeat_with(|| Err(unanswered())));
        return keys.iter().zip(answers).map(|(key, answer)| asked(key, answer)).collect();
    }
    let is_asked = |owed: &Result<Option<T>>| matches!(owed, Ok(None));
    let rest = keys.iter().zip(&owed).filter(|(_, owed)| is_asked(owed)).map(|(key, _)| key.clone());
    let rest: Vec<Key> = rest.collect();
    let count = rest.len();
    let from_primary = if rest.is_empty() { Vec::new() } else { reads(core, count, send(Cow::Owned(rest))).await };
    let mut from_primary = from_primary.into_iter();
    let mut next = |key: &Key| asked(key, from_primary.next().unwrap_or_else(|| Err(unanswered())));
    let answers = keys.iter().zip(owed);
    answers.map(|(key, owed)| owed.transpose().unwrap_or_else(|| next(key))).collect()
}

fn unanswered() -> Error {
    Error::internal("a key of a batch was not answered")
}

/// Looks into the journal for no longer than the caller waits.
async fn in_time<T>(cx: &Context, look: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Err(Error::unavailable("the journal could not be read before the deadline"));
    cx.limit(look).await.unwrap_or_else(late)
}

/// What is owed of values, read from the journal; nothing of those whose primary has something newer. Empty if nothing is owed.
async fn owed_values(core: &Core, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Option<Lookup>>> {
    if !core.owes_anything() {
        return Vec::new();
    }
    let mut owed = Vec::with_capacity(keys.len());
    for key in keys {
        owed.push(in_time(cx, look_up(core, key, options, cx)).await);
    }
    if !core.is_open() {
        see_newer(core, keys, &mut owed, cx).await;
    }
    owed.into_iter().map(|owed| owed.map(|owed| owed.map(|owed| owed.lookup))).collect()
}

/// Asks the primary whether it has something newer than what is owed. It is asked for no longer than until it would be suspect, for there
/// is an answer already.
async fn see_newer(core: &Core, keys: &[Key], owed: &mut [Result<Option<OwedLookup>>], cx: &Context) {
    let is_asked = |owed: &Result<Option<OwedLookup>>| matches!(owed, Ok(Some(_)));
    let asked: Vec<Key> =
        keys.iter().zip(&*owed).filter(|(_, owed)| is_asked(owed)).map(|(key, _)| key.clone()).collect();
    if asked.is_empty() {
        return;
    }
    let patience = Context::with_timeout(core.gate.suspect_after().min(cx.remaining() / 2));
    let asking = read(core, core.primary.stamps(&asked, cx));
    let answer = patience.limit(asking).await.unwrap_or_else(|| Err(still_owed()));
    let mut answers = answer.as_ref().map(|stamps| stamps.iter().copied().map(Ok));
    for (key, owed) in keys.iter().zip(owed).filter(|(_, owed)| is_asked(owed)) {
        let newest = match &mut answers {
            Ok(stamps) => stamps.next().unwrap_or_else(|| Err(unanswered())),
            Err(error) => Err((*error).clone()),
        };
        *owed = std::mem::replace(owed, Ok(None)).and_then(|owed| unless_newer(core, key, owed, newest));
    }
}

/// What is owed, unless the primary has something newer.
fn unless_newer(
    core: &Core,
    key: &Key,
    owed: Option<OwedLookup>,
    newest: Result<Option<Stamp>>,
) -> Result<Option<OwedLookup>> {
    let Some(owed) = owed else { return Ok(None) };
    match newest {
        Ok(Some(stamp)) if owed.stamp < stamp => {
            core.stamps.observe(stamp);
            if core.change_owed(|owed| owed.note_newer(key, stamp)) { Ok(None) } else { Err(still_owed()) }
        }
        // Nobody says that nothing was written since.
        Err(error) if !owed.lookup.is_found() && !core.trusts_delete(owed.stamp) => Err(error),
        _ => Ok(Some(owed)),
    }
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

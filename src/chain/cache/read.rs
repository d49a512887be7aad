//! Reads of values.
//!
//! | key | closed | open |
//! |---|---|---|
//! | not dirty | the primary; without an answer: as open | what stands in |
//! | dirty | what stands in | what stands in |
//!
//! A miss of what stands in says so: a cache may forget, and who reads it can have the value again.

use std::borrow::Cow;

use crate::chain::gate::{Attempt, Call};
use crate::contract::{Context, GetOptions, Lookup};
use crate::error::{Error, Result};
use crate::key::Key;

use super::core::Core;
use super::fallback;

pub(super) async fn get(core: &Core, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
    core.admit(cx)?;
    if core.stands_in_for(key) {
        return fallback::get(core, key, options).await;
    }
    let shortened = core.keeping_reserve(cx);
    match core.attempt(Call::Read, core.primary.get(key, options, &shortened)).await {
        Attempt::Answered(answer) if !says_nothing(&answer) => answer,
        _ => fallback::get(core, key, options).await,
    }
}

pub(super) async fn get_many<'a>(
    core: &Core,
    keys: &'a [Key],
    options: &GetOptions,
    cx: &Context,
) -> Vec<Result<Lookup>> {
    let shortened = core.keeping_reserve(cx);
    let send = |keys: Cow<'a, [Key]>| async move { core.primary.get_many(&keys, options, &shortened).await };
    in_part(core, keys, cx, send, |key| async move { fallback::get(core, &key, options).await }).await
}

pub(super) async fn exists<'a>(core: &Core, keys: &'a [Key], cx: &Context) -> Vec<Result<bool>> {
    let shortened = core.keeping_reserve(cx);
    let send = |keys: Cow<'a, [Key]>| async move { core.primary.exists(&keys, &shortened).await };
    in_part(core, keys, cx, send, |key| async move { fallback::exists(core, &key).await }).await
}

/// Asks the primary in one batch for what it may be asked, and answers the rest, and what it did not answer, from here.
async fn in_part<'a, T, P, F>(
    core: &Core,
    keys: &'a [Key],
    cx: &Context,
    send: impl FnOnce(Cow<'a, [Key]>) -> P,
    stand_in: impl Fn(Key) -> F,
) -> Vec<Result<T>>
where
    P: Future<Output = Vec<Result<T>>>,
    F: Future<Output = Result<T>>,
{
    if let Err(error) = core.admit(cx) {
        return keys.iter().map(|_| Err(error.clone())).collect();
    }
    let asked: Vec<bool> = keys.iter().map(|key| !core.stands_in_for(key)).collect();
    let are_all_asked = asked.iter().all(|asked| *asked);
    let of_some = || keys.iter().zip(&asked).filter(|(_, asked)| **asked).map(|(key, _)| key.clone()).collect();
    let sent = if are_all_asked { Cow::Borrowed(keys) } else { Cow::Owned(of_some()) };
    let mut answered = Vec::new();
    if !sent.is_empty()
        && let Attempt::Answered(answers) = core.attempt(Call::Read, send(sent)).await
    {
        if are_all_asked && answers.len() == keys.len() && !answers.iter().any(says_nothing) {
            return answers;
        }
        answered = answers;
    }
    let mut answered = answered.into_iter();
    let mut answers = Vec::with_capacity(keys.len());
    for (key, asked) in keys.iter().zip(asked) {
        let answer = if asked { answered.next().filter(|answer| !says_nothing(answer)) } else { None };
        answers.push(match answer {
            Some(answer) => answer,
            None => stand_in(key.clone()).await,
        });
    }
    answers
}

/// Whether an answer tells of the store only, and nothing of the key.
fn says_nothing<T>(answer: &Result<T>) -> bool {
    answer.as_ref().err().and_then(Error::outage).is_some()
}

//! Reads: "missing" is not a guess, and nobody is shown less than what it wrote itself.

use std::collections::BTreeSet;

use crate::contents::Contents;
use crate::files::Number;
use crate::history::{Fate, History};
use crate::line::{Action, Answer, Call};

/// What is known of a read while which nothing moved.
pub(crate) struct Seen<'a> {
    /// Who read, and the databases that it may take for its own.
    pub(crate) process: usize,
    pub(crate) known: &'a BTreeSet<Number>,
    /// What stood in the database at its address before and after; nothing, where none could be reached.
    pub(crate) before: &'a Contents,
    pub(crate) after: &'a Contents,
}

/// Says what is wrong with an answer.
pub(crate) fn wrong(history: &History, call: &Call, answer: &Answer, seen: &Seen<'_>) -> Option<&'static str> {
    match (call.action, answer) {
        (Action::Get, Answer::Read { value: None, pending }) => missing(history, &call.key, *pending, seen),
        (Action::Get, Answer::Read { value: Some(value), pending }) => {
            found(history, &call.key, *value, *pending, seen)
        }
        (Action::Range, Answer::Items(items)) => listed(history, &call.key, items, seen),
        _ => None,
    }
}

fn missing(history: &History, key: &str, pending: bool, seen: &Seen<'_>) -> Option<&'static str> {
    let is_there = |contents: &Contents| contents.values.contains_key(key);
    if !pending && is_there(seen.before) && is_there(seen.after) {
        return Some("missing is told of what the database has");
    }
    let removes =
        |by: &dyn Fn(usize) -> bool| history.writes.iter().any(|write| by(write.process) && write.removes(key));
    if pending && !removes(&|process| process == seen.process || history.ended.contains(&process)) {
        return Some("missing is told though neither this process nor one before it removed the key");
    }
    let own = history.last_own(seen.process, key)?;
    let is_own = own.action == Action::Set && own.fate != Fate::Unknown && own.meant.is_subset(seen.known);
    (is_own && !removes(&|process| process != seen.process)).then_some("missing is told of what this process wrote")
}

fn found(history: &History, key: &str, value: i64, pending: bool, seen: &Seen<'_>) -> Option<&'static str> {
    let Some(write) = history.by_value(value).filter(|write| write.key == key) else {
        return Some("a value is told that nobody wrote");
    };
    let has = |contents: &Contents| contents.values.get(key) == Some(&value);
    if !pending && !has(seen.before) && !has(seen.after) {
        return Some("the primary is said to have a value that it has not");
    }
    if pending && write.process != seen.process && !history.ended.contains(&write.process) {
        return Some("what a living process owes is told to another one");
    }
    let own = history.last_own(seen.process, key)?;
    let is_stale = write.process == seen.process && write.number < own.number && own.fate != Fate::Unknown;
    (is_stale && own.meant.is_subset(seen.known)).then_some("a value is told that this process replaced")
}

fn listed(history: &History, key: &str, items: &[i64], seen: &Seen<'_>) -> Option<&'static str> {
    let own = history.writes.iter().filter(|write| {
        write.process == seen.process
            && write.action == Action::Append
            && write.key == key
            && write.fate != Fate::Unknown
    });
    let is_hidden = |write: &&crate::history::Write| write.meant.is_subset(seen.known) && !items.contains(&write.value);
    if own.clone().any(|write| is_hidden(&write)) {
        return Some("an item that this process appended is not told");
    }
    let (before, after) = (seen.before.list(key), seen.after.list(key));
    let fits = items.starts_with(before) && after.starts_with(items);
    (!fits).then_some("a list is told that is not the one of the database")
}

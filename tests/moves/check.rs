//! Checks what is there in the end against what was told.

use std::collections::BTreeSet;

use crate::contents::Contents;
use crate::files::{Files, Number};
use crate::history::{Fate, History, Write};
use crate::line::Action;
use crate::support::schedules::Reached;

/// Says what is not as promised, a line each.
pub(crate) fn violations(history: &History, files: &Files, reached: &mut Reached) -> Vec<String> {
    let all: Vec<Contents> = (0..files.count()).map(|database| files.contents(database)).collect();
    let mut violations = Vec::new();
    for write in history.writes.iter().filter(|write| write.is_acknowledged()) {
        let is_there = match write.action {
            Action::Append => write.meant.iter().any(|database| {
                let contents = &all[*database];
                contents.list(&write.key).contains(&write.value) || contents.kept(&write.key, Some(write.value))
            }),
            Action::Clear => {
                keys(&all).iter().filter(|key| write.covers(key)).all(|key| stands(history, &all, write, key))
            }
            _ => stands(history, &all, write, &write.key),
        };
        if !is_there {
            violations.push(format!("an acknowledged write is lost or undone: {write:?}"));
        }
    }
    for (database, contents) in all.iter().enumerate() {
        reached.note_times("a write that lost is kept", contents.conflicts.len() as u64);
        let origin = files.origin(database);
        for (key, value) in contents.values.iter().filter(|(key, value)| origin.values.get(*key) != Some(value)) {
            violations.extend(strange(history, key, *value, database));
        }
        for (key, items) in &contents.items {
            for value in items.iter().filter(|value| !origin.list(key).contains(value)) {
                violations.extend(strange(history, key, *value, database));
            }
            violations
                .extend(disorder(history, items).map(|why| format!("{key} of database {database}: {why}: {items:?}")));
        }
    }
    violations
}

fn keys(all: &[Contents]) -> BTreeSet<&String> {
    all.iter().flat_map(|contents| contents.values.keys()).collect()
}

/// Whether a write of a value, or the removal of one, is what stands in a database that it was meant for, is kept as one that lost, or was
/// replaced by a later one.
fn stands(history: &History, all: &[Contents], write: &Write, key: &str) -> bool {
    write.meant.iter().any(|database| {
        let contents = &all[*database];
        let standing = contents.values.get(key).copied();
        let is_replaced = history
            .writes
            .iter()
            .any(|later| later.number > write.number && later.covers(key) && later.meant.contains(database));
        is_replaced
            || match write.action {
                Action::Set => standing == Some(write.value) || contents.kept(key, Some(write.value)),
                Action::Delete => standing.is_none() || contents.kept(key, None),
                // It removes what is there when it is replayed, and what others still owe comes back.
                _ => standing.is_none_or(|value| comes_back(history, write, value)),
            }
    })
}

fn comes_back(history: &History, clear: &Write, value: i64) -> bool {
    let write = history.by_value(value);
    write.is_some_and(|write| {
        write.process != clear.process && (write.fate != Fate::Primary || clear.fate != Fate::Primary)
    })
}

/// What is wrong with a value that a database did not have when it was made.
fn strange(history: &History, key: &str, value: i64, database: Number) -> Option<String> {
    match history.by_value(value).filter(|write| write.key == key) {
        None => Some(format!("{key} of database {database} has {value}, which nobody wrote")),
        Some(write) if !write.meant.contains(&database) => {
            Some(format!("{key} of database {database} has what was not meant for it: {write:?}"))
        }
        Some(_) => None,
    }
}

/// What is wrong with the order of a list: an item is there once, and those of a process are in its order.
fn disorder(history: &History, items: &[i64]) -> Option<&'static str> {
    let distinct: BTreeSet<_> = items.iter().collect();
    if distinct.len() < items.len() {
        return Some("an item is there twice");
    }
    let writes: Vec<&Write> = items.iter().filter_map(|value| history.by_value(*value)).collect();
    let overtakes = |(place, write): (usize, &&Write)| {
        let later = writes.iter().skip(place + 1);
        later.filter(|later| later.process == write.process).any(|later| later.number < write.number)
    };
    writes.iter().enumerate().any(overtakes).then_some("an item overtook another one of its process")
}

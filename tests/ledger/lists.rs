//! Lists: every acknowledged item is there once and in its writer's order, unless it was deleted; what was deleted does not come back.

use std::collections::HashMap;

use crate::caller::KEPT;
use crate::history::{Call, Fate, History};
use crate::line::Action;
use crate::outcome::Outcome;

pub(crate) fn check(history: &History, outcome: &Outcome, key: &str, violations: &mut Vec<String>) {
    let appends = history.of_key(key, |call| call.action == Action::Append);
    let deletes = history.of_key(key, |call| call.is_delete() && call.may_be_there());
    let trims = history.of_key(key, |call| call.action == Action::Trim && call.may_be_there());
    let items = outcome.items.get(key).map_or(&[][..], Vec::as_slice);
    let mut places = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        if places.insert(item.value, place).is_some() {
            violations.push(format!("{key}: an item is there twice: {item:?}"));
        }
        let why = match appends.iter().find(|append| append.value == item.value) {
            None => Some("an item that nobody appended"),
            Some(append) if !append.may_be_there() => Some("an item whose append was refused"),
            Some(append) if !append.may_have(&item.stamp) => Some("an item under a stamp that is not its own"),
            Some(_) => None,
        };
        violations.extend(why.map(|why| format!("{key}: {why}: {item:?}")));
        let after = deletes.iter().find(|delete| delete.is_acknowledged() && delete.after >= item.stamp);
        violations
            .extend(after.map(|delete| format!("{key}: an item that was deleted is there: {item:?}, {delete:?}")));
        if let Some(append) = appends.iter().find(|append| append.value == item.value)
            && let Some(trim) = trims.iter().find(|trim| must_have_trimmed(trim, append, &appends))
        {
            violations.push(format!("{key}: an item that was trimmed is there: {append:?}, {trim:?}"));
        }
    }
    for append in appends.iter().filter(|append| append.is_acknowledged() && !places.contains_key(&append.value)) {
        let deleted = deletes.iter().any(|delete| delete.may_be_newer_than(&append.after));
        let trimmed = trims.iter().any(|trim| may_have_trimmed(trim, append, &appends));
        if !deleted && !trimmed && !outcome.kept(key, append.value) {
            violations.push(format!("an acknowledged item is lost: {append:?}"));
        }
    }
    for conflict in outcome.conflicts.iter().filter(|conflict| conflict.key == key && conflict.operation == "append") {
        let own = appends.iter().find(|append| Some(append.value) == conflict.value);
        if !own.is_some_and(|append| append.may_be_there() && append.may_have(&conflict.stamp)) {
            violations.push(format!("an item was kept as one that lost, and nobody appended it: {conflict:?}"));
        }
    }
    check_order(&appends, &places, violations);
}

/// Whether there may have been enough later items when a list was trimmed that this one went.
fn may_have_trimmed(trim: &Call, append: &Call, appends: &[&Call]) -> bool {
    // What was owed may have come later than it was acknowledged.
    let comes_later = |other: &Call| !other.ended_before(append) || other.fate() != Fate::Primary;
    let later = appends.iter().filter(|other| other.may_be_there() && comes_later(other));
    !trim.ended_before(append) && later.filter(|other| !trim.ended_before(other)).count() as u64 > KEPT
}

/// Whether there must have been enough.
fn must_have_trimmed(trim: &Call, append: &Call, appends: &[&Call]) -> bool {
    let was_there = |append: &Call| append.fate() == Fate::Primary && append.ended_before(trim);
    let later = appends.iter().filter(|other| append.ended_before(other) && was_there(other));
    trim.is_acknowledged() && was_there(append) && later.count() as u64 >= KEPT
}

/// Items of one writer are in the order in which they were acknowledged.
fn check_order(appends: &[&Call], places: &HashMap<i64, usize>, violations: &mut Vec<String>) {
    let there: Vec<(&Call, usize)> = appends
        .iter()
        .filter(|append| append.is_acknowledged())
        .filter_map(|append| Some((*append, *places.get(&append.value)?)))
        .collect();
    for (earlier, earlier_place) in &there {
        let overtaken = there.iter().find(|(later, place)| {
            later.process == earlier.process && place < earlier_place && earlier.ended_before(later)
        });
        violations.extend(overtaken.map(|(later, _)| format!("an item overtook another: {later:?} {earlier:?}")));
    }
}

//! Lists: every acknowledged item is there once and in its writer's order, unless it was deleted; what was deleted does not come back.

use std::collections::HashMap;

use crate::history::{Call, History};
use crate::line::Action;
use crate::outcome::Outcome;

pub(crate) fn check(history: &History, outcome: &Outcome, key: &str, violations: &mut Vec<String>) {
    let appends = history.of_key(key, |call| call.action == Action::Append);
    let deletes = history.of_key(key, |call| call.is_delete() && call.may_be_there());
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
    }
    for append in appends.iter().filter(|append| append.is_acknowledged() && !places.contains_key(&append.value)) {
        let deleted = deletes.iter().any(|delete| delete.may_be_newer_than(&append.after));
        if !deleted && !outcome.kept(key, append.value) {
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

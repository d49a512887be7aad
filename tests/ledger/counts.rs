//! Numbers: every acknowledged update counts once, and none that was refused.

use std::collections::HashSet;

use crate::history::{Call, History};
use crate::line::{Action, Answer};
use crate::outcome::Outcome;

pub(crate) fn check(history: &History, outcome: &Outcome, key: &str, violations: &mut Vec<String>) {
    let updates = history.of_key(key, |call| call.action == Action::Count && call.may_be_there());
    let least = updates.iter().filter(|update| update.is_acknowledged()).count();
    let stands = outcome.values.get(key).and_then(|row| row.value).unwrap_or(0);
    if usize::try_from(stands).is_ok_and(|stands| stands < least || stands > updates.len()) {
        violations.push(format!("{key}: counted {least} to {} times, and {stands} stands", updates.len()));
    }
    let counted = |update: &Call| match update.end.as_ref().map(|end| &end.answer) {
        Some(Answer::Counted(number)) => Some(*number),
        _ => None,
    };
    let mut numbers = HashSet::new();
    for update in &updates {
        if counted(update).is_some_and(|number| number > stands || !numbers.insert(number)) {
            violations.push(format!("{key}: counted over, {stands} stands: {update:?}"));
        }
        let overtaken = updates.iter().find(|later| update.ended_before(later) && counted(later) < counted(update));
        let overtaken = overtaken.filter(|later| counted(later).is_some());
        violations.extend(overtaken.map(|later| format!("{key}: counted back: {update:?} {later:?}")));
    }
    for conflict in outcome.conflicts.iter().filter(|conflict| conflict.key == key) {
        violations.push(format!("{key}: a number lost: {conflict:?}"));
    }
}

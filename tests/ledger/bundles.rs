//! Transactions: all of it is there, or nothing.

use std::collections::BTreeMap;

use crate::history::{Call, Fate, History};
use crate::line::Action;
use crate::outcome::Outcome;

pub(crate) fn check(history: &History, outcome: &Outcome, violations: &mut Vec<String>) {
    let mut bundles = BTreeMap::<(i64, u64), Vec<&Call>>::new();
    for call in &history.calls {
        if let Some(bundle) = call.bundle {
            bundles.entry((call.process, bundle)).or_default().push(call);
        }
    }
    let there = |append: &Call| {
        outcome.items.get(&append.key).is_some_and(|items| items.iter().any(|item| item.value == append.value))
    };
    for parts in bundles.values() {
        // Of these nothing is ever deleted.
        let appends = || parts.iter().filter(|part| part.action == Action::Append);
        if appends().any(|append| there(append)) && !appends().all(|append| there(append)) {
            violations.push(format!("half of a transaction is there: {parts:?}"));
        }
        if parts.iter().any(|part| part.fate() == Fate::Local) {
            violations.push(format!("a transaction was journaled: {parts:?}"));
        }
    }
}

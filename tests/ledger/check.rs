//! Checks what is there against what was told.

use std::collections::BTreeSet;

use crate::history::History;
use crate::line::Answer;
use crate::outcome::Outcome;
use crate::{bundles, cleared, counts, lists, reads, values};

/// Says what is not as promised, a line each.
pub(crate) fn violations(history: &History, outcome: &Outcome) -> Vec<String> {
    let mut violations = Vec::new();
    for call in &history.calls {
        if let Some(Answer::Failed(kind)) = call.end.as_ref().map(|end| &end.answer)
            && !["unavailable", "outcome_unknown", "conflict"].contains(&kind.as_str())
        {
            violations.push(format!("an error of another kind, {kind}: {call:?}"));
        }
    }
    let keys: BTreeSet<&str> = history.calls.iter().map(|call| call.key.as_str()).collect();
    for key in keys {
        match key.trim_end_matches(|last: char| last.is_ascii_digit()) {
            "count" => counts::check(history, outcome, key, &mut violations),
            "cleared" => cleared::check(history, outcome, key, &mut violations),
            _ => values::check(history, outcome, key, &mut violations),
        }
        lists::check(history, outcome, key, &mut violations);
        reads::check(history, key, &mut violations);
    }
    bundles::check(history, outcome, &mut violations);
    let known = |key: &String| history.calls.iter().any(|call| call.key == *key);
    let strange = outcome.values.keys().chain(outcome.items.keys()).filter(|key| !known(key));
    violations.extend(strange.map(|key| format!("nobody wrote {key}")));
    violations
}

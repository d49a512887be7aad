//! What is cleared: what was there is gone, and what came later is there.
//!
//! A clear leaves nothing where nothing is, so what somebody else made before it and still owes comes back.

use crate::history::{Call, Fate, History};
use crate::line::Action;
use crate::outcome::Outcome;

pub(crate) fn check(history: &History, outcome: &Outcome, key: &str, violations: &mut Vec<String>) {
    let writes = history.of_key(key, |call| call.may_be_there());
    let clears = || writes.iter().filter(|write| write.action == Action::Clear);
    let row = outcome.values.get(key);
    for put in writes.iter().filter(|write| write.puts() && write.is_acknowledged()) {
        let stamp = put.stamp().expect("an acknowledged value has a stamp");
        let stands = row.is_some_and(|row| row.stamp >= *stamp);
        if !stands && !clears().any(|clear| clear.may_be_newer_than(stamp)) {
            violations.push(format!("an acknowledged write is lost: {put:?}; there is {row:?}"));
        }
    }
    let Some(row) = row.filter(|row| row.value.is_some()) else { return };
    let Some(put) = writes.iter().find(|write| write.puts() && Some(write.value) == row.value) else {
        violations.push(format!("{key}: a value that nobody wrote, or that was refused: {row:?}"));
        return;
    };
    if !put.may_have(&row.stamp) {
        violations.push(format!("{key}: a value under a stamp that is not its own: {row:?}, {put:?}"));
    }
    let clear = clears().find(|clear| clear.is_acknowledged() && clear.after >= row.stamp && was_there(put, clear));
    violations.extend(clear.map(|clear| format!("{key}: what was cleared is there: {row:?}, {put:?}, {clear:?}")));
}

/// Whether a clear had to find what was put.
fn was_there(put: &Call, clear: &Call) -> bool {
    let seen = match put.process == clear.process {
        true => put.is_acknowledged(),
        false => put.fate() == Fate::Primary,
    };
    seen && put.ended_before(clear)
}

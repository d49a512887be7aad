//! Values: the newest that was acknowledged stands, what lost is kept, and what was refused is nowhere.

use crate::history::{Call, Fate, History};
use crate::line::Action;
use crate::outcome::{Conflict, Outcome, Row};

/// How long a process may live and not have looked for what dead ones have left.
const UNAWARE: u64 = 25_000;

pub(crate) fn check(history: &History, outcome: &Outcome, key: &str, violations: &mut Vec<String>) {
    let writes = history.of_key(key, |call| call.puts() || call.is_delete());
    let row = outcome.values.get(key);
    for write in writes.iter().filter(|write| write.is_acknowledged()) {
        let stands = row.is_some_and(|row| row.stamp >= *write.at_least());
        if !stands {
            violations.push(format!("an acknowledged write is lost: {write:?}; there is {row:?}"));
        }
    }
    if let Some(row) = row {
        violations.extend(unexplained(row, &writes).map(|why| format!("{key}: {why}: {row:?}")));
    }
    for put in writes.iter().filter(|write| write.puts() && write.is_acknowledged()) {
        let stamp = put.stamp().expect("an acknowledged value has a stamp");
        let lost = row.is_some_and(|row| row.stamp != *stamp);
        if lost && !outcome.kept(key, put.value) && !writes.iter().any(|newer| replaces(history, newer, put)) {
            let newer: Vec<_> = writes.iter().filter(|newer| newer.may_be_newer_than(stamp)).collect();
            violations.push(format!("an acknowledged write lost and is not kept: {put:?}; newer: {newer:?}"));
        }
    }
    for conflict in outcome.conflicts.iter().filter(|conflict| conflict.key == key && conflict.operation != "append") {
        let own = || writes.iter().find(|write| Some(write.value) == conflict.value);
        let told = |why: &str| format!("{key}: {why}: {conflict:?}, {:?}", own());
        violations.extend(wrongly_kept(conflict, row, &writes).map(told));
    }
}

/// What is wrong with what stands.
fn unexplained(row: &Row, writes: &[&Call]) -> Option<&'static str> {
    let Some(value) = row.value else {
        let leaves_none = |write: &Call| write.is_delete() || write.action == Action::Brief;
        let deleted =
            writes.iter().any(|write| leaves_none(write) && write.may_be_there() && write.may_have(&row.stamp));
        return (!deleted).then_some("a tombstone that nobody can have left");
    };
    match writes.iter().find(|write| write.puts() && write.value == value) {
        None => Some("a value that nobody wrote"),
        Some(write) if !write.may_be_there() => Some("a value whose write was refused"),
        Some(write) if !write.may_have(&row.stamp) => Some("a value under a stamp that is not its own"),
        Some(_) => None,
    }
}

/// What is wrong with a write that was kept as one that lost.
fn wrongly_kept(conflict: &Conflict, row: Option<&Row>, writes: &[&Call]) -> Option<&'static str> {
    if conflict.winner <= conflict.stamp {
        return Some("it lost against an older one");
    }
    // Of a delete the value may have gone, and the list, which is newer, have stayed.
    if conflict.value.is_some() && row.is_none_or(|row| row.stamp == conflict.stamp) {
        return Some("it was kept as one that lost, and stands");
    }
    let own = writes.iter().find(|write| match conflict.value {
        Some(value) => write.puts() && write.value == value,
        None => write.is_delete() && write.may_be_there() && write.may_have(&conflict.stamp),
    });
    match own {
        None => Some("nobody made the write that was kept"),
        Some(write) if !write.may_be_there() => Some("what was refused was kept as one that lost"),
        Some(write) if !write.may_have(&conflict.stamp) => Some("it was kept under a stamp that is not its own"),
        Some(_) => None,
    }
}

/// Whether a write may have replaced another one without a conflict: it is newer, and by somebody who knew of it, or it came
/// straight to the primary when the other was there.
fn replaces(history: &History, newer: &Call, older: &Call) -> bool {
    let stamp = older.stamp().expect("an acknowledged value has a stamp");
    if !newer.may_be_there() || newer.value == older.value || !newer.may_be_newer_than(stamp) {
        return false;
    }
    let knew = newer.process == older.process || inherited(history, newer.process, older.process);
    knew || match newer.fate() {
        // It may have been on its way when the primary went away, and land at any time.
        Fate::Local => !newer.was_only_journaled(),
        Fate::Primary => !newer.ended_before(older),
        Fate::Unknown | Fate::Refused => true,
    }
}

/// Whether a process may have taken over what another one left.
fn inherited(history: &History, heir: i64, dead: i64) -> bool {
    let (heir, dead) = (history.life(heir), history.life(dead));
    // Who is led elsewhere looks again when it knows that it is the same database.
    let looks = history.apart || heir.ended - heir.started > UNAWARE;
    heir.started >= dead.ended || (heir.ended > dead.ended && looks)
}

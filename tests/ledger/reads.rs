//! Reads: nobody was told "missing", or something older, of what he could have seen.

use crate::history::{Call, Fate, History};
use crate::line::{Action, Answer};

pub(crate) fn check(history: &History, key: &str, violations: &mut Vec<String>) {
    let writes = history.of_key(key, Call::may_be_there);
    for read in history.of_key(key, |call| matches!(call.action, Action::Get | Action::Length)) {
        let why = match read.end.as_ref().map(|end| &end.answer) {
            Some(Answer::Read { value: None, pending, .. }) => missing(history, read, *pending, &writes),
            Some(Answer::Read { value: Some(value), stamp, pending }) => {
                found(history, read, *value, stamp.as_deref().unwrap_or_default(), *pending, &writes)
            }
            Some(Answer::Length(length)) => counted(history, read, *length, &writes),
            _ => None,
        };
        violations.extend(why.map(|why| format!("{why}: {read:?}")));
    }
}

/// Whether a read had to see a write: it was in the primary before, or its own process had made it.
fn is_seen(history: &History, write: &Call, read: &Call, pending: bool) -> bool {
    let could = match write.process == read.process {
        true => write.is_acknowledged(),
        // What is owed is read where it is owed, unless the primary can be asked and has something newer.
        false => write.fate() == Fate::Primary && (!pending || history.was_undisturbed(read)),
    };
    could && write.ended_before(read)
}

fn missing(history: &History, read: &Call, pending: bool, writes: &[&Call]) -> Option<String> {
    let mut seen = writes.iter().filter(|write| write.puts() && is_seen(history, write, read, pending));
    let deleted = |put: &Call| {
        let stamp = put.stamp().expect("an acknowledged value has a stamp");
        let gone = |write: &Call| match write.action {
            Action::Brief => write.may_have_ended_by(read),
            Action::Delete | Action::Clear => !read.ended_before(write),
            _ => false,
        };
        put.may_have_ended_by(read) || writes.iter().any(|write| gone(write) && write.may_be_newer_than(stamp))
    };
    let guessed = seen.find(|put| !deleted(put));
    guessed.map(|put| format!("told missing, though it could see {put:?}"))
}

fn found(history: &History, read: &Call, value: i64, stamp: &str, pending: bool, writes: &[&Call]) -> Option<String> {
    let source = history.calls.iter().find(|call| call.puts() && call.key == read.key && call.value == value);
    match source {
        None => return Some("told what nobody wrote".to_owned()),
        Some(write) if !write.may_be_there() => return Some(format!("told what was refused, {write:?}")),
        Some(write) if !write.may_have(stamp) => return Some(format!("told another stamp than that of {write:?}")),
        Some(write) if write.has_ended_before(read) => return Some(format!("told what had ended, {write:?}")),
        Some(_) => {}
    }
    let changes = |write: &Call| write.puts() || write.is_delete();
    let mut seen = writes.iter().filter(|write| changes(write) && is_seen(history, write, read, pending));
    let newer = seen.find(|write| write.at_least().as_str() > stamp);
    newer.map(|newer| format!("told something older than {newer:?}"))
}

/// Of a list that is never deleted.
fn counted(history: &History, read: &Call, length: u64, writes: &[&Call]) -> Option<String> {
    let appends = || writes.iter().filter(|write| write.action == Action::Append);
    let least = appends().filter(|append| is_seen(history, append, read, false)).count() as u64;
    let most = appends().filter(|append| !read.ended_before(append)).count() as u64;
    (length < least || length > most).then(|| format!("there must have been from {least} to {most} items"))
}

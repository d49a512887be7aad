//! What was reached: a schedule that meets no trouble proves nothing.

use crate::history::{Call, Fate, History};
use crate::line::{Action, Answer, Line};
use crate::nemesis;
use crate::outcome::Outcome;
use crate::support::schedules::Reached;

/// What must be met beside the faults.
const SITUATIONS: [&str; 21] = [
    "a writer is suspended",
    "a writer is killed",
    "a writer is killed in the middle of a call",
    "an acknowledgement is local",
    "an outcome is unknown",
    "a read is told missing",
    "a read sees what is owed",
    "a read is unavailable",
    "what a dead process owed is taken over",
    "writes go on beside the replay",
    "a write is owed that lost",
    "an overwritten write is kept",
    "an older write wins by its clock",
    "processes are cut off apart",
    "what is brief is owed",
    "a clear is owed",
    "a clear is applied",
    "a list is trimmed",
    "an update is counted",
    "a transaction is applied",
    "a transaction is unavailable",
];

/// All that must be met.
pub(crate) fn wanted() -> Vec<&'static str> {
    nemesis::names().chain(SITUATIONS).collect()
}

impl Reached {
    /// Notes what a history shows.
    pub(crate) fn note_history(&mut self, history: &History, outcome: &Outcome) {
        for life in &history.lives {
            let first = life.lines.iter().find_map(|line| match line {
                Line::State { pending, .. } => Some(*pending),
                _ => None,
            });
            self.note_times(
                "what a dead process owed is taken over",
                u64::from(first.is_some_and(|pending| pending > 0)),
            );
            self.note_times("a writer is killed", u64::from(life.killed));
            self.note_times("writes go on beside the replay", beside_the_replay(&life.lines));
        }
        for call in &history.calls {
            self.note_call(call, history);
        }
        for conflict in &outcome.conflicts {
            let lost = history.calls.iter().find(|call| Some(call.value) == conflict.value);
            match lost.map(Call::fate) {
                Some(Fate::Local) => self.note("a write is owed that lost"),
                Some(Fate::Primary) => self.note("an overwritten write is kept"),
                _ => {}
            }
        }
    }

    fn note_call(&mut self, call: &Call, history: &History) {
        match (call.action, call.fate()) {
            (Action::Brief, Fate::Local) => self.note("what is brief is owed"),
            (Action::Clear, Fate::Local) => self.note("a clear is owed"),
            (Action::Clear, Fate::Primary) => self.note("a clear is applied"),
            (Action::Trim, Fate::Primary) => self.note("a list is trimmed"),
            (Action::Count, Fate::Primary) => self.note("an update is counted"),
            (_, Fate::Primary) if call.bundle.is_some() => self.note("a transaction is applied"),
            (_, Fate::Refused) if call.bundle.is_some() => self.note("a transaction is unavailable"),
            _ => {}
        }
        match call.end.as_ref().map(|end| &end.answer) {
            None => self.note("a writer is killed in the middle of a call"),
            Some(Answer::Written { local: true, .. }) => self.note("an acknowledgement is local"),
            Some(Answer::Failed(kind)) if kind == "outcome_unknown" => self.note("an outcome is unknown"),
            Some(Answer::Failed(kind)) if kind == "unavailable" && call.action == Action::Get => {
                self.note("a read is unavailable");
            }
            Some(Answer::Read { pending: true, .. }) => {
                self.note("a read sees what is owed");
                self.note_times(
                    "a read sees what is owed though the primary is well",
                    u64::from(history.was_undisturbed(call)),
                );
            }
            Some(Answer::Read { value: None, .. }) => self.note("a read is told missing"),
            _ => {}
        }
        if let Some(stamp) = call.stamp()
            && history.calls.iter().any(|later| {
                later.key == call.key
                    && later.process != call.process
                    && call.ended_before(later)
                    && later.stamp().is_some_and(|later| later < stamp)
            })
        {
            self.note("an older write wins by its clock");
        }
    }
}

/// How many writes a process had acknowledged while it replayed.
fn beside_the_replay(lines: &[Line]) -> u64 {
    let mut replays = false;
    let mut count = 0;
    for line in lines {
        match line {
            Line::State { state, .. } => replays = state == "reconciling",
            Line::Ended { answer: Answer::Written { .. }, .. } if replays => count += 1,
            _ => {}
        }
    }
    count
}

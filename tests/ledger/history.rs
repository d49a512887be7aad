//! What all writers told.

use std::collections::HashMap;
use std::ops::Range;

use crate::caller::BRIEF;
use crate::line::{Action, Answer, Digits, Line};
use crate::writer::value_of;

/// By how many milliseconds two looks at one clock may differ.
const TOLERANCE: u64 = 2;

/// How long a read may take, in milliseconds, that nothing held up: less than what makes the primary suspect.
const UNDISTURBED: u64 = 200;

/// What is replayed has what was left of its time when it was sent: it lasts longer by the way there, of so many milliseconds at most.
const LONGEST_REPLAY: u64 = 3000;

/// What one process told in its life.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) process: i64,
    /// In milliseconds, by the clock that all share.
    pub(crate) started: u64,
    pub(crate) ended: u64,
    pub(crate) killed: bool,
    pub(crate) lines: Vec<Line>,
}

/// A call, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) process: i64,
    /// What it writes, if it writes a value.
    pub(crate) value: i64,
    pub(crate) action: Action,
    pub(crate) key: String,
    /// Its stamp is newer than this.
    pub(crate) after: Digits,
    pub(crate) begun: Moment,
    away: Option<u64>,
    /// Of the parts of a transaction, the first one's number.
    pub(crate) bundle: Option<u64>,
    /// `None` if the process died before.
    pub(crate) end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: u64,
    /// The place among what the process told.
    line: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) answer: Answer,
    /// Its stamp is older than this.
    pub(crate) before: Digits,
    pub(crate) moment: Moment,
    away: Option<u64>,
}

/// What is known of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Primary,
    Local,
    /// Nothing was written, nor will be.
    Refused,
    /// It may be there or not, or come yet.
    Unknown,
}

impl Call {
    pub(crate) fn fate(&self) -> Fate {
        match self.end.as_ref().map(|end| &end.answer) {
            Some(Answer::Written { local: true, .. }) => Fate::Local,
            Some(Answer::Written { local: false, .. } | Answer::Counted(_) | Answer::Trimmed) => Fate::Primary,
            Some(Answer::Failed(kind)) if kind == "outcome_unknown" => Fate::Unknown,
            Some(Answer::Failed(_)) => Fate::Refused,
            Some(Answer::Read { .. } | Answer::Length(_)) | None => Fate::Unknown,
        }
    }

    pub(crate) fn is_acknowledged(&self) -> bool {
        matches!(self.fate(), Fate::Primary | Fate::Local)
    }

    pub(crate) fn may_be_there(&self) -> bool {
        self.fate() != Fate::Refused
    }

    /// The stamp of a value that was acknowledged.
    pub(crate) fn stamp(&self) -> Option<&Digits> {
        match &self.end.as_ref()?.answer {
            Answer::Written { stamp, .. } => stamp.as_ref(),
            _ => None,
        }
    }

    /// Whether it may have been given a stamp that is newer than this one.
    pub(crate) fn may_be_newer_than(&self, stamp: &str) -> bool {
        match (self.stamp(), &self.end) {
            (Some(own), _) => own.as_str() > stamp,
            // Nobody may hear of it any more when it is stamped anew.
            _ if self.fate() == Fate::Unknown => true,
            (None, Some(end)) => end.before.as_str() > stamp,
            (None, None) => true,
        }
    }

    /// Whether it may have been given exactly this stamp.
    pub(crate) fn may_have(&self, stamp: &str) -> bool {
        match self.stamp() {
            Some(own) => own == stamp,
            None => self.after.as_str() < stamp && self.may_be_newer_than(stamp),
        }
    }

    /// A stamp that its own is not older than.
    pub(crate) fn at_least(&self) -> &Digits {
        self.stamp().unwrap_or(&self.after)
    }

    /// Whether it had ended, for all that can be known, before another call of any process began.
    pub(crate) fn ended_before(&self, later: &Self) -> bool {
        let Some(end) = &self.end else { return false };
        match self.process == later.process {
            true => end.moment.line < later.begun.line,
            false => end.moment.at < later.begun.at,
        }
    }

    /// Whether it cannot have been sent to the primary but by a replay: that was away before it and after, without a break.
    pub(crate) fn was_only_journaled(&self) -> bool {
        self.away.is_some() && self.end.as_ref().is_some_and(|end| end.away == self.away)
    }

    pub(crate) fn is_delete(&self) -> bool {
        self.action == Action::Delete
    }

    pub(crate) fn puts(&self) -> bool {
        matches!(self.action, Action::Set | Action::Brief | Action::Create)
    }

    /// Whether what it wrote may have ended when another call had.
    pub(crate) fn may_have_ended_by(&self, later: &Self) -> bool {
        let ends = self.begun.at + BRIEF;
        self.action == Action::Brief && later.end.as_ref().is_none_or(|end| end.moment.at >= ends)
    }

    /// Whether what it wrote had ended before another call began.
    pub(crate) fn has_ended_before(&self, later: &Self) -> bool {
        let longest = match self.fate() {
            Fate::Primary => BRIEF + TOLERANCE,
            Fate::Local => BRIEF + LONGEST_REPLAY,
            Fate::Refused | Fate::Unknown => return false,
        };
        let end = self.end.as_ref().filter(|_| self.action == Action::Brief);
        end.is_some_and(|end| later.begun.at > end.moment.at + longest)
    }
}

/// All that was told.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Whether the processes have different addresses of the database.
    pub(crate) apart: bool,
    pub(crate) lives: Vec<Life>,
    pub(crate) calls: Vec<Call>,
    /// When nothing stood between the processes and the database, in milliseconds.
    healthy: Vec<Range<u64>>,
}

impl History {
    pub(crate) fn of(lives: Vec<Life>, apart: bool, healthy: Vec<Range<u64>>) -> Self {
        let calls = lives.iter().flat_map(calls_of).collect();
        Self { apart, lives, calls, healthy }
    }

    /// Whether a call could ask the primary, for all that is known: its process and its connections are younger than the last trouble, and
    /// nothing held it up.
    pub(crate) fn was_undisturbed(&self, call: &Call) -> bool {
        let started = self.life(call.process).started;
        let Some(End { moment, away: None, .. }) = call.end else { return false };
        let was_healthy = |time: &Range<u64>| time.start < started && moment.at < time.end;
        call.away.is_none() && moment.at < call.begun.at + UNDISTURBED && self.healthy.iter().any(was_healthy)
    }

    pub(crate) fn life(&self, process: i64) -> &Life {
        self.lives.iter().find(|life| life.process == process).expect("a process that lived")
    }

    /// The calls about a key that do as told, also those about all that begins as it does.
    pub(crate) fn of_key<'a>(&'a self, key: &'a str, does: impl Fn(&Call) -> bool + 'a) -> Vec<&'a Call> {
        let about = |call: &Call| call.key == key || (call.action == Action::Clear && key.starts_with(&call.key));
        self.calls.iter().filter(|call| about(call) && does(call)).collect()
    }
}

fn calls_of(life: &Life) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut places = HashMap::new();
    for (line, told) in life.lines.iter().enumerate() {
        match told {
            Line::Begun { call, action, key, after, at, away, bundle } => {
                places.insert(*call, calls.len());
                calls.push(Call {
                    process: life.process,
                    value: value_of(life.process, *call),
                    action: *action,
                    key: key.clone(),
                    after: after.clone(),
                    begun: Moment { at: *at, line },
                    away: *away,
                    bundle: *bundle,
                    end: None,
                });
            }
            Line::Ended { call, answer, before, at, away } => {
                let moment = Moment { at: *at, line };
                calls[places[call]].end =
                    Some(End { answer: answer.clone(), before: before.clone(), moment, away: *away });
            }
            Line::State { .. } => {}
        }
    }
    calls
}

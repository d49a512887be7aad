//! What a process is told, and what it answers: a line of JSON each.

use serde::{Deserialize, Serialize};

/// What a process is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Call(Call),
    Tell,
    /// Waits until the chain is in its normal state, for so many milliseconds.
    Settle(u64),
    /// Takes the database that answers for the known one.
    Accept,
    /// Closes everything in order, and ends.
    Disconnect,
}

/// A call of the library.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) action: Action,
    pub(crate) key: String,
    /// What it writes, which nobody else does.
    pub(crate) value: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    Set,
    Delete,
    /// Of all that begins with the key.
    Clear,
    Append,
    Get,
    /// All items of a list.
    Range,
}

/// What a process answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To its start, to `Tell` and to `Settle`.
    State(State),
    Called(Answer),
    Accepted {
        taken_over: u64,
        told: usize,
    },
    /// It could not be done.
    Failed(String),
    Ended,
}

/// How the chain is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) fenced: bool,
    pub(crate) pending: usize,
    pub(crate) parked: usize,
    pub(crate) left: usize,
    /// Which database is known, in hexadecimal digits.
    pub(crate) known: Option<String>,
    pub(crate) reason: Option<String>,
}

impl State {
    pub(crate) fn is_normal(&self) -> bool {
        self.name == "normal"
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.name == "degraded"
    }
}

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Written {
        local: bool,
    },
    /// A value, or `None` if there is none.
    Read {
        value: Option<i64>,
        pending: bool,
    },
    Items(Vec<i64>),
    /// An error: its kind, and what it says.
    Failed {
        kind: String,
        why: String,
    },
}

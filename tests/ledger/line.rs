//! What a writer tells its parent: a line of JSON each, written before and after every call.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// A call is about to begin.
    Begun {
        call: u64,
        action: Action,
        key: String,
        /// Older than the stamp that the call is given.
        after: Digits,
        at: u64,
        /// Since when the primary is away, if it is known to be.
        away: Option<u64>,
        /// Of the parts of a transaction, the first one's.
        bundle: Option<u64>,
    },
    /// It has ended.
    Ended {
        call: u64,
        answer: Answer,
        /// Newer than the stamp that the call was given.
        before: Digits,
        at: u64,
        away: Option<u64>,
    },
    /// The state of the chain is another one.
    State { state: String, pending: usize, parked: usize },
}

/// A stamp as its 32 digits, which sort as it does.
pub(crate) type Digits = String;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    Set,
    /// A set with a TTL.
    Brief,
    /// A set where there is nothing.
    Create,
    Delete,
    /// Of all that begins with the key.
    Clear,
    /// An update that adds one.
    Count,
    Append,
    Trim,
    Get,
    Length,
}

/// What was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// A write was acknowledged; that of a value with its stamp.
    Written { stamp: Option<Digits>, local: bool },
    /// A value was read, or `None` is there.
    Read { value: Option<i64>, stamp: Option<Digits>, pending: bool },
    /// An update was acknowledged, and left this number.
    Counted(i64),
    /// A list was trimmed.
    Trimmed,
    /// A list has so many items.
    Length(u64),
    /// An error of this kind.
    Failed(String),
}

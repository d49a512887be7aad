//! Transactions: steps in order, all or nothing.

use crate::contract::{Step, StepAck};
use crate::engine::sqlite::SqlResult;
use crate::error::Error;

use super::session::Session;
use super::{list, write};

/// What steps take of the queue.
pub(super) fn weight(steps: &[Step]) -> usize {
    let weigh = |step: &Step| match step {
        Step::Write(write) => write::weight(write),
        Step::Append(append) => list::weight(append),
        Step::Trim { key, .. } => key.as_str().len(),
        Step::Expired { key, value, .. } => key.as_str().len() + value.len(),
        Step::Clear { prefix, .. } => prefix.as_str().len(),
    };
    steps.iter().map(weigh).sum()
}

/// Applies steps in order. Its error means that the caller must undo all of them.
pub(super) fn apply(session: &Session<'_>, steps: &[Step]) -> SqlResult<Vec<StepAck>> {
    let one = |step: &Step| match step {
        Step::Write(write) => write::write(session, write).map(StepAck::Write),
        Step::Append(append) => list::append(session, append).map(StepAck::Append),
        Step::Trim { key, keep_last } => list::trim(session, key, *keep_last).map(StepAck::Trim),
        Step::Expired { .. } => Err(Error::unsupported("a put that has ended can only be replayed").into()),
        Step::Clear { .. } => Err(Error::unsupported("a transaction cannot clear a prefix; clear it by itself").into()),
    };
    steps.iter().map(one).collect()
}

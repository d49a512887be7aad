//! Whom a failed replay blames: one of its steps, or none.

use crate::error::{Error, ErrorKind};

use super::error::{fails_inside, is_position_taken};
use super::list::beyond_count;

/// A failure after a part was applied is not one of a replay that was not applied.
pub(super) fn broken_off(failure: Error, applied: bool) -> Error {
    let failure = of_all(failure);
    if !applied || failure.kind() != ErrorKind::Unavailable {
        return failure;
    }
    let unknown = Error::outcome_unknown("the replay broke off in the middle; a part of it was applied");
    let unknown = match failure.outage() {
        Some(outage) => unknown.with_outage(outage),
        None => unknown,
    };
    unknown.with_source(failure)
}

/// Whether something failed for a reason that is not in one of the steps. What fails inside the server may be: the others tell.
pub(super) fn is_of_all(failure: &Error) -> bool {
    passes(failure) && !fails_inside(failure) || failure.kind() == ErrorKind::Config
}

fn passes(failure: &Error) -> bool {
    matches!(failure.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::Closed)
}

/// A failure of all steps as what passes, whatever it is: a right that was taken away, a table that lost its row, a server's disk. Each
/// step would else be taken for one that the database never accepts.
pub(super) fn of_all(failure: Error) -> Error {
    if passes(&failure) {
        return failure;
    }
    let why = format!("the replay failed for a reason that is in none of its operations: {}", failure.message());
    Error::unavailable(why).with_source(failure)
}

/// A failure of one step, though others may succeed.
pub(super) fn of_step(error: Error) -> Error {
    match &error {
        _ if is_position_taken(&error) => beyond_count(error),
        _ if fails_inside(&error) => Error::internal(error.message().to_owned()).with_source(error),
        _ => error,
    }
}

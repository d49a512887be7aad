//! Errors: which belong to one item of a batch, and what each of ours says of its origin.

use crate::engine::sqlite::{SqlError, SqlResult};
use crate::error::Result;

/// The backend's name in errors and capabilities.
pub(super) const BACKEND: &str = "sqlite";

/// Names backend and operation in an error.
pub(super) fn during<T>(operation: &'static str, result: Result<T>) -> Result<T> {
    result.map_err(|error| error.with_context(BACKEND, operation))
}

/// The answer of one item of a batch.
///
/// An answer about the item itself, as a lost condition or a corrupt record, is the item's alone; it is found before
/// anything is changed. A failure of SQLite's is everybody's.
pub(super) fn of_item<T>(outcome: SqlResult<T>) -> SqlResult<Result<T>> {
    match outcome {
        Ok(answer) => Ok(Ok(answer)),
        Err(SqlError::Storage(error)) => Ok(Err(error)),
        Err(error) if error.is_about_a_row() => Ok(Err(error.into_error())),
        Err(error) => Err(error),
    }
}

/// The same answer for every item of a batch that failed as a whole.
pub(super) fn for_all<T>(outcome: Result<Vec<Result<T>>>, items: usize) -> Vec<Result<T>> {
    outcome.unwrap_or_else(|error| (0..items).map(|_| Err(error.clone())).collect())
}

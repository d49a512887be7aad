//! What a job fails with, and the one place where a SQLite error becomes one of ours.

use std::fmt;

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind, Outage};

/// What an error says of a file that cannot be used.
const DOWN: Option<Outage> = Some(Outage::Down);

/// The result of what runs on a connection.
pub(crate) type SqlResult<T> = Result<T, SqlError>;

/// What a job fails with: SQLite's error as it came, or one of ours.
#[derive(Debug)]
pub(crate) enum SqlError {
    /// SQLite failed.
    Sqlite(rusqlite::Error),
    /// The job decided so.
    Storage(Error),
}

impl SqlError {
    /// Whether another connection holds a lock for now; waiting helps.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self.code(),
            // A protocol failure is a lost race for the write-ahead log, which SQLite reports after its own retries.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
        )
    }

    /// Whether the file, or the disk below it, failed in a way that leaves open what is on the disk.
    pub(super) fn is_io_failure(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }

    /// Whether the file is not a SQLite database at all.
    pub(super) fn is_not_a_database(&self) -> bool {
        self.code() == Some(ErrorCode::NotADatabase)
    }

    /// Whether SQLite read a row, and the row does not hold what was written there.
    pub(crate) fn is_about_a_row(&self) -> bool {
        matches!(self, Self::Sqlite(_)) && self.code().is_none()
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::Storage(_) => None,
        }
    }

    /// Makes it an error of ours.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Sqlite(error) => from_sqlite(error),
            Self::Storage(error) => error,
        }
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for SqlError {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => fmt::Display::fmt(error, f),
            Self::Storage(error) => fmt::Display::fmt(error, f),
        }
    }
}

/// The error of a lock that outlasted a call.
pub(super) fn locked() -> Error {
    Error::unavailable("another process holds the database's lock; nothing was written")
}

fn from_sqlite(error: rusqlite::Error) -> Error {
    use ErrorCode as Code;
    let Some(code) = error.sqlite_error_code() else {
        return from_row(error);
    };
    let (kind, message, stays, outage) = match code {
        Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed => {
            return locked().with_source(error);
        }
        Code::DiskFull => {
            (ErrorKind::Unavailable, "the disk is full, or the database may not grow further", false, DOWN)
        }
        Code::SystemIoFailure => (ErrorKind::Unavailable, "reading or writing the database file failed", false, DOWN),
        Code::OperationInterrupted => (ErrorKind::Unavailable, "the call did not end before its deadline", false, None),
        Code::OutOfMemory => (ErrorKind::Unavailable, "SQLite has no memory left", false, None),
        Code::ReadOnly => (ErrorKind::Unavailable, "the database file, or its folder, cannot be written", true, DOWN),
        Code::CannotOpen | Code::PermissionDenied | Code::AuthorizationForStatementDenied => {
            let why = "the database file cannot be opened; check its path and permissions";
            (ErrorKind::Unavailable, why, true, DOWN)
        }
        // No reason to go on elsewhere: it would go on for ever.
        Code::DatabaseCorrupt => {
            (ErrorKind::Corrupt, "the database file is damaged; `PRAGMA integrity_check` says where", false, None)
        }
        Code::NotADatabase => (ErrorKind::Corrupt, "the file is no SQLite database any more", false, None),
        Code::TooBig => (ErrorKind::TooLarge, "the value is larger than SQLite takes", false, None),
        _ => (ErrorKind::Internal, "SQLite refused a statement", false, None),
    };
    let ours = Error::new(kind, message).with_source(error);
    let ours = if stays { ours.permanent() } else { ours };
    match outage {
        Some(outage) => ours.with_outage(outage),
        None => ours,
    }
}

/// What rusqlite reports by itself is about a column that holds something else than was written there.
fn from_row(error: rusqlite::Error) -> Error {
    use rusqlite::Error as Sql;
    match error {
        Sql::FromSqlConversionFailure(..)
        | Sql::IntegralValueOutOfRange(..)
        | Sql::Utf8Error(..)
        | Sql::InvalidColumnType(..) => {
            Error::corrupt("a stored record does not hold what was written there").with_source(error)
        }
        other => Error::internal("a SQLite statement was used wrongly").with_source(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> SqlError {
        SqlError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
    }

    #[test]
    fn a_full_disk_passes_and_a_read_only_file_stays() {
        let full = failure(rusqlite::ffi::SQLITE_FULL).into_error();
        assert!(full.kind() == ErrorKind::Unavailable && full.is_transient());
        let read_only = failure(rusqlite::ffi::SQLITE_READONLY).into_error();
        assert!(read_only.kind() == ErrorKind::Unavailable && !read_only.is_transient());
    }

    #[test]
    fn what_the_disk_refuses_is_an_outage_and_what_is_damaged_or_locked_is_none() {
        use rusqlite::ffi;
        let refused = [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_READONLY, ffi::SQLITE_CANTOPEN];
        for code in refused {
            assert_eq!(failure(code).into_error().outage(), Some(Outage::Down), "{code}");
        }
        let answers =
            [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_BUSY, ffi::SQLITE_INTERRUPT, ffi::SQLITE_NOMEM];
        for code in answers {
            assert_eq!(failure(code).into_error().outage(), None, "{code}");
        }
    }

    #[test]
    fn locks_are_told_from_failures() {
        assert!(failure(rusqlite::ffi::SQLITE_BUSY_SNAPSHOT).is_busy());
        assert!(!failure(rusqlite::ffi::SQLITE_FULL).is_busy());
        assert!(failure(rusqlite::ffi::SQLITE_IOERR_FSYNC).is_io_failure());
    }

    #[test]
    fn a_column_of_another_type_is_a_corrupt_record() {
        let error = rusqlite::Error::InvalidColumnType(0, "stamp".to_owned(), rusqlite::types::Type::Null);
        assert_eq!(SqlError::from(error).into_error().kind(), ErrorKind::Corrupt);
    }
}

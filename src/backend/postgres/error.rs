//! What a failure of the client library or the server means for the caller.
//!
//! The server's own text may quote keys and values, so it never becomes part of a message; the source keeps it for programs
//! that walk the chain.

use std::error::Error as StdError;
use std::io;

use crate::error::{Error, Outage, Result};

use super::expected::foreign;

/// What is known of a statement that failed without the server's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It changed nothing, or it is part of a transaction that was not committed.
    None,
    /// It may have taken effect.
    Possible,
}

/// The code by which `refuse_identity()` ends a statement.
const REFUSED: &str = "AS001";

/// The code by which `refuse_late()` ends a statement.
const LATE: &str = "AS002";

/// The code of what the server has no other for; XX001 and XX002 are damaged rows and indexes.
const INSIDE: &str = "XX000";

/// The code of a unique violation.
const UNIQUE_VIOLATION: &str = "23505";

/// The name that the server gives the primary key of the table `item`.
const POSITION_CONSTRAINT: &str = "item_pkey";

/// Makes an error of what the client library says.
pub(super) fn from_sqlx(error: sqlx::Error, doubt: Doubt) -> Error {
    let code = match &error {
        sqlx::Error::Database(database) => database.code().map(|code| code.into_owned()),
        _ => None,
    };
    let mapped = match (&error, code.as_deref()) {
        (sqlx::Error::Database(_), code) => from_code(code.unwrap_or("none"), doubt),
        (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _) => {
            Error::corrupt("a stored row does not have the shape it was written in")
        }
        (sqlx::Error::Encode(_), _) => Error::invalid_value("an argument cannot be sent to the server"),
        _ => lost(doubt),
    };
    mapped.with_source(error)
}

/// Makes an error of a connection that could not be made.
pub(super) fn from_connect(error: sqlx::Error) -> Error {
    let mapped = match &error {
        sqlx::Error::Configuration(_) => {
            Error::config("the connection cannot be set up; check the certificate files of `ssl`")
        }
        sqlx::Error::Tls(_) => no_tls(),
        sqlx::Error::Io(io) if is_refused_certificate(io) => no_tls(),
        // PgBouncer says so with 08P01, as it says that the server is away.
        sqlx::Error::Database(refused) if refused.message().contains("startup parameter") => Error::unavailable(
            "a pooler before the server refuses the settings of a session; set `transactionPooler: true`",
        )
        .permanent(),
        sqlx::Error::Io(_) => Error::unavailable("the server cannot be reached; check host, port and that it runs")
            .with_outage(Outage::Down),
        _ => return from_sqlx(error, Doubt::None),
    };
    mapped.with_source(error)
}

/// Whether one side does not accept the other's certificate, or its TLS. What else goes wrong on an encrypted line is the line.
fn is_refused_certificate(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::PeerIncompatible(_)) => true,
        Some(rustls::Error::AlertReceived(alert)) => matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::ProtocolVersion
                | Alert::HandshakeFailure
        ),
        _ => false,
    }
}

fn no_tls() -> Error {
    Error::unavailable("the server offers no acceptable TLS; check the `ssl` settings and the server's certificate")
        .permanent()
}

fn lost(doubt: Doubt) -> Error {
    match doubt {
        Doubt::None => Error::unavailable("the connection to the server was lost"),
        Doubt::Possible => Error::outcome_unknown("the connection was lost before the server's reply to a write"),
    }
    .with_outage(Outage::Silent)
}

/// Makes an error of a statement that was sent so long before the deadline that an answer could be expected.
pub(super) fn silent(doubt: Doubt) -> Error {
    timed_out(doubt).with_outage(Outage::Silent)
}

/// Makes an error of one that came too late for the deadline.
pub(super) fn timed_out(doubt: Doubt) -> Error {
    match doubt {
        Doubt::None => Error::unavailable("the server did not answer before the deadline"),
        Doubt::Possible => Error::outcome_unknown("the server did not answer a write before the deadline"),
    }
}

/// Makes an error of a server that takes no writes.
pub(super) fn replica() -> Error {
    Error::unavailable("the server is read-only (25006); it may be a replica").with_outage(Outage::Down)
}

/// The codes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn from_code(code: &str, doubt: Doubt) -> Error {
    match code {
        "28P01" | "28000" => Error::unavailable(format!(
            "the server refuses the user or the password ({code}); correct the configuration"
        ))
        .permanent(),
        "3D000" => Error::unavailable("the database does not exist (3D000); create it or correct its name").permanent(),
        "42501" => {
            Error::config("the role lacks a privilege (42501); it must own the schema, or be allowed to make it")
        }
        REFUSED => foreign(),
        LATE => Error::unavailable(
            "the statement arrived at the server after its deadline, and changed nothing; try again, with a longer `timeout` if the line is slow",
        ),
        "25006" => replica(),
        "40001" | "40P01" => Error::unavailable(format!("the statement collided with another ({code})")),
        "55P03" => Error::unavailable("a lock was not free within `lockTimeout` (55P03)"),
        "57014" => Error::unavailable("the server ended the statement (57014), as by `statementTimeout`"),
        // The server ends the session; where a commit waits for a replica, what was sent may be done.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => match doubt {
            Doubt::None => Error::unavailable(format!("the server is shutting down or starting ({code})")),
            Doubt::Possible => Error::outcome_unknown(format!("the server shut down during a write ({code})")),
        }
        .with_outage(Outage::Down),
        // We took too long, not the server.
        "25P03" | "25P04" => match doubt {
            Doubt::None => Error::unavailable(format!("the server ended a transaction that took too long ({code})")),
            Doubt::Possible => {
                Error::outcome_unknown(format!("the server ended a transaction before its commit ({code})"))
            }
        }
        .with_outage(Outage::Silent),
        "42P01" | "42703" | "42883" | "3F000" => {
            Error::unavailable(format!("the tables are not as this program made them ({code}); restore the schema"))
                .permanent()
        }
        "22021" => Error::invalid_key("the server's encoding has no such character (22021); it must be UTF8"),
        "54000" | "54001" => {
            Error::invalid_value(format!("the value is too large or too deep for the server ({code})"))
        }
        // A statement prepared before somebody else's migration.
        "0A000" => Error::unavailable("the tables changed under a prepared statement (0A000)"),
        _ => match code.get(..2) {
            Some("08") => lost(doubt),
            Some("53") => {
                Error::unavailable(format!("the server is out of a resource ({code}), as connections or disk"))
            }
            Some("58") => Error::unavailable(format!("the server's system failed ({code}), as its disk; see its log")),
            _ if code == INSIDE => Error::unavailable(format!("the server failed inside ({code}); see its log")),
            Some("22") => Error::invalid_value(format!("the server does not take the value ({code})")),
            _ => Error::internal(format!("the server refused a statement ({code})")),
        },
    }
}

/// Whether the server gave up a statement because of others, so that it can be sent again at once.
pub(super) fn is_contention(error: &Error) -> bool {
    matches!(code_of(error).as_deref(), Some("40001" | "40P01"))
}

/// Whether a statement came too late for its deadline, by the server's clock.
pub(super) fn is_late(error: &Error) -> bool {
    code_of(error).as_deref() == Some(LATE)
}

/// Whether the server failed inside, as it says of a quota of the disk, and of what is wrong with one row.
pub(super) fn fails_inside(error: &Error) -> bool {
    code_of(error).as_deref() == Some(INSIDE)
}

/// Whether a schema, table or function is there that the session did not know of: it looks anew only at the next transaction.
pub(super) fn is_made_already(error: &Error) -> bool {
    matches!(code_of(error).as_deref(), Some("42P06" | "42P07" | "42723"))
}

/// Whether tables, columns or functions of ours are not there.
pub(super) fn lacks_tables(error: &Error) -> bool {
    matches!(code_of(error).as_deref(), Some("42P01" | "42703" | "42883" | "3F000"))
}

/// Whether a row is there that the statement's snapshot did not show.
pub(super) fn is_duplicate(error: &Error) -> bool {
    code_of(error).as_deref() == Some(UNIQUE_VIOLATION)
}

/// Whether an item stands where the row of its list says that the next one goes.
pub(super) fn is_position_taken(error: &Error) -> bool {
    is_duplicate(error) && database_error(error).and_then(|error| error.constraint()) == Some(POSITION_CONSTRAINT)
}

/// Whether the server answered, so that the connection is still in step.
pub(super) fn is_answer(error: &Error) -> bool {
    code_of(error).is_some_and(|code| {
        let ended = ["08", "57P", "25P03", "25P04"];
        code != "0A000" && !ended.iter().any(|prefix| code.starts_with(prefix))
    })
}

fn code_of(error: &Error) -> Option<String> {
    database_error(error)?.code().map(|code| code.into_owned())
}

fn database_error(error: &Error) -> Option<&dyn sqlx::error::DatabaseError> {
    error.source()?.downcast_ref::<sqlx::Error>()?.as_database_error()
}

/// Reads a column.
pub(super) fn column<'r, T>(row: &'r sqlx::postgres::PgRow, index: usize) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    use sqlx::Row;
    row.try_get(index).map_err(|error| from_sqlx(error, Doubt::None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_stays_wrong_is_not_transient() {
        for code in ["28P01", "28000", "3D000", "42501", "42P01"] {
            assert!(!from_code(code, Doubt::Possible).is_transient(), "{code}");
        }
        for code in ["57P01", "57P03", "53300", "25006", "40P01", "55P03", "57014", "08006"] {
            assert!(from_code(code, Doubt::None).is_transient(), "{code}");
        }
    }

    #[test]
    fn only_an_answer_takes_the_doubt_away() {
        assert_eq!(lost(Doubt::Possible).kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(from_code("57P01", Doubt::Possible).kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(from_code("40P01", Doubt::Possible).kind(), ErrorKind::Unavailable);
        assert_eq!(from_code("57014", Doubt::Possible).kind(), ErrorKind::Unavailable);
    }
}

//! The errors of the NATS client and of JetStream, as ours. A message never quotes them: they may name hosts or users.

use std::error::Error as StdError;

use async_nats::jetstream::{self, ErrorCode};
use async_nats::{ConnectError, ConnectErrorKind, PublishError};

use crate::error::{Error, ErrorKind};

/// Why a request has no answer, told apart by whether the server may have received it.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent, or nobody was there to take it.
    NotSent(Error),
    /// It was handed to the connection, and what became of it is not known.
    Unanswered(&'static str),
}

impl Failure {
    /// The error of a read, or of anything that changes nothing.
    pub(super) fn of_read(self) -> Error {
        match self {
            Self::NotSent(error) => error,
            Self::Unanswered(reason) => Error::unavailable(reason),
        }
    }

    /// The error of a write.
    pub(super) fn of_write(self) -> Error {
        match self {
            Self::NotSent(error) => error,
            Self::Unanswered(reason) => Error::outcome_unknown(format!("{reason}; the write may have been applied")),
        }
    }
}

/// A message that the client did not take.
pub(super) fn publish_failure(error: PublishError) -> Error {
    match error.kind() {
        async_nats::PublishErrorKind::MaxPayloadExceeded => {
            Error::too_large("the message is larger than the server's max_payload").with_source(error)
        }
        async_nats::PublishErrorKind::InvalidSubject => {
            Error::new(ErrorKind::Internal, "the key has no valid subject").with_source(error)
        }
        async_nats::PublishErrorKind::Send => Error::unavailable("the connection was lost").with_source(error),
    }
}

/// An answer of JetStream that says no.
pub(super) fn api_failure(error: jetstream::Error) -> Error {
    let code = error.error_code();
    let failure = match code {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Error::config("JetStream is not enabled for this account; enable it in the server's configuration")
        }
        _ if is_full(&error) => {
            Error::unavailable("the bucket or the server's storage is full; raise maxBytes or delete something")
        }
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Error::too_large("the value is larger than the bucket takes"),
        _ => Error::unavailable(format!("the server refused with JetStream error {}", code.0)),
    };
    failure.with_source(error)
}

/// Whether JetStream says that there is no room.
pub(super) fn is_full(error: &jetstream::Error) -> bool {
    matches!(
        error.error_code(),
        ErrorCode::STREAM_STORE_FAILED | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED | ErrorCode::INSUFFICIENT_RESOURCES
    )
}

/// Whether JetStream says that the last message of the subject is another one.
pub(super) fn is_conflict(error: &jetstream::Error) -> bool {
    // 10164 is the answer of a stream with replicas while another write of the subject is under way (nats-server 2.12).
    matches!(error.error_code(), ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode(10164))
}

/// A connection that was not made.
pub(super) fn connect_failure(error: ConnectError) -> Error {
    let failure = match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            Error::unavailable("the server refused our credentials; check user, password, token or key").permanent()
        }
        ConnectErrorKind::Authentication => {
            Error::unavailable("the server's challenge cannot be signed; check the NKey seed or credentials file")
                .permanent()
        }
        _ if is_tls_refusal(&error) => {
            Error::unavailable("no encrypted connection: check the host name, the certificates and tls.caFile")
                .permanent()
        }
        ConnectErrorKind::TimedOut => Error::unavailable("the server did not complete the connection in time"),
        ConnectErrorKind::Dns => Error::unavailable("the server's host name is not known; check host"),
        ConnectErrorKind::ServerParse => Error::config("the server's address is not valid; check host and port"),
        _ => Error::unavailable("cannot connect to the server; check that it runs, and host and port"),
    };
    failure.with_source(error)
}

/// Whether TLS itself failed, and not the connection beneath it.
fn is_tls_refusal(error: &ConnectError) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        cause = error.source();
    }
    error.kind() == ConnectErrorKind::Tls
}

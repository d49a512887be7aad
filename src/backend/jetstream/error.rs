//! The errors of the NATS client and of JetStream, as ours. A message never quotes them: they may name hosts or users.

use std::error::Error as StdError;
use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode};
use async_nats::{ConnectError, ConnectErrorKind, PublishError};

use crate::error::{Error, ErrorKind, Outage};

/// From when on a wait in vain says something of the server, and not only of the time that was left for it.
const PATIENCE: Duration = Duration::from_millis(50);

/// Why a request has no answer, told apart by whether the server may have received it.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent, or nobody was there to take it.
    NotSent(Error),
    /// It was handed to the connection, and what became of it is not known. What that tells of the server stands beside why.
    Unanswered(&'static str, Option<Outage>),
}

impl Failure {
    /// The error of a read, or of anything that changes nothing.
    pub(super) fn of_read(self) -> Error {
        match self {
            Self::NotSent(error) => error,
            Self::Unanswered(reason, outage) => telling(Error::unavailable(reason), outage),
        }
    }

    /// The error of a write.
    pub(super) fn of_write(self) -> Error {
        match self {
            Self::NotSent(error) => error,
            Self::Unanswered(reason, outage) => {
                telling(Error::outcome_unknown(format!("{reason}; the write may have been applied")), outage)
            }
        }
    }
}

fn telling(error: Error, outage: Option<Outage>) -> Error {
    match outage {
        Some(outage) => error.with_outage(outage),
        None => error,
    }
}

/// The connection was lost, so that nothing was sent, or nothing was changed.
pub(super) fn lost() -> Error {
    Error::unavailable("the connection was lost").with_outage(Outage::Silent)
}

/// Nobody takes what is sent to the bucket.
pub(super) fn no_responders() -> Error {
    Error::unavailable(
        "nobody answers for the bucket: JetStream is starting or electing a leader, or the bucket was removed",
    )
    .with_outage(Outage::Down)
}

/// No answer came within a wait of this length.
pub(super) fn silence(waited: Duration) -> Option<Outage> {
    (waited >= PATIENCE).then_some(Outage::Silent)
}

/// There was no connection within a wait of this length.
pub(super) fn no_connection(waited: Duration) -> Error {
    telling(Error::unavailable("there is no connection to the server yet"), silence(waited))
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
        async_nats::PublishErrorKind::Send => lost().with_source(error),
    }
}

/// The status, as HTTP has it, of what JetStream cannot do for now.
const UNAVAILABLE: usize = 503;

/// An answer of JetStream that says no.
pub(super) fn api_failure(error: jetstream::Error) -> Error {
    let code = error.error_code();
    let failure = match code {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Error::config("JetStream is not enabled for this account; enable it in the server's configuration")
        }
        _ if is_full(&error) => {
            Error::unavailable("the bucket or the server's storage is full; raise maxBytes or delete something").full()
        }
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Error::too_large("the value is larger than the bucket takes"),
        // The server's own word for being unavailable: it has no leader, or is about to stop.
        _ if error.code() == UNAVAILABLE => {
            Error::unavailable(format!("JetStream is not available for now (error {})", code.0))
                .with_outage(Outage::Down)
        }
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
        ConnectErrorKind::TimedOut => {
            Error::unavailable("the server did not complete the connection in time").with_outage(Outage::Silent)
        }
        ConnectErrorKind::Dns => {
            Error::unavailable("the server's host name is not known; check host").with_outage(Outage::Down)
        }
        ConnectErrorKind::ServerParse => Error::config("the server's address is not valid; check host and port"),
        _ => Error::unavailable("cannot connect to the server; check that it runs, and host and port")
            .with_outage(Outage::Down),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, error_code: u64) -> Error {
        let text = format!(r#"{{"code":{code},"err_code":{error_code},"description":"x"}}"#);
        api_failure(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_server_without_a_leader_is_down_and_a_full_or_refusing_one_is_not() {
        assert_eq!(answered(503, 10008).outage(), Some(Outage::Down));
        // Insufficient resources, storage failed, wrong last sequence, too many requests.
        for (code, error_code) in [(503, 10023), (503, 10077), (400, 10071), (429, 10167)] {
            assert_eq!(answered(code, error_code).outage(), None, "{error_code}");
        }
        assert_eq!(no_responders().outage(), Some(Outage::Down));
    }

    #[test]
    fn what_was_lost_on_the_way_tells_of_the_server_and_what_was_not_understood_does_not() {
        let unanswered = |outage| Failure::Unanswered("x", outage);
        assert_eq!(unanswered(silence(PATIENCE)).of_write().outage(), Some(Outage::Silent));
        assert_eq!(unanswered(silence(PATIENCE)).of_read().outage(), Some(Outage::Silent));
        assert_eq!(unanswered(silence(PATIENCE / 2)).of_read().outage(), None);
        assert_eq!(lost().outage(), Some(Outage::Silent));
        assert_eq!(no_connection(PATIENCE).outage(), Some(Outage::Silent));
    }
}

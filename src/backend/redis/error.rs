//! What the client's and the server's errors mean to a caller.
//!
//! The server's own text is never shown: it may quote arguments, and so values. Only its code is.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerError};

use crate::error::{Error, Outage};

/// Whether a command changes something, which decides what a lost reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It only reads; without its reply nothing is known and nothing is changed.
    Read,
    /// It may write; without its reply nobody knows whether it did.
    Write,
}

/// From when on a wait in vain says something of the server, and not only of the time that was left for it.
const PATIENCE: Duration = Duration::from_millis(50);

/// The codes that a script of an older server hides in the text of a general error.
const HIDDEN_IN_SCRIPTS: [&str; 6] = ["OOM", "WRONGTYPE", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM"];

/// The deadline passed before the command was sent.
pub(super) fn not_sent() -> Error {
    Error::unavailable("the deadline passed before the command could be sent to Redis")
}

/// The deadline passed while a connection was awaited, for this long.
pub(super) fn no_connection(waited: Duration) -> Error {
    silent_after(waited, Error::unavailable("there was no connection to Redis before the deadline"))
}

/// The deadline passed while the reply was awaited, for this long.
pub(super) fn no_reply(effect: Effect, waited: Duration) -> Error {
    let late = match effect {
        Effect::Read => Error::unavailable("Redis did not answer before the deadline"),
        Effect::Write => Error::outcome_unknown("Redis did not answer before the deadline; the write may be applied"),
    };
    silent_after(waited, late)
}

fn silent_after(waited: Duration, late: Error) -> Error {
    if waited >= PATIENCE { late.with_outage(Outage::Silent) } else { late }
}

/// The connection broke while the reply was awaited.
pub(super) fn connection_lost(error: RedisError, effect: Effect) -> Error {
    match effect {
        Effect::Read => Error::unavailable("the connection to Redis broke before the answer came"),
        Effect::Write => Error::outcome_unknown("the connection to Redis broke; the write may be applied"),
    }
    .with_outage(Outage::Silent)
    .with_source(error)
}

/// The server answered in a form that the command does not have.
pub(super) fn unexpected_reply() -> Error {
    Error::internal("Redis answered in an unexpected form")
}

/// No connection could be made within the time for it.
pub(super) fn connecting_timed_out() -> Error {
    Error::unavailable("Redis did not accept a connection in time; is the server overloaded, or a firewall in between?")
        .with_outage(Outage::Silent)
}

/// The attempt to connect was ended from outside: the cache was closed, or its runtime shut down.
pub(super) fn connecting_cut_off() -> Error {
    Error::unavailable("connecting to Redis was cut off")
}

/// No connection could be made.
pub(super) fn connecting(error: RedisError) -> Error {
    let code = error.code().unwrap_or_default();
    let failed = match error.kind() {
        ErrorKind::AuthenticationFailed => wrong_credentials(),
        ErrorKind::Io => unreachable(&error),
        ErrorKind::RESP3NotSupported => Error::unavailable("the server is older than Redis 6.2").permanent(),
        ErrorKind::InvalidClientConfig => unreachable(&error),
        _ if matches!(code, "WRONGPASS" | "NOAUTH") => wrong_credentials(),
        _ if code == "DENIED" => {
            Error::unavailable("Redis is in protected mode and takes only local connections; give it a password")
                .permanent()
        }
        // The client library tells it from other refusals by its text alone.
        _ if error.to_string().contains("refused to switch database") => {
            Error::unavailable("Redis does not have that database; lower `database`, or raise `databases` there")
                .permanent()
        }
        _ if error.detail().is_some_and(|detail| detail.contains("max number of clients")) => {
            Error::unavailable("Redis has no connection left; raise its `maxclients`, or lower `maxConnections`")
        }
        _ => by_code(code),
    };
    failed.with_source(error)
}

/// The server answered with an error, so the command was not applied.
pub(super) fn refused(error: ServerError) -> Error {
    by_code(code_of(&error)).with_source(error)
}

/// The server refused to add to what is stored.
pub(super) fn increment_refused(error: ServerError) -> Error {
    let details = error.details().unwrap_or_default();
    if details.contains("would overflow") {
        Error::invalid_value("the sum would leave the range of 64-bit integers").with_source(error)
    } else if details.contains("not an integer") {
        Error::wrong_type("the stored value is not an integer in the range of 64 bits").with_source(error)
    } else {
        refused(error)
    }
}

/// Whether the server is a replica that takes no writes.
pub(super) fn is_read_only(error: &ServerError) -> bool {
    code_of(error) == "READONLY"
}

/// Whether the server does not know the script that was called by its digest.
pub(super) fn is_unknown_script(error: &ServerError) -> bool {
    error.code() == "NOSCRIPT"
}

/// The error's code. Before version 7, an error within a script came as `ERR Error running script`, the code in its text.
fn code_of(error: &ServerError) -> &str {
    let words = || error.details().unwrap_or_default().split_whitespace();
    if error.code() != "ERR" || !words().take(2).eq(["Error", "running"]) {
        return error.code();
    }
    let hidden =
        words().find_map(|word| HIDDEN_IN_SCRIPTS.into_iter().find(|code| *code == word.trim_start_matches('-')));
    hidden.unwrap_or("ERR")
}

fn by_code(code: &str) -> Error {
    match code {
        "WRONGTYPE" => Error::wrong_type("the key holds another Redis type, such as a list; another client wrote it"),
        "OOM" => {
            Error::unavailable("Redis is out of memory: `maxmemory` is reached and its policy evicts nothing").full()
        }
        "MISCONF" => down("Redis takes no writes because it cannot save to its disk; see its log"),
        "READONLY" => down("the server is a read-only replica; connect to its primary"),
        "NOREPLICAS" => down("Redis takes no writes because too few replicas are connected to it"),
        "LOADING" => down("Redis is loading its data; try again soon"),
        "MASTERDOWN" => down("the server is a replica whose primary is away"),
        "BUSY" => down("Redis is busy with somebody's long script, and answers nothing else"),
        "NOSCRIPT" => Error::unavailable("Redis dropped its scripts meanwhile; nothing was applied, try again"),
        "NOAUTH" | "WRONGPASS" => wrong_credentials(),
        "NOPERM" => {
            Error::unavailable("the Redis user may not run this command on this key; see its access rules").permanent()
        }
        "MOVED" | "ASK" | "CROSSSLOT" | "CROSSSSLOT" | "CLUSTERDOWN" | "TRYAGAIN" => {
            Error::config("the server is a node of a Redis Cluster; this backend needs a single server")
        }
        other => Error::unavailable(format!("Redis refused the command with {other}; is it version 6.2 or later?"))
            .permanent(),
    }
}

/// What a server says that cannot be used for now. Being full is not among it: it still answers, and deletes.
fn down(message: &'static str) -> Error {
    Error::unavailable(message).with_outage(Outage::Down)
}

fn wrong_credentials() -> Error {
    Error::unavailable("Redis refused the user name or password; check `username` and `password`").permanent()
}

fn unreachable(error: &RedisError) -> Error {
    // The client library keeps it behind a shared pointer, which is an error of its own.
    let shared = error.source().and_then(|source| source.downcast_ref::<Arc<dyn StdError + Send + Sync>>());
    let cause = shared.and_then(|shared| shared.downcast_ref::<io::Error>());
    if cause.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>()) {
        return Error::unavailable(
            "no encrypted connection to Redis: the handshake failed; check its certificate and the configured files",
        )
        .permanent();
    }
    let (reason, outage) = match cause.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => ("it was refused", Outage::Down),
        Some(io::ErrorKind::TimedOut) => ("nothing answered", Outage::Silent),
        _ => ("the server cannot be reached", Outage::Down),
    };
    Error::unavailable(format!(
        "no connection to Redis: {reason}; is the server running, and are `host` and `port` right?"
    ))
    .with_outage(outage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind as Kind;

    fn answered(code: &str, details: &str) -> ServerError {
        let error = redis::make_extension_error(code.to_owned(), Some(details.to_owned()));
        error.into_server_errors().unwrap()[0].1.clone()
    }

    #[test]
    fn a_full_server_is_tried_again_and_a_forbidden_command_is_not() {
        assert!(refused(answered("OOM", "command not allowed")).is_transient());
        let forbidden = refused(answered("NOPERM", "this user has no permissions"));
        assert_eq!(forbidden.kind(), Kind::Unavailable);
        assert!(!forbidden.is_transient());
    }

    #[test]
    fn a_server_that_cannot_be_used_says_so_and_a_full_one_or_a_refusal_is_no_outage() {
        for code in ["LOADING", "READONLY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "BUSY"] {
            assert_eq!(refused(answered(code, "x")).outage(), Some(Outage::Down), "{code}");
        }
        for code in ["OOM", "WRONGTYPE", "NOPERM", "NOAUTH", "NOSCRIPT", "MOVED", "ERR"] {
            assert_eq!(refused(answered(code, "x")).outage(), None, "{code}");
        }
    }

    #[test]
    fn only_a_wait_that_was_long_enough_says_something_of_the_server() {
        for effect in [Effect::Read, Effect::Write] {
            assert_eq!(no_reply(effect, PATIENCE).outage(), Some(Outage::Silent));
            assert_eq!(no_reply(effect, PATIENCE / 2).outage(), None);
        }
        assert_eq!(not_sent().outage(), None);
        assert_eq!(no_connection(PATIENCE).outage(), Some(Outage::Silent));
    }

    #[test]
    fn the_code_within_a_script_of_an_older_server_counts() {
        let text = "Error running script (call to f_1): @user_script:1: WRONGTYPE Operation against a key";
        assert_eq!(refused(answered("ERR", text)).kind(), Kind::WrongType);
        let text = "Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed";
        assert!(refused(answered("ERR", text)).is_transient());
        // Outside a script, the text may quote a value.
        assert!(!refused(answered("ERR", "unknown command 'x' with args OOM")).is_transient());
    }

    #[test]
    fn the_text_of_the_server_is_never_shown() {
        let error = refused(answered("ERR", "unknown command, with args beginning with: 'secret'"));
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

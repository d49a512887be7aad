//! The one error of this crate: a small opaque [`Error`] with an [`ErrorKind`] that programs decide by.
//!
//! This module knows nothing else of the crate. Conversions from a client library's errors stand beside that client.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a program can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The key, prefix or pattern is not one: empty, too long, or with a control character.
    InvalidKey,
    /// The value, or an argument such as a TTL, is not acceptable: bad JSON, a TTL of zero, an unreadable revision.
    InvalidValue,
    /// The value is larger than the store takes.
    TooLarge,
    /// A condition did not hold: the entry exists, is gone, or has another revision, or is newer than a write that keeps its
    /// stamp. It is an answer, not a failure.
    Conflict,
    /// The key holds something of another type.
    WrongType,
    /// The store cannot be reached or used now. A write with this error was **not** applied.
    Unavailable,
    /// The reply to a write was lost: it may or may not have been applied.
    OutcomeUnknown,
    /// This store cannot do that; its `Capabilities` say so too.
    Unsupported,
    /// The backend is not compiled in; the message names the feature to add.
    FeatureDisabled,
    /// The configuration is not valid, or does not fit what it meets.
    Config,
    /// What is stored cannot be read back.
    Corrupt,
    /// The store was closed.
    Closed,
    /// A defect in this crate, or in a callback it was handed.
    Internal,
}

impl ErrorKind {
    /// The kind's name in lower case with underscores, as logs, metrics and the command line show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidKey => "invalid_key",
            Self::InvalidValue => "invalid_value",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::WrongType => "wrong_type",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Unsupported => "unsupported",
            Self::FeatureDisabled => "feature_disabled",
            Self::Config => "config",
            Self::Corrupt => "corrupt",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an error tells of the store itself, so that a fallback can decide by it.
///
/// A backend attaches it where it knows; an error without one is an answer, or overload of our own, and no reason to fall back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outage {
    /// The store cannot be used, and said so: connections are refused, it shuts down or starts, or takes no writes.
    Down,
    /// What was sent found no answer in time: the store may be slow, cut off or frozen.
    Silent,
    /// Another database than the one expected answered, or an older state of it.
    Foreign,
}

/// What an error says of a write that keeps its stamp and was refused, because something as new or newer stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Behind {
    /// Whether a part of it was applied: of a delete where value and list are guarded apart one of them, of a clear the keys
    /// that were older.
    pub begun: bool,
    /// How many entries that part removed; of a delete at most one.
    pub removed: u64,
    /// The bytes of the newest stamp that stands in its way, which sort as it does; see `Behind::standing`.
    pub(crate) standing: Option<[u8; 16]>,
}

impl Behind {
    /// Nothing of the write was applied.
    pub const NOT_BEGUN: Self = Self { begun: false, removed: 0, standing: None };

    /// A part of the write was applied, and removed so many entries.
    #[must_use]
    pub const fn in_part(removed: u64) -> Self {
        Self { begun: true, removed, standing: None }
    }

    /// Entries that were older were removed, so many; none, and nothing was applied.
    #[must_use]
    pub const fn after_removing(removed: u64) -> Self {
        Self { begun: removed > 0, removed, standing: None }
    }

    /// What two attempts of a write did together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let removed = self.removed.saturating_add(other.removed);
        Self { begun: self.begun || other.begun, removed, standing: self.standing.max(other.standing) }
    }
}

/// An error of this crate.
///
/// It is cheap to clone, so that one failure can answer every caller that waited for it. Its text never holds a value, a
/// secret or a whole URL.
///
/// # Examples
///
/// ```
/// use agent_storage::{ErrorKind, Key};
///
/// let error = Key::parse("").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidKey);
/// assert!(!error.is_transient());
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    backend: Option<&'static str>,
    operation: Option<&'static str>,
    permanent: bool,
    full: bool,
    outage: Option<Outage>,
    behind: Option<Behind>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of a kind, with a message that says what to do next where that is known.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                backend: None,
                operation: None,
                permanent: false,
                full: false,
                outage: None,
                behind: None,
                source: None,
            }),
        }
    }

    /// Attaches the error that caused this one.
    ///
    /// The source is kept for programs that walk the chain; it is not part of the text, because a client library's text
    /// may name hosts, users or values.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(Arc::new(source));
        self
    }

    /// Names the backend and the operation that failed; the first names given stay.
    #[must_use]
    pub fn with_context(mut self, backend: &'static str, operation: &'static str) -> Self {
        self.add_context(backend, operation);
        self
    }

    pub(crate) fn add_context(&mut self, backend: &'static str, operation: &'static str) {
        let inner = Arc::make_mut(&mut self.inner);
        inner.backend.get_or_insert(backend);
        inner.operation.get_or_insert(operation);
    }

    /// Says that trying again cannot help, as with a wrong password.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        Arc::make_mut(&mut self.inner).permanent = true;
        self
    }

    /// Says that the store answered, and has no room: it takes nothing more, and is read and deleted from as before.
    #[must_use]
    pub fn full(mut self) -> Self {
        Arc::make_mut(&mut self.inner).full = true;
        self
    }

    /// Whether the store answered that it has no room. Redis and JetStream tell.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.inner.full
    }

    /// Says what the error tells of the store itself.
    #[must_use]
    pub fn with_outage(mut self, outage: Outage) -> Self {
        Arc::make_mut(&mut self.inner).outage = Some(outage);
        self
    }

    /// What the error tells of the store itself, if anything.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.inner.outage
    }

    /// Makes the error of a write that keeps its stamp, where something as new or newer stands: an [`ErrorKind::Conflict`].
    #[must_use]
    pub fn behind(behind: Behind) -> Self {
        let mut error = Self::conflict("something as new or newer stands there, and the write keeps its stamp");
        Arc::make_mut(&mut error.inner).behind = Some(behind);
        error
    }

    /// Whether a write that keeps its stamp was refused, because something as new or newer stands there; see
    /// [`Attempt::Fixed`](crate::contract::Attempt::Fixed). What stands there was not changed, and the clock of the store has seen
    /// its stamp, so the next one it gives is newer.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.inner.behind.is_some()
    }

    /// What became of a write that is behind.
    #[must_use]
    pub fn as_behind(&self) -> Option<Behind> {
        self.inner.behind
    }

    /// What went wrong, to decide by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What went wrong, in words, without the names of backend and operation.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The backend that failed, where one did.
    #[must_use]
    pub fn backend(&self) -> Option<&'static str> {
        self.inner.backend
    }

    /// The operation that failed, where one did.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.inner.operation
    }

    /// Whether the same call may succeed later without anything being changed.
    ///
    /// True for [`ErrorKind::Unavailable`] and [`ErrorKind::OutcomeUnknown`], unless the cause is known to stay, as a
    /// refused password does.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) && !self.inner.permanent
    }

    /// Whether the error is a lost condition.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.inner.kind == ErrorKind::Conflict
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        impl Error {
            $($(#[$doc])* #[must_use] pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

constructors! {
    /// Makes an [`ErrorKind::InvalidKey`].
    invalid_key => InvalidKey;
    /// Makes an [`ErrorKind::InvalidValue`].
    invalid_value => InvalidValue;
    /// Makes an [`ErrorKind::TooLarge`].
    too_large => TooLarge;
    /// Makes an [`ErrorKind::Conflict`].
    conflict => Conflict;
    /// Makes an [`ErrorKind::WrongType`].
    wrong_type => WrongType;
    /// Makes an [`ErrorKind::Unavailable`]: nothing was applied.
    unavailable => Unavailable;
    /// Makes an [`ErrorKind::OutcomeUnknown`]: a write may have been applied.
    outcome_unknown => OutcomeUnknown;
    /// Makes an [`ErrorKind::Unsupported`].
    unsupported => Unsupported;
    /// Makes an [`ErrorKind::Config`].
    config => Config;
    /// Makes an [`ErrorKind::Corrupt`].
    corrupt => Corrupt;
    /// Makes an [`ErrorKind::Internal`].
    internal => Internal;
}

impl Error {
    /// Makes an [`ErrorKind::Closed`].
    #[must_use]
    pub fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the store was closed")
    }

    /// Makes the error of a callback that this crate was handed, such as a loader, from the callback's own.
    #[must_use]
    pub fn callback(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut error = Self::internal("the callback failed; its own error is this one's source");
        Arc::make_mut(&mut error.inner).source = Some(Arc::from(source.into()));
        error
    }

    /// Makes an [`ErrorKind::FeatureDisabled`] that names the line to run.
    #[must_use]
    pub fn feature_disabled(feature: &str) -> Self {
        Self::new(
            ErrorKind::FeatureDisabled,
            format!("this backend is not compiled in; run `cargo add agent-storage --features {feature}`"),
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.inner.backend, self.inner.operation) {
            (Some(backend), Some(operation)) => write!(f, "{backend}: {operation}: ")?,
            (Some(name), None) | (None, Some(name)) => write!(f, "{name}: ")?,
            (None, None) => {}
        }
        write!(f, "{} ({})", self.inner.message, self.inner.kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("backend", &self.inner.backend)
            .field("operation", &self.inner.operation)
            .field("transient", &self.is_transient())
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_context_stays() {
        let error = Error::unavailable("refused").with_context("redis", "get").with_context("chain", "lookup");
        assert_eq!(error.to_string(), "redis: get: refused (unavailable)");
    }

    #[test]
    fn a_permanent_unavailable_is_not_transient() {
        assert!(Error::unavailable("down").is_transient());
        assert!(!Error::unavailable("wrong password").permanent().is_transient());
    }

    #[test]
    fn text_never_holds_the_source() {
        let source = std::io::Error::other("postgres://user:secret@host");
        let error = Error::unavailable("cannot connect").with_source(source);
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

//! How a value is set: [`SetOptions`].

use crate::contract::{WriteMode, WriteOp};
use crate::revision::Revision;
use crate::time::Ttl;
use crate::value::Value;

/// What a `set_with` asks for beyond key and value.
///
/// # Examples
///
/// ```
/// use agent_storage::{SetOptions, Ttl};
///
/// let options = SetOptions::new().with_ttl(Ttl::from_secs(30)?).if_absent();
/// # let _ = options;
/// # Ok::<(), agent_storage::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetOptions {
    /// What must hold; by default nothing.
    pub mode: WriteMode,
    /// How long the entry lives; by default it stays.
    pub ttl: Option<Ttl>,
}

impl SetOptions {
    /// Makes options that ask for nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the entry live for a time.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Writes only if the key has no value; otherwise the call is a [`Conflict`](crate::ErrorKind::Conflict).
    #[must_use]
    pub const fn if_absent(mut self) -> Self {
        self.mode = WriteMode::Create;
        self
    }

    /// Writes only over the value of this revision; otherwise the call is a [`Conflict`](crate::ErrorKind::Conflict).
    #[must_use]
    pub const fn if_revision(mut self, revision: Revision) -> Self {
        self.mode = WriteMode::Update(revision);
        self
    }

    pub(super) fn put(self, value: Value) -> WriteOp {
        let Self { mode, ttl } = self;
        WriteOp::Put { value, mode, ttl }
    }
}

impl From<Ttl> for SetOptions {
    fn from(ttl: Ttl) -> Self {
        Self::new().with_ttl(ttl)
    }
}

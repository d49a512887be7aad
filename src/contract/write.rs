//! Writes as data: the [`Write`] and its [`WriteAck`].

use std::collections::HashSet;

use crate::error::{Behind, Error, Result};
use crate::key::Key;
use crate::revision::Revision;
use crate::stamp::{HybridClock, Stamp};
use crate::time::Ttl;
use crate::value::Value;

/// What must hold for a value to be written. Losing is [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Write in any case.
    #[default]
    Upsert,
    /// Write only if there is no value; an expired one counts as none.
    Create,
    /// Write only over the value of this revision. It never inserts.
    Update(Revision),
    /// As `Update`, and the entry ends when it would have ended: a TTL given with the write has no effect.
    Replace(Revision),
}

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteOp {
    /// Stores a value. Without a TTL the entry stays, and an older TTL is gone.
    Put {
        /// The value.
        value: Value,
        /// What must hold.
        mode: WriteMode,
        /// How long the entry lives.
        ttl: Option<Ttl>,
    },
    /// Removes the value, and in a database the list under the same key too.
    Delete {
        /// The revision that the value must have, if any. A missing value does not have it.
        only_if: Option<Revision>,
    },
    /// Sets or clears the TTL of a value that is there; one that is not there stays away, which is not an error.
    Touch {
        /// How long the entry lives from now on; `None` for an entry that stays.
        ttl: Option<Ttl>,
    },
}

/// What becomes of a write that is behind, where something as new or newer stands than its stamp.
///
/// A store without the capability `stamp_guard` makes no difference between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// No earlier attempt of the write was applied: the store stamps it anew, and applies it.
    #[default]
    First,
    /// The same, but the write keeps its stamp: the store refuses it, with an error that [`Error::is_behind`] knows. So whoever
    /// gives it up knows that it changes nothing newer, however late it lands, and whoever still waits can stamp it anew.
    ///
    /// In a batch the later fixed writes of its key are refused with it, so that their order stays. Where a stamp stands that is the
    /// write's own, it was applied before, which is success. A delete, where value and list are guarded apart, and a clear remove
    /// what is older all the same; the error says how much.
    Fixed,
    /// One may have been: the write keeps its stamp for ever, so that it has effect once. Where something newer stands, its
    /// outcome stays unknown.
    Repeat,
}

impl Attempt {
    /// The stamp to write with over what stands: the write's own, or a new one from `clock` if it is behind and may get one.
    ///
    /// # Errors
    ///
    /// One that [`Error::is_behind`] knows if a fixed write is behind; it names what stands, and the clock was shown it.
    ///
    /// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if a repeated write is behind: what stands may have been
    /// written over it, or before it.
    pub fn stamp_past(self, standing: Option<Stamp>, stamp: Stamp, clock: &HybridClock) -> Result<Stamp> {
        match (standing, self) {
            (Some(standing), Self::First) if standing >= stamp => Ok(clock.issue_after(standing)),
            (Some(standing), Self::Fixed) if standing >= stamp => {
                clock.observe(standing);
                Err(self.refusal(Behind::NOT_BEGUN.with_standing(Some(standing))))
            }
            (Some(standing), Self::Repeat) if standing >= stamp => Err(self.refusal(Behind::NOT_BEGUN)),
            _ => Ok(stamp),
        }
    }

    /// What a write is answered that is behind and may not get a new stamp.
    pub(crate) fn refusal(self, behind: Behind) -> Error {
        match self {
            Self::First | Self::Fixed => Error::behind(behind),
            Self::Repeat => Error::outcome_unknown(
                "the reply to an earlier attempt was lost, and something newer stands there now; read it to decide",
            ),
        }
    }
}

/// Keeps the order of a batch: after a fixed write that is behind, the later fixed ones of its key are refused too.
#[derive(Debug, Default)]
pub(crate) struct Refused(HashSet<Key>);

impl Refused {
    /// Applies a write, unless it follows one that is behind.
    ///
    /// # Errors
    ///
    /// That of `apply`; the write's own is in the answer.
    pub(crate) fn guard<T, E>(
        &mut self,
        key: &Key,
        attempt: Attempt,
        apply: impl FnOnce() -> Result<Result<T>, E>,
    ) -> Result<Result<T>, E> {
        if attempt == Attempt::Fixed && !self.0.is_empty() && self.0.contains(key) {
            return Ok(Err(attempt.refusal(Behind::NOT_BEGUN)));
        }
        let answer = apply()?;
        if answer.as_ref().is_err_and(Error::is_behind) {
            self.0.insert(key.clone());
        }
        Ok(answer)
    }
}

/// Applies the items of a batch one by one, in their order, as [`Refused`] keeps it.
pub(crate) fn in_order<I, A>(
    items: Vec<I>,
    guard: impl Fn(&I) -> (&Key, Attempt),
    mut apply: impl FnMut(I) -> Result<A>,
) -> Vec<Result<A>> {
    if items.len() <= 1 {
        return items.into_iter().map(apply).collect();
    }
    let mut refused = Refused::default();
    let one = |item| {
        let (key, attempt) = guard(&item);
        match attempt {
            Attempt::Fixed => refused.guard(&key.clone(), attempt, || Ok(apply(item))).flatten(),
            Attempt::First | Attempt::Repeat => apply(item),
        }
    };
    items.into_iter().map(one).collect()
}

/// One write: key, operation, and the stamp it was given before its first attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What to do.
    pub op: WriteOp,
    /// The write's identity and its place in the order of writes.
    pub stamp: Stamp,
    /// Whether an earlier attempt may have been applied.
    pub attempt: Attempt,
}

impl Write {
    /// Makes a write.
    #[must_use]
    pub const fn new(key: Key, op: WriteOp, stamp: Stamp) -> Self {
        Self { key, op, stamp, attempt: Attempt::First }
    }

    /// Makes an unconditional put of a value that stays.
    #[must_use]
    pub const fn put(key: Key, value: Value, stamp: Stamp) -> Self {
        Self::new(key, WriteOp::Put { value, mode: WriteMode::Upsert, ttl: None }, stamp)
    }

    /// Makes an unconditional delete.
    #[must_use]
    pub const fn delete(key: Key, stamp: Stamp) -> Self {
        Self::new(key, WriteOp::Delete { only_if: None }, stamp)
    }

    /// Whether the write depends on what is stored.
    #[must_use]
    pub const fn is_conditional(&self) -> bool {
        match &self.op {
            WriteOp::Put { mode, .. } => !matches!(mode, WriteMode::Upsert),
            WriteOp::Delete { only_if } => only_if.is_some(),
            WriteOp::Touch { .. } => true,
        }
    }

    /// The bytes of the value it carries.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match &self.op {
            WriteOp::Put { value, .. } => value.len(),
            WriteOp::Delete { .. } | WriteOp::Touch { .. } => 0,
        }
    }
}

/// How safely an acknowledged write is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// In memory; it ends with a process.
    Volatile,
    /// Forced to this machine's disk, and owed to the primary.
    Local,
    /// As durable as the primary makes it.
    Primary,
}

impl Durability {
    /// The name in lower case, as configuration and command line write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volatile => "volatile",
            Self::Local => "local",
            Self::Primary => "primary",
        }
    }
}

/// The answer to a write that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteAck {
    /// The revision that the entry now has; `None` where there is none, as after a delete.
    pub revision: Option<Revision>,
    /// Whether there was a live entry before; `None` where the store cannot tell without another round trip.
    pub existed: Option<bool>,
    /// How safely the write is kept.
    pub durability: Durability,
}

impl WriteAck {
    /// Makes an acknowledgement by the primary.
    #[must_use]
    pub const fn primary(revision: Option<Revision>, existed: Option<bool>) -> Self {
        Self { revision, existed, durability: Durability::Primary }
    }
}

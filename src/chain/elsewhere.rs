//! What is owed to a database at another address than the configured one, and what comes of that while nobody has decided.

use std::sync::PoisonError;

use crate::contract::Identity;
use crate::error::Result;

use super::core::Core;

/// What processes that died owed to a database at another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwedElsewhere {
    /// A file that holds it, for people.
    pub(super) told: String,
    /// Which database that is, if they knew, and all knew the same.
    pub(super) database: Option<u128>,
}

impl Core {
    /// Why nothing may go to the primary though it is there: the address was changed while operations waited.
    pub(super) fn owed_elsewhere(&self) -> Option<OwedElsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what is owed elsewhere, if anything still is. Where no database is known yet, only the one that it is owed to may answer: an
    /// empty one would be given tables, and be taken for the known one.
    pub(super) fn set_owed_elsewhere(&self, owed: Option<OwedElsewhere>) -> Result<()> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            self.primary.expect(expected(owed.as_ref()))?;
        }
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = owed;
        Ok(())
    }

    /// The database that must answer now.
    pub(super) fn expected(&self) -> Option<Identity> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.or_else(|| expected(self.owed_elsewhere().as_ref()))
    }

    /// Which database answered while it may not be taken for the known one.
    #[cfg(feature = "sqlite")]
    pub(super) fn answered(&self) -> Option<Identity> {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers which database answered. It may be the one that is owed something.
    pub(super) fn note_answered(&self, identity: Identity) {
        let before = self.answered.lock().unwrap_or_else(PoisonError::into_inner).replace(identity);
        if before.is_none_or(|before| before.id != identity.id) {
            self.recognised.notify_one();
        }
    }
}

/// Any state of the database that something is owed to: how new it must be is judged when what is owed is taken over.
fn expected(owed: Option<&OwedElsewhere>) -> Option<Identity> {
    Some(Identity::new(owed?.database?, 0))
}

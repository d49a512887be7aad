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
    /// The newest state of it that they knew, if all knew the same one.
    pub(super) database: Option<Identity>,
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
            self.primary.expect(owed.as_ref().and_then(|owed| owed.database))?;
        }
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = owed;
        Ok(())
    }

    /// The database that must answer now.
    pub(super) fn expected(&self) -> Option<Identity> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.or_else(|| self.owed_elsewhere()?.database)
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

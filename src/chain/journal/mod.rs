//! The [`Journal`]: operations that were acknowledged here and are owed to the primary.

#[cfg(feature = "sqlite")]
mod candidate;
#[cfg(feature = "sqlite")]
mod disk;
#[cfg(feature = "sqlite")]
mod files;
#[cfg(feature = "sqlite")]
mod folder;
#[cfg(feature = "sqlite")]
mod import;
#[cfg(feature = "sqlite")]
mod layout;
#[cfg(feature = "sqlite")]
mod lock;
mod operation;
#[cfg(feature = "sqlite")]
mod record;
#[cfg(feature = "sqlite")]
mod reserve;
mod room;
#[cfg(feature = "sqlite")]
mod shared;
mod store;
#[cfg(feature = "sqlite")]
mod table;
#[cfg(test)]
mod tests;
mod volatile;

#[cfg_attr(not(test), expect(unused_imports, reason = "the chain that uses them is being built"))]
pub(crate) use operation::{Action, Effect, Exported, Header, Meta, Operation};
#[cfg_attr(not(test), expect(unused_imports, reason = "the chain that uses them is being built"))]
pub(crate) use store::Journal;
#[cfg_attr(not(test), expect(unused_imports, reason = "the chain that uses them is being built"))]
pub(crate) use volatile::VolatileJournal;
#[cfg(feature = "sqlite")]
#[cfg_attr(not(test), expect(unused_imports, reason = "the chain that uses them is being built"))]
pub(crate) use {
    disk::DiskJournal,
    folder::{Found, JournalFolder, LeftFile, LeftReason},
};

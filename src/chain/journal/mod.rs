//! The [`Journal`]: operations that were acknowledged here and are owed to the primary.

#[cfg(feature = "sqlite")]
pub(crate) mod acceptance;
#[cfg(feature = "sqlite")]
mod candidate;
#[cfg(feature = "sqlite")]
mod disk;
#[cfg(feature = "sqlite")]
mod episode;
#[cfg(feature = "sqlite")]
mod files;
#[cfg(feature = "sqlite")]
mod folder;
#[cfg(feature = "sqlite")]
mod found;
#[cfg(feature = "sqlite")]
pub(crate) mod glance;
#[cfg(feature = "sqlite")]
mod import;
#[cfg(feature = "sqlite")]
mod layout;
pub(super) mod lock;
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
mod survey;
#[cfg(feature = "sqlite")]
mod table;
#[cfg(test)]
mod tests;
mod volatile;

pub(crate) use operation::{Action, Effect, Episode, Exported, Header, Meta, Operation, REPLACED};
pub(crate) use store::{Journal, each_header};
pub(crate) use volatile::VolatileJournal;
#[cfg(feature = "sqlite")]
pub(crate) use {disk::DiskJournal, folder::JournalFolder, found::Found};

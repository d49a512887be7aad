//! Fallback: what keeps a database and a cache usable while their primary is away, and what brings the two together again.

#[cfg(feature = "sqlite")]
mod adoption;
mod breaker;
mod cache;
mod clock_reserve;
mod core;
mod database;
mod elsewhere;
mod folder;
mod gate;
mod in_flight;
mod inherit;
#[cfg(feature = "sqlite")]
mod inspect;
mod journal;
mod meters;
mod owed;
mod reconcile;
mod rounds;
mod status;
mod watch;

pub use cache::CacheChain;
pub use database::{AcceptedPrimary, ChainOptions, DatabaseChain, JournaledEffect, JournaledOperation};
#[cfg(feature = "sqlite")]
pub use inspect::{JournalContents, JournalFile};
pub use status::{ChainState, ChainStatus};

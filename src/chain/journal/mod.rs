//! The [`Journal`]: operations that were acknowledged here and are owed to the primary.

mod operation;
mod room;
mod store;
#[cfg(test)]
mod tests;
mod volatile;

#[cfg_attr(not(test), expect(unused_imports, reason = "the chain that uses them is being built"))]
pub(crate) use operation::{Action, Effect, Exported, Header, Meta, Operation};
#[cfg_attr(not(test), expect(unused_imports, reason = "the chain that uses them is being built"))]
pub(crate) use store::Journal;
#[cfg_attr(not(test), expect(unused_imports, reason = "the chain that uses them is being built"))]
pub(crate) use volatile::VolatileJournal;

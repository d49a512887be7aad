//! The chain of a database: the rules of each operation, and the [`DatabaseChain`] that has them all.

mod aside;
mod batch;
mod chain;
mod closing;
mod entry;
mod guarded;
mod item;
mod keep;
mod look_up;
mod read;
mod stamping;

pub use chain::{AcceptedPrimary, ChainOptions, DatabaseChain};
pub use entry::{JournaledEffect, JournaledOperation};

//! A store that fails as told: the [`FaultBackend`] and the [`Faults`] that switch it.

mod backend;
mod switch;

pub use backend::FaultBackend;
pub use switch::{Fault, FaultCounts, Faults};

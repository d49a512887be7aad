//! The conformance suite, the fault-injecting backend and the TCP fault proxy, for this crate's backends and for yours.

mod proxy;

pub use proxy::{Direction, FaultProxy, NetworkFault, Point};

//! The conformance suite, the fault-injecting backend and the TCP fault proxy, for this crate's backends and for yours.
//!
//! Every rule of the [contract](crate::contract) is one small [`Case`]. [`cache_cases`] and [`database_cases`] are all that a
//! cache or a database is held to; [`check_cache`] and [`check_database`] run them in one test. A harness that reports case
//! by case runs [`Case::run`] itself, each over a [`Subject`] of its own.
//!
//! The testkit knows the contract and no concrete backend.

mod case;
mod elapse;
mod failure;
mod fault;
mod proxy;
mod run;
mod subject;
mod suite;

pub use case::{Case, Outcome};
pub use elapse::Elapse;
pub use failure::Failure;
pub use fault::{Fault, FaultBackend, FaultCounts, Faults};
pub use proxy::{Direction, FaultProxy, NetworkFault, Point};
pub use run::{Failures, check_cache, check_database};
pub use subject::Subject;
pub use suite::{cache_cases, database_cases};

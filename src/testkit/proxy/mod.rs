//! A TCP proxy that stands before a real server and does to its traffic what networks do.
//!
//! It knows bytes and connections only, nothing of stores; the one protocol it has a word for is PostgreSQL's `COMMIT`.

mod acceptor;
mod connection;
mod fault;
mod fault_proxy;
mod rule;

pub use fault::{Direction, NetworkFault, Point};
pub use fault_proxy::FaultProxy;

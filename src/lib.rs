//! A cache and a database for agents, from one `agent.yml`.

pub mod backend;
pub mod config;
pub mod contract;
pub mod engine;
mod error;
pub mod handle;
pub mod layer;
pub mod manager;
mod stamp;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;

pub use error::{Error, ErrorKind, Result};
pub use stamp::{HybridClock, Stamp};
pub use time::{Clock, Timestamp, Ttl};

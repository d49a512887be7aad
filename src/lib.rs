//! A cache and a database for agents, from one `agent.yml`.

pub mod backend;
pub mod config;
pub mod contract;
pub mod engine;
mod error;
pub mod handle;
mod key;
pub mod layer;
pub mod manager;
mod revision;
mod stamp;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;
mod value;

pub use config::{ConfigError, Environment, Problem, StorageConfig};
pub use error::{Error, ErrorKind, Result};
pub use handle::{Cache, Database, SetOptions};
pub use key::{IntoKey, Key, KeyPattern, KeyPrefix};
pub use manager::{Health, HealthStatus, StorageBackends, StorageManager};
pub use revision::Revision;
pub use stamp::{HybridClock, Stamp};
pub use time::{Clock, Timestamp, Ttl};
pub use value::{Format, Value};

//! From a configuration to handles: the [`StorageManager`]. It is the only place that names concrete backends.

mod builder;
mod health;
mod open;
mod slot;
mod storage;

pub use builder::StorageManagerBuilder;
pub use health::{Health, HealthStatus, MemberHealth, SideHealth};
pub use storage::{StorageBackends, StorageManager};

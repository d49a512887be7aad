//! The backends. Each folder has the same files with the same jobs; none knows another, nor a layer.

#[cfg(feature = "jetstream")]
pub mod jetstream;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;

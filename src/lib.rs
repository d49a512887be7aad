//! A cache and a database for agents, from one `agent.yml`.
//!
//! An application hands over a file and gets a [`Cache`] and a [`Database`] that behave the same whatever stands behind them:
//! memory or a SQLite file on a laptop, Redis or NATS JetStream with PostgreSQL in production. What a call means, what its
//! errors are and what it leaves behind when it is dropped does not depend on the backend; what a backend cannot do is said by
//! its [`Capabilities`](contract::Capabilities).
//!
//! # Example
//!
//! ```
//! use agent_storage::{StorageManager, Ttl};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! // `StorageManager::from_file("agent.yml")` reads a file; without a `storage:` section both sides are in memory.
//! let manager = StorageManager::from_yaml("storage: { cache: { type: in-memory } }")?;
//!
//! let database = manager.database().await?;
//! database.append_json("messages:42", &"hello").await?;
//! let last_ten: Vec<String> = database.range_json("messages:42", -10, -1).await?;
//! assert_eq!(last_ten, ["hello"]);
//!
//! let cache = manager.cache().await?;
//! let hour = Some(Ttl::from_secs(3600)?);
//! let title: String = cache.get_or_load_json("title:42", hour, || async { Ok("A greeting".to_owned()) }).await?;
//! assert_eq!(title, "A greeting");
//!
//! manager.disconnect().await?;
//! # Ok::<(), agent_storage::Error>(()) }).unwrap();
//! ```
//!
//! # What is promised
//!
//! - **Not found is never a guess.** A read answers "missing" only where the store knows it; otherwise it fails with
//!   [`ErrorKind::Unavailable`].
//! - **Every call ends by its deadline**, 5 seconds unless set otherwise, also if the server is frozen. A write whose reply was
//!   lost is [`ErrorKind::OutcomeUnknown`], one that was not sent is [`ErrorKind::Unavailable`].
//! - **Values come back byte for byte.** JSON is checked once, on entry, and never reformatted.
//! - **A database's write is guarded by its [`Stamp`].** It may be sent again, and one that lands late undoes nothing newer.
//! - **A dropped future leaves nothing behind:** no lock, no half-written batch, no connection in the middle of a transaction.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `sqlite` (default) | the SQLite database; bundled, needs a C compiler |
//! | `postgres` | the PostgreSQL database, server 12 or later |
//! | `redis` | the Redis cache, server 6.2 or later, also Valkey |
//! | `jetstream` | the NATS JetStream cache, server 2.11 or later |
//! | `full` | all of these |
//! | `testkit` | the conformance suite, a backend that fails as told, and a proxy that does to traffic what networks do |
//! | `cli` | the command line `agent-storage`; implies `full` |
//!
//! The memory cache and the memory database are always there. A configuration is read and checked whatever the features; one
//! that names a backend which is not compiled in is [`ErrorKind::FeatureDisabled`], with the line to run.
//!
//! # Modules
//!
//! | module | what is in it |
//! |---|---|
//! | [`manager`] | from a configuration to handles: [`StorageManager`], and [`Health`] |
//! | [`handle`] | what callers hold: [`Cache`] and [`Database`] |
//! | [`config`] | the `storage:` section of an `agent.yml` as plain data |
//! | [`contract`] | the traits that backends implement, with their options and answers |
//! | [`backend`] | the backends: memory, SQLite, PostgreSQL, Redis, JetStream |
//! | [`layer`] | wrappers that are themselves backends: prefix, observation, retries |
//! | [`chain`] | what stands behind a database while it is away: a journal, and its replay |
//! | [`engine`] | the SQLite writer with group commit |
//! | `testkit` | how to hold a backend of your own to the contract (feature `testkit`) |
//!
//! A backend of your own implements [`contract::Store`] and [`contract::CacheBackend`] or [`contract::DatabaseBackend`], and is
//! handed to [`StorageManager::builder`].
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

pub mod backend;
pub mod chain;
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
pub use error::{Behind, Error, ErrorKind, Outage, Result};
pub use handle::{Cache, Database, SetOptions};
pub use key::{IntoKey, Key, KeyPattern, KeyPrefix};
pub use manager::{Health, HealthStatus, StorageBackends, StorageManager};
pub use revision::Revision;
pub use stamp::{HybridClock, Stamp};
pub use time::{Clock, Timestamp, Ttl};
pub use value::{Format, Value};

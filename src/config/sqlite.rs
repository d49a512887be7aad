//! A SQLite file: [`SqliteConfig`].

use std::path::PathBuf;
use std::time::Duration;

use validator::Validate;

use super::rules;

/// A SQLite database: which file, and how careful its writes are.
#[derive(Clone, Debug, Validate)]
#[validate(schema(function = "rules::sqlite", skip_on_field_errors = false))]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The file; it and its folder are made if missing. `.agent-storage/agent.db` by default: beside the configuration
    /// file when there is one, else in the current folder.
    pub path: PathBuf,
    /// Whether a commit waits for the disk. [`Synchronous::Full`] by default.
    pub synchronous: Synchronous,
    /// How many connections read side by side; one more writes. 4 by default.
    #[validate(range(min = 1, max = 256, message = "must be from 1 to 256"))]
    pub readers: u32,
    /// How long a call waits for a lock that another process holds. 5 s by default; the call's own deadline may be sooner.
    #[validate(custom(function = "rules::wait"))]
    pub busy_timeout: Duration,
    /// How long a deleted key leaves a mark that outvotes a write which lands late. 15 minutes by default.
    #[validate(custom(function = "rules::retention"))]
    pub tombstone_retention: Duration,
}

impl SqliteConfig {
    /// Makes a configuration for a file, everything else as by default.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from(".agent-storage/agent.db"),
            synchronous: Synchronous::Full,
            readers: 4,
            busy_timeout: Duration::from_secs(5),
            tombstone_retention: Duration::from_secs(15 * 60),
        }
    }
}

/// Whether a commit waits for the disk, as SQLite's `PRAGMA synchronous` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// A commit is on the disk when it is acknowledged.
    #[default]
    Full,
    /// The last commits may be lost when the machine loses power or its system crashes; not when the process ends.
    Normal,
}

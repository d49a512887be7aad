//! What stands behind a store while it is away: [`Fallback`], [`DatabaseChainConfig`] and [`CacheChainConfig`].

use std::path::PathBuf;
use std::time::Duration;

use validator::Validate;

use super::memory::MemoryCacheConfig;
use super::rules;

/// What stands behind a store while it is away.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Fallback<T> {
    /// Nothing was asked for: what is usual for the store.
    #[default]
    Default,
    /// `fallback: none`: a call fails at once.
    None,
    /// A list with this one member.
    To(T),
}

/// What stands behind a database: a journal of what is owed to it, never another database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseFallback {
    /// `type: sqlite`: a journal on this machine's disk, in the folder [`JournalConfig::path`].
    Sqlite,
    /// `type: in-memory`: a journal in this process's memory. What is acknowledged while the database is away is lost with
    /// the process, so it needs [`MinDurability::Volatile`].
    Memory,
}

/// What stands behind a cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CacheFallback {
    /// `type: in-memory`: a cache in this process's memory.
    Memory(MemoryCacheConfig),
}

/// What a database promises while its primary is away. It matters only where there is a fallback.
#[derive(Clone, Debug, Default, Validate)]
#[non_exhaustive]
pub struct DatabaseChainConfig {
    /// The least durability that is acknowledged. [`MinDurability::Local`] by default.
    pub min_durability: MinDurability,
    /// What a read answers that only the primary could answer. [`OutageReads::Strict`] by default.
    pub reads: OutageReads,
    /// Who wins where a journaled write meets one that somebody else made meanwhile. [`Conflicts::LastWriterWins`] by
    /// default.
    pub conflicts: Conflicts,
    /// The journal.
    #[validate(nested)]
    pub journal: JournalConfig,
    /// When the primary counts as away.
    #[validate(nested)]
    pub breaker: BreakerConfig,
}

/// What a cache does while its primary is away. It matters only where there is a fallback.
#[derive(Clone, Debug, Default, Validate)]
#[validate(schema(function = "rules::cache_chain", skip_on_field_errors = false))]
#[non_exhaustive]
pub struct CacheChainConfig {
    /// The folder in which is noted that something was written while the primary was away. Where a process died so, the next one
    /// clears everything with the cache's key prefix before it reads. Without a folder, the default, nothing is noted: after a
    /// crash the primary may answer what it held before the outage.
    pub journal_path: Option<PathBuf>,
    /// When the primary counts as away.
    #[validate(nested)]
    pub breaker: BreakerConfig,
}

/// The least durability that a database acknowledges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MinDurability {
    /// `primary`: what the primary keeps. Nothing is journaled; while it is away, writes fail.
    Primary,
    /// `local`: what is forced to this machine's disk. It survives a crash of the process and of the system, not the loss of
    /// the disk.
    #[default]
    Local,
    /// `volatile`: what is in memory. It is lost with the process.
    Volatile,
}

/// What a read answers while the primary is away, for a key of which nothing is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutageReads {
    /// `strict`: it fails as [`Unavailable`](crate::ErrorKind::Unavailable).
    #[default]
    Strict,
    /// `available`: it answers that the key is missing, which is a guess. For a laptop, never for a server.
    Available,
}

/// Who wins where a journaled write meets one that somebody else made meanwhile. The loser is kept and reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflicts {
    /// `last-writer-wins`: the newer of the two.
    #[default]
    LastWriterWins,
    /// `primary-wins`: what stands in the primary.
    PrimaryWins,
}

/// The journal of what is owed to a database.
#[derive(Clone, Debug, PartialEq, Eq, Validate)]
#[validate(schema(function = "rules::journal", skip_on_field_errors = false))]
#[non_exhaustive]
pub struct JournalConfig {
    /// The folder of the journals; each process has a file of its own in it. `.agent-storage/journal` by default: beside the
    /// configuration file when there is one, else in the current folder. Not used by a journal in memory.
    pub path: PathBuf,
    /// The bytes that this process's journal may take; a write beyond them fails. 1 GiB by default.
    #[validate(range(min = 1_048_576_u64, max = 1_099_511_627_776_u64, message = "must be from 1 MiB to 1 TiB"))]
    pub max_bytes: u64,
    /// How long an operation may wait and still be applied safely, because deletes leave marks in the primary for at least
    /// twice as long. One that waited longer may be parked and reported instead. 24 hours by default.
    #[validate(custom(function = "rules::journal_age"))]
    pub max_age: Duration,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from(".agent-storage/journal"),
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

/// When a store counts as away, and how it is found to be back.
///
/// A store that refuses connections, shuts down or takes no writes counts as away at once; one that is silent does when too many of
/// the latest calls found no answer, or when a call waits for long and two probes find none either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Validate)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// The pause between two probes of a store that is away. 2 s by default.
    #[validate(custom(function = "rules::probe_interval"))]
    pub probe_interval: Duration,
    /// How long a call may wait before the store is probed, at most a fifth of the calls' timeout. 1 s by default.
    #[validate(custom(function = "rules::wait"))]
    pub slow_call: Duration,
    /// The percentage of calls without an answer from which on the store counts as away. 50 by default.
    #[validate(range(min = 1, max = 100, message = "must be from 1 to 100"))]
    pub failure_rate: u8,
    /// How many calls there must have been within the window for the rate to count. 20 by default.
    #[validate(range(min = 1, max = 10_000, message = "must be from 1 to 10000"))]
    pub min_calls: u32,
    /// The time over which calls are counted. 10 s by default.
    #[validate(custom(function = "rules::window"))]
    pub window: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(2),
            slow_call: Duration::from_secs(1),
            failure_rate: 50,
            min_calls: 20,
            window: Duration::from_secs(10),
        }
    }
}

//! What an `agent.yml` may say of what stands behind a store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use agent_storage::config::{
    BreakerConfig, CacheBackendConfig, CacheConfig, CacheFallback, ConfigError, Conflicts, DatabaseBackendConfig,
    DatabaseChainConfig, DatabaseConfig, DatabaseFallback, Environment, Fallback, JournalConfig, MemoryCacheConfig,
    MinDurability, OutageReads, PostgresConfig, RedisConfig, SqliteConfig, StorageConfig,
};

fn load(side: &str, keys: &str) -> Result<StorageConfig, ConfigError> {
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    StorageConfig::from_yaml_with(
        &format!("storage:\n  {side}:\n{keys}"),
        "/etc/agent/agent.yml",
        &Environment::empty(),
    )
}

fn cache(keys: &str) -> CacheConfig {
    load("cache", keys).unwrap().cache
}

fn database(keys: &str) -> DatabaseConfig {
    load("database", keys).unwrap().database
}

fn warnings(side: &str, keys: &str) -> Vec<String> {
    let config = load(side, keys).unwrap();
    config.warnings().iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect()
}

fn problem(side: &str, keys: &str) -> String {
    let error = load(side, keys).expect_err(keys);
    assert_eq!(error.problems().len(), 1, "{error}");
    error.to_string().strip_prefix("/etc/agent/agent.yml").unwrap().to_owned()
}

#[test]
fn a_server_has_a_fallback_unless_it_is_declined_and_an_embedded_store_only_if_it_is_asked_for() {
    for (keys, fallback) in [
        ("type: postgres", Some(DatabaseFallback::Sqlite)),
        ("type: postgres\nfallback: none", None),
        ("type: postgres\nfallback: [ { type: in-memory } ]\nminDurability: volatile", Some(DatabaseFallback::Memory)),
        ("type: sqlite", None),
        ("type: sqlite\nfallback: [ { type: sqlite } ]", Some(DatabaseFallback::Sqlite)),
        ("type: in-memory", None),
        ("type: in-memory\nfallback: [ { type: sqlite, path: j } ]", Some(DatabaseFallback::Sqlite)),
    ] {
        assert_eq!(database(keys).effective_fallback(), fallback, "{keys}");
        assert!(warnings("database", keys).is_empty(), "{keys}");
    }
    for (keys, bytes) in [
        ("type: redis", Some(MemoryCacheConfig::default().max_bytes)),
        ("type: jetstream", Some(MemoryCacheConfig::default().max_bytes)),
        ("type: redis\nfallback: [ { type: memory, maxBytes: 1MiB } ]", Some(1 << 20)),
        ("type: redis\nfallback: none", None),
        ("type: in-memory", None),
    ] {
        let fallback = cache(keys).effective_fallback().map(|fallback| match fallback {
            CacheFallback::Memory(config) => config.max_bytes,
            other => panic!("{other:?}"),
        });
        assert_eq!(fallback, bytes, "{keys}");
        assert_eq!(warnings("cache", keys), Vec::<String>::new(), "{keys}");
    }
}

#[test]
fn every_key_of_a_chain_is_honoured() {
    let config = database(
        "type: postgres\nfallback: [ { type: sqlite } ]\nminDurability: primary\nreads: available\n\
         conflicts: primary-wins\njournal: { path: owed, maxBytes: 1MiB, maxAge: 2h }\n\
         breaker: { probeInterval: 3s, slowCall: 4s, failureRate: 5, minCalls: 6, window: 7s }",
    );
    let DatabaseChainConfig { min_durability, reads, conflicts, journal, breaker, .. } = config.chain;
    assert_eq!((min_durability, reads), (MinDurability::Primary, OutageReads::Available));
    assert_eq!(conflicts, Conflicts::PrimaryWins);
    assert_eq!(journal.path, Path::new("/etc/agent/owed"));
    assert_eq!((journal.max_bytes, journal.max_age), (1 << 20, Duration::from_secs(7200)));
    let mut expected = BreakerConfig::default();
    (expected.probe_interval, expected.slow_call) = (Duration::from_secs(3), Duration::from_secs(4));
    (expected.failure_rate, expected.min_calls, expected.window) = (5, 6, Duration::from_secs(7));
    assert_eq!(breaker, expected);
    let config = cache("type: redis\njournal: { path: seen }\nbreaker: { failureRate: 5 }");
    assert_eq!(config.chain.journal_path.as_deref(), Some(Path::new("/etc/agent/seen")));
    assert_eq!(config.chain.breaker.failure_rate, 5);
}

#[test]
fn both_spellings_of_a_policy_are_read() {
    for (word, policy) in [
        ("last-writer-wins", Conflicts::LastWriterWins),
        ("lastWriterWins", Conflicts::LastWriterWins),
        ("primary-wins", Conflicts::PrimaryWins),
        ("primaryWins", Conflicts::PrimaryWins),
    ] {
        assert_eq!(database(&format!("type: postgres\nconflicts: {word}")).chain.conflicts, policy);
    }
}

#[test]
fn the_folder_of_the_journals_is_named_by_either_key() {
    let default = Path::new("/etc/agent/.agent-storage/journal");
    assert_eq!(database("type: postgres").chain.journal.path, default);
    assert_eq!(JournalConfig::default().path, Path::new(".agent-storage/journal"));
    for keys in ["fallback: [ { type: sqlite, path: owed } ]", "journal: { path: owed }"] {
        let config = database(&format!("type: postgres\n{keys}"));
        assert_eq!(config.chain.journal.path, Path::new("/etc/agent/owed"), "{keys}");
    }
    let found = problem("database", "type: postgres\nfallback: [ { type: sqlite, path: a } ]\njournal: { path: b }");
    assert!(found.starts_with(":5:22: storage.database.journal.path: says something else than"), "{found}");
}

#[test]
fn what_cannot_stand_behind_a_store_is_told() {
    for (side, keys, said) in [
        (
            "database",
            "fallback: [ { type: redis } ]",
            "fallback[0].type: cannot stand behind a database; a fallback of",
        ),
        ("database", "fallback: [ { type: postgres } ]", "cannot stand behind a database"),
        ("database", "fallback: [ { type: sqlte } ]", "is not a known type; did you mean `sqlite`?"),
        ("database", "fallback: [ { type: sqlite, pth: x } ]", "fallback[0].pth: is not a known key; did you mean"),
        ("database", "fallback: [ { type: sqlite, readers: 4 } ]", "fallback[0].readers: is not a known key"),
        ("database", "fallback: [ { path: x } ]", "fallback[0]: has no `type`"),
        ("database", "fallback: [ { type: sqlite }, { type: in-memory } ]", "fallback[1]: is one too many"),
        ("database", "fallback: []", "fallback: is an empty list; write `none`"),
        ("database", "fallback: sqlite", "expected `none` or a list with one store"),
        ("cache", "fallback: [ { type: redis } ]", "behind a cache; a fallback of a cache is `in-memory`"),
        ("cache", "fallback: [ { type: sqlite } ]", "cannot stand behind a cache"),
        ("cache", "fallback: [ { type: in-memory, maxBytes: 0 } ]", "fallback[0].maxBytes: must be at least 1"),
        ("cache", "minDurability: local", "minDurability: is not a known key"),
        ("cache", "journal: { path: a, maxBytes: 1MiB }", "journal.maxBytes: is not a known key"),
    ] {
        let kind = if side == "cache" { "redis" } else { "postgres" };
        let found = problem(side, &format!("type: {kind}\n{keys}"));
        assert!(found.contains(said), "{keys}: {found}");
    }
}

#[test]
fn a_journal_in_memory_needs_a_promise_of_no_more() {
    for promise in ["", "minDurability: local", "minDurability: primary"] {
        let keys = format!("type: postgres\nfallback:\n  - type: in-memory\n{promise}");
        let found = problem("database", &keys);
        let said = ":5:7: storage.database.fallback: must not be `in-memory` unless `minDurability` is `volatile`";
        assert!(found.starts_with(said), "{found}");
    }
}

#[test]
fn a_database_cannot_stand_behind_itself() {
    let found = problem("database", "type: sqlite\npath: x/./a.db\nfallback: [ { type: sqlite, path: x/a.db } ]");
    assert!(found.contains("storage.database.fallback: must not have the `path` of the database itself"), "{found}");
}

#[test]
fn ranges_are_checked() {
    for (keys, said) in [
        ("journal: { maxBytes: 1KiB }", "journal.maxBytes: must be from 1 MiB to 1 TiB"),
        ("journal: { maxBytes: 2TiB }", "journal.maxBytes: must be from 1 MiB to 1 TiB"),
        ("journal: { maxAge: 1s }", "journal.maxAge: must be from 1 minute to 15 days"),
        ("journal: { maxAge: 16days }", "journal.maxAge: must be from 1 minute to 15 days"),
        ("breaker: { probeInterval: 2m }", "breaker.probeInterval: must be from 10 ms to 1 minute"),
        ("breaker: { slowCall: 0s }", "breaker.slowCall: must be from 1 ms to 1 hour"),
        ("breaker: { failureRate: 0 }", "breaker.failureRate: must be from 1 to 100"),
        ("breaker: { failureRate: 101 }", "breaker.failureRate: must be from 1 to 100"),
        ("breaker: { minCalls: 0 }", "breaker.minCalls: must be from 1 to 10000"),
        ("breaker: { window: 1ms }", "breaker.window: must be from 100 ms to 1 hour"),
    ] {
        let found = problem("database", &format!("type: postgres\n{keys}"));
        assert!(found.starts_with(":4:") && found.contains(said), "{keys}: {found}");
    }
}

#[test]
fn what_has_no_effect_without_a_fallback_is_a_warning() {
    let keys = "type: sqlite\nminDurability: volatile\nreads: available\nconflicts: primary-wins\n\
                journal: { maxAge: 1h }\nbreaker: { minCalls: 5 }";
    let found = warnings("database", keys);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.iter().all(|warning| warning.contains("has no effect without a `fallback`")), "{found:?}");
    let found = warnings("cache", "type: in-memory\njournal: { path: x }\nbreaker: { minCalls: 5 }");
    assert_eq!(found.len(), 2, "{found:?}");
    let keys = "type: sqlite\nfallback: [ { type: in-memory } ]\nminDurability: volatile\njournal: { path: x }";
    let found = warnings("database", keys);
    assert!(found[0].starts_with("storage.database.journal.path: has no effect on a journal in memory"), "{found:?}");
}

#[test]
fn tombstones_outlive_the_journal_twice_where_there_is_one() {
    let retention = |config: &DatabaseConfig| match config.effective_backend() {
        DatabaseBackendConfig::Postgres(config) => config.tombstone_retention,
        DatabaseBackendConfig::Sqlite(config) => config.tombstone_retention,
        other => panic!("{other:?}"),
    };
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!(retention(&database("type: postgres")), hours(48));
    assert_eq!(retention(&database("type: postgres\ntombstoneRetention: 72h")), hours(72));
    assert_eq!(retention(&database("type: postgres\njournal: { maxAge: 1h }")), hours(2));
    assert_eq!(retention(&database("type: postgres\nfallback: none")), Duration::from_secs(15 * 60));
    assert_eq!(retention(&database("type: sqlite")), Duration::from_secs(15 * 60));
    assert_eq!(retention(&database("type: sqlite\nfallback: [ { type: sqlite } ]")), hours(48));
}

#[test]
fn a_chain_made_by_hand_keeps_the_same_rules() {
    let mut config = StorageConfig::default();
    config.cache = CacheConfig::new(CacheBackendConfig::Redis(RedisConfig::default()));
    config.database = DatabaseConfig::new(DatabaseBackendConfig::Postgres(PostgresConfig::default()));
    assert!(config.validate().is_ok());
    config.cache.chain.journal_path = Some("".into());
    config.database.fallback = Fallback::To(DatabaseFallback::Memory);
    config.database.chain.journal.path = "".into();
    let paths = |config: &StorageConfig| {
        let error = config.validate().unwrap_err();
        error.problems().iter().map(|problem| problem.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&config), ["storage.cache.journal", "storage.database.fallback", "storage.database.journal"]);
    let mut config = StorageConfig::default();
    config.database = DatabaseConfig::new(DatabaseBackendConfig::Sqlite(SqliteConfig::at("a.db")));
    config.database.chain.journal.path = "a.db".into();
    assert!(config.validate().is_ok(), "nothing stands behind it");
    config.database.fallback = Fallback::To(DatabaseFallback::Sqlite);
    assert_eq!(paths(&config), ["storage.database.fallback"]);
}

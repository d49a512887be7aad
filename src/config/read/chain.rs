//! What stands behind a store: `fallback`, and the keys that say how it is used.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value as Json, json};

use super::embedded::{MemoryCacheSection, MemoryDatabaseSection};
use super::node::{Kind, Node, Place};
use super::reader::{Field, Fields, Reader};
use super::section::{Section, agree, section, set};
use super::side::{StoreType, Types, properties, store_schema, store_type};
use super::value::{Bytes, FilePath, Span, words};
use crate::config::chain::{
    BreakerConfig, CacheChainConfig, CacheFallback, Conflicts, DatabaseChainConfig, DatabaseFallback, Fallback,
    JournalConfig, MinDurability, OutageReads,
};
use crate::config::storage::{CacheConfig, DatabaseConfig};

words!(MinDurability { "primary" => Primary, "local" => Local, "volatile" => Volatile });
words!(OutageReads { "strict" => Strict, "available" => Available });
words!(Conflicts {
    "last-writer-wins" => LastWriterWins,
    "primary-wins" => PrimaryWins,
    "lastWriterWins" => LastWriterWins,
    "primaryWins" => PrimaryWins,
});

section! {
    /// What a database promises while its primary is away.
    DatabaseChainSection {
        /// The least durability that is acknowledged while the primary is away: `primary` journals nothing, `local` forces
        /// to this machine's disk, `volatile` is lost with the process.
        "minDurability" => min_durability: MinDurability = "local";
        /// What a read answers while the primary is away, for a key of which nothing is owed: it fails (`strict`), or says
        /// that the key is missing, which is a guess (`available`, for laptops only).
        "reads" => reads: OutageReads = "strict";
        /// Who wins where a journaled write meets one that somebody else made meanwhile; the loser is kept and reported.
        "conflicts" => conflicts: Conflicts = "last-writer-wins";
        /// The journal of what is owed to the primary.
        "journal" => journal: JournalSection;
        /// When the primary counts as away.
        "breaker" => breaker: BreakerSection;
    }
}

section! {
    /// The journal of what is owed to a database.
    JournalSection {
        /// The folder of the journals; each process has a file of its own in it. A relative path begins at the folder of
        /// this file.
        "path" => path: FilePath = ".agent-storage/journal";
        /// The bytes that this process's journal may take; a write beyond them fails.
        "maxBytes" => max_bytes: Bytes = "1GiB";
        /// How long an operation may wait and still be applied safely: deletes leave marks in the primary for at least
        /// twice as long.
        "maxAge" => max_age: Span = "24h";
    }
}

section! {
    /// What a cache does while its primary is away.
    CacheChainSection {
        /// What is noted of the time without the primary.
        "journal" => journal: CacheJournalSection;
        /// When the primary counts as away.
        "breaker" => breaker: BreakerSection;
    }
}

section! {
    /// What is noted of the time without the primary.
    CacheJournalSection {
        /// A folder in which is noted that something was written meanwhile, so that it is known after a crash: the next start
        /// clears the cache then. By default nothing is noted.
        "path" => path: FilePath;
    }
}

section! {
    /// When a store counts as away, and how it is found to be back.
    BreakerSection {
        /// The pause between two probes of a store that is away.
        "probeInterval" => probe_interval: Span = "2s";
        /// How long a call may wait before the store is probed, at most a fifth of `timeout`.
        "slowCall" => slow_call: Span = "1s";
        /// The percentage of calls without an answer from which on the store counts as away.
        "failureRate" => failure_rate: u8 = 50;
        /// How many calls there must have been within the window for the rate to count.
        "minCalls" => min_calls: u32 = 20;
        /// The time over which calls are counted.
        "window" => window: Span = "10s";
    }
}

impl BreakerSection {
    fn config(self) -> BreakerConfig {
        let mut config = BreakerConfig::default();
        set(&mut config.probe_interval, self.probe_interval);
        set(&mut config.slow_call, self.slow_call);
        set(&mut config.failure_rate, self.failure_rate);
        set(&mut config.min_calls, self.min_calls);
        set(&mut config.window, self.window);
        config
    }
}

section! {
    /// A journal on this machine's disk.
    SqliteFallbackSection {
        /// The folder of the journals, as `journal.path` says it too.
        "path" => path: FilePath;
    }
}

/// A member of a database's fallback, as the file has it.
enum DatabaseMember {
    Sqlite { folder: Option<Field<FilePath>> },
    Memory,
}

impl Types for DatabaseMember {
    const NOUN: &'static str = "fallback of a database";
    const OTHER: (&'static str, &'static [&'static str]) =
        ("cannot stand behind a database", &["postgres", "postgresql", "redis", "jetstream", "nats"]);
    const TYPES: &'static [StoreType<Self>] = &[
        StoreType {
            names: &["sqlite"],
            read: |fields, reader| Self::Sqlite { folder: SqliteFallbackSection::fields(fields, reader).path },
            schema: SqliteFallbackSection::json_schema,
        },
        StoreType {
            names: &["in-memory", "memory"],
            read: |fields, reader| {
                MemoryDatabaseSection::fields(fields, reader);
                Self::Memory
            },
            schema: MemoryDatabaseSection::json_schema,
        },
    ];
}

impl Types for CacheFallback {
    const NOUN: &'static str = "fallback of a cache";
    const OTHER: (&'static str, &'static [&'static str]) =
        ("cannot stand behind a cache", &["redis", "jetstream", "nats", "sqlite", "postgres", "postgresql"]);
    const TYPES: &'static [StoreType<Self>] = &[StoreType {
        names: &["in-memory", "memory"],
        read: |fields, reader| Self::Memory(MemoryCacheSection::fields(fields, reader).config()),
        schema: MemoryCacheSection::json_schema,
    }];
}

/// Reads what stands behind a database.
pub(super) fn database(
    fields: &mut Fields<'_>,
    reader: &mut Reader<'_>,
) -> (Fallback<DatabaseFallback>, DatabaseChainConfig) {
    let member = fallback::<DatabaseMember>(fields, reader);
    let section = DatabaseChainSection::fields(fields, reader);
    let mut config = DatabaseChainConfig::default();
    set(&mut config.min_durability, section.min_durability);
    set(&mut config.reads, section.reads);
    set(&mut config.conflicts, section.conflicts);
    config.breaker = section.breaker.map_or_else(BreakerConfig::default, |field| field.value.config());
    let journal = section.journal.map_or_else(JournalSection::default, |field| field.value);
    let (fallback, folder) = match member {
        Fallback::Default => (Fallback::Default, None),
        Fallback::None => (Fallback::None, None),
        Fallback::To(DatabaseMember::Memory) => (Fallback::To(DatabaseFallback::Memory), None),
        Fallback::To(DatabaseMember::Sqlite { folder }) => (Fallback::To(DatabaseFallback::Sqlite), folder),
    };
    config.journal.path = reader.base().join(config.journal.path);
    set(&mut config.journal.path, agree(folder, journal.path, reader));
    set(&mut config.journal.max_bytes, journal.max_bytes);
    set(&mut config.journal.max_age, journal.max_age);
    (fallback, config)
}

/// Reads what stands behind a cache.
pub(super) fn cache(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> (Fallback<CacheFallback>, CacheChainConfig) {
    let fallback = fallback::<CacheFallback>(fields, reader);
    let section = CacheChainSection::fields(fields, reader);
    let mut config = CacheChainConfig::default();
    config.breaker = section.breaker.map_or_else(BreakerConfig::default, |field| field.value.config());
    let path = section.journal.and_then(|journal| journal.value.path);
    config.journal_path = path.map(|path| path.value.0);
    (fallback, config)
}

/// Reads `none`, or a list with one store.
fn fallback<T: Types>(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Fallback<T> {
    let Some(node) = fields.node("fallback") else { return Fallback::Default };
    let items = match &node.kind {
        Kind::Text { text, .. } if text == "none" => return Fallback::None,
        Kind::List(items) => items,
        _ => {
            reader.wrong_type(node, "`none` or a list with one store");
            return Fallback::Default;
        }
    };
    let mut members = items.iter();
    let Some(first) = members.next() else {
        reader.problem(&node.place, "is an empty list; write `none` for no fallback");
        return Fallback::Default;
    };
    for other in members {
        reader.problem(&other.place, format!("is one too many; there is one {}", T::NOUN));
    }
    member(first, reader).map_or(Fallback::Default, Fallback::To)
}

fn member<T: Types>(node: &Node, reader: &mut Reader<'_>) -> Option<T> {
    let mut fields = Fields::open(node, reader)?;
    let store = store_type::<T>(&mut fields, reader)?;
    let member = (store.read)(&mut fields, reader);
    fields.close(reader);
    Some(member)
}

/// Says which keys have no effect by what stands behind the database.
pub(super) fn warn_of_unused_database(config: &DatabaseConfig, node: &Node, reader: &mut Reader<'_>) {
    match config.effective_fallback() {
        None => warn_without_fallback(&config.chain, node, reader),
        Some(DatabaseFallback::Memory) => {
            let path = format!("{}.journal.path", node.place.path);
            if let Some(position) = reader.position(&path) {
                reader.warn(&Place { path, position }, "has no effect on a journal in memory; take it out");
            }
        }
        Some(DatabaseFallback::Sqlite) => {}
    }
}

fn warn_without_fallback(config: &DatabaseChainConfig, node: &Node, reader: &mut Reader<'_>) {
    let default = DatabaseChainConfig::default();
    let usual = JournalConfig { path: reader.base().join(&default.journal.path), ..default.journal };
    let DatabaseChainConfig { min_durability, reads, conflicts, journal, breaker } = config;
    let unusual = [
        ("minDurability", *min_durability != default.min_durability),
        ("reads", *reads != default.reads),
        ("conflicts", *conflicts != default.conflicts),
        ("journal", *journal != usual),
        ("breaker", *breaker != default.breaker),
    ];
    warn_of_unused(&unusual, node, reader);
}

/// Says which keys have no effect because nothing stands behind the cache.
pub(super) fn warn_of_unused_cache(config: &CacheConfig, node: &Node, reader: &mut Reader<'_>) {
    if config.effective_fallback().is_some() {
        return;
    }
    let CacheChainConfig { journal_path, breaker } = &config.chain;
    let unusual = [("journal", journal_path.is_some()), ("breaker", *breaker != BreakerConfig::default())];
    warn_of_unused(&unusual, node, reader);
}

fn warn_of_unused(unusual: &[(&str, bool)], node: &Node, reader: &mut Reader<'_>) {
    for (key, _) in unusual.iter().filter(|(_, unusual)| *unusual) {
        let path = format!("{}.{key}", node.place.path);
        if let Some(position) = reader.position(&path) {
            reader.warn(&Place { path, position }, "has no effect without a `fallback`; take it out, or add one");
        }
    }
}

/// The keys of a database besides those of its type and those of every store.
pub(super) fn database_schema(generator: &mut SchemaGenerator) -> Map<String, Json> {
    let about = "What stands behind the database while it is away: `none`, or a list with one journal. By default a \
                 journal on disk behind PostgreSQL, and nothing behind SQLite and memory.";
    with_fallback::<DatabaseMember>(about, DatabaseChainSection::json_schema(generator), generator)
}

/// The keys of a cache besides those of its type and those of every store.
pub(super) fn cache_schema(generator: &mut SchemaGenerator) -> Map<String, Json> {
    let about = "What stands in for the cache while it is away: `none`, or a list with one store. By default memory behind \
                 Redis and JetStream, and nothing behind memory.";
    with_fallback::<CacheFallback>(about, CacheChainSection::json_schema(generator), generator)
}

fn with_fallback<T: Types>(about: &str, section: Schema, generator: &mut SchemaGenerator) -> Map<String, Json> {
    let members: Vec<Schema> = T::TYPES.iter().map(|store| store_schema(store, None, generator)).collect();
    let list = json!({ "type": "array", "items": { "anyOf": members }, "minItems": 1, "maxItems": 1 });
    let schema = json_schema!({ "description": about, "anyOf": [{ "const": "none" }, list, { "type": "null" }] });
    std::iter::once(("fallback".to_owned(), schema.into())).chain(properties(section)).collect()
}

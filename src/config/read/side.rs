//! The `cache` and `database` mappings: common keys, then those of the `type`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value as Json, json};

use super::chain;
use super::embedded::{MemoryCacheSection, MemoryDatabaseSection, SqliteSection};
use super::jetstream::JetstreamSection;
use super::node::{Kind, Node};
use super::postgres::PostgresSection;
use super::reader::{Fields, Reader, did_you_mean, list, nearest};
use super::redis::RedisSection;
use super::section::{Section, section, set};
use super::value::{Bytes, Span, Value};
use crate::config::batching::BatchingConfig;
use crate::config::side::{RetryConfig, SideOptions};
use crate::config::storage::{CacheBackendConfig, CacheConfig, DatabaseBackendConfig, DatabaseConfig};

section! {
    /// What every type of store understands.
    SideSection {
        /// Goes before every key; nothing outside it can be read, listed or cleared.
        "keyPrefix" => key_prefix: String = "";
        /// How long a call may take from beginning to end, retries included.
        "timeout" => timeout: Span = "5s";
        /// How often a call that is safe to repeat is sent again.
        "retry" => retry: RetrySection;
        /// How calls that happen at the same time are sent together.
        "batching" => batching: BatchingSection;
        /// Whether connecting fails if the store cannot be reached at the start.
        "required" => required: bool = false;
    }
}

section! {
    /// How often a call that is safe to repeat is sent again after a transient failure.
    RetrySection {
        /// How often a call is tried in all; 1 never tries again.
        "attempts" => attempts: u32 = 3;
        /// The pause before the second attempt; it doubles with each further one.
        "initialDelay" => initial_delay: Span = "100ms";
        /// The longest pause between two attempts.
        "maxDelay" => max_delay: Span = "5s";
    }
}

section! {
    /// How calls that happen at the same time are sent together.
    BatchingSection {
        /// Whether they are. Memory is never batched: there is no round trip to share.
        "enabled" => enabled: bool = true;
        /// How many batches of reads, of writes and of appends may each be on their way at once; 2 by default.
        "lanes" => lanes: u32;
        /// The most calls of one batch.
        "maxBatch" => max_batch: u32 = 512;
        /// The most bytes of values in one batch; a single larger value goes alone.
        "maxBatchBytes" => max_batch_bytes: Bytes = "4MiB";
    }
}

impl BatchingSection {
    fn config(self) -> BatchingConfig {
        let mut config = BatchingConfig::default();
        set(&mut config.enabled, self.enabled);
        config.lanes = self.lanes.map(|lanes| lanes.value);
        set(&mut config.max_batch, self.max_batch);
        set(&mut config.max_batch_bytes, self.max_batch_bytes);
        config
    }
}

impl SideSection {
    fn options(self) -> SideOptions {
        let mut options = SideOptions::default();
        set(&mut options.key_prefix, self.key_prefix);
        set(&mut options.timeout, self.timeout);
        if let Some(retry) = self.retry {
            let mut config = RetryConfig::default();
            set(&mut config.attempts, retry.value.attempts);
            set(&mut config.initial_delay, retry.value.initial_delay);
            set(&mut config.max_delay, retry.value.max_delay);
            options.retry = config;
        }
        if let Some(batching) = self.batching {
            options.batching = batching.value.config();
        }
        set(&mut options.required, self.required);
        options
    }
}

/// One type of store in one place of the configuration.
pub(super) struct StoreType<B> {
    /// The words for it; the first is the one we use.
    pub(super) names: &'static [&'static str],
    /// Reads its keys.
    pub(super) read: fn(&mut Fields<'_>, &mut Reader<'_>) -> B,
    /// Describes its keys.
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

/// The stores that may stand in one place of the configuration.
pub(super) trait Types: Sized + 'static {
    /// What stands there.
    const NOUN: &'static str;
    /// What is said of stores that stand elsewhere, and the words for them.
    const OTHER: (&'static str, &'static [&'static str]);
    /// The stores.
    const TYPES: &'static [StoreType<Self>];

    /// The first words of the types.
    fn names() -> Vec<&'static str> {
        Self::TYPES.iter().filter_map(|store| store.names.first().copied()).collect()
    }
}

impl Types for CacheBackendConfig {
    const NOUN: &'static str = "cache";
    const OTHER: (&'static str, &'static [&'static str]) =
        ("is a type of database", &["sqlite", "postgres", "postgresql"]);
    const TYPES: &'static [StoreType<Self>] = &[
        StoreType {
            names: &["in-memory", "memory"],
            read: |fields, reader| Self::Memory(MemoryCacheSection::fields(fields, reader).config()),
            schema: MemoryCacheSection::json_schema,
        },
        StoreType {
            names: &["redis"],
            read: |fields, reader| Self::Redis(RedisSection::fields(fields, reader).config(reader)),
            schema: RedisSection::json_schema,
        },
        StoreType {
            names: &["jetstream", "nats"],
            read: |fields, reader| Self::Jetstream(JetstreamSection::fields(fields, reader).config(reader)),
            schema: JetstreamSection::json_schema,
        },
    ];
}

impl Types for DatabaseBackendConfig {
    const NOUN: &'static str = "database";
    const OTHER: (&'static str, &'static [&'static str]) = ("is a type of cache", &["redis", "jetstream", "nats"]);
    const TYPES: &'static [StoreType<Self>] = &[
        StoreType {
            names: &["in-memory", "memory"],
            read: |fields, reader| Self::Memory(MemoryDatabaseSection::fields(fields, reader).config()),
            schema: MemoryDatabaseSection::json_schema,
        },
        StoreType {
            names: &["sqlite"],
            read: |fields, reader| Self::Sqlite(SqliteSection::fields(fields, reader).config(reader)),
            schema: SqliteSection::json_schema,
        },
        StoreType {
            names: &["postgres", "postgresql"],
            read: |fields, reader| {
                let section = PostgresSection::fields(fields, reader);
                Self::Postgres(section.config(fields.place(), reader))
            },
            schema: PostgresSection::json_schema,
        },
    ];
}

impl Value for CacheConfig {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (backend, options, (fallback, chain)) = read_side(node, chain::cache, reader)?;
        let config = Self { backend, options, fallback, chain };
        chain::warn_of_unused_cache(&config, node, reader);
        Some(config)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        side_schema::<CacheBackendConfig>(chain::cache_schema, generator)
    }
}

impl Value for DatabaseConfig {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (backend, options, (fallback, chain)) = read_side(node, chain::database, reader)?;
        let config = Self { backend, options, fallback, chain };
        chain::warn_of_unused_database(&config, node, reader);
        Some(config)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        side_schema::<DatabaseBackendConfig>(chain::database_schema, generator)
    }
}

fn read_side<B: Types, C>(
    node: &Node,
    chain: fn(&mut Fields<'_>, &mut Reader<'_>) -> C,
    reader: &mut Reader<'_>,
) -> Option<(B, SideOptions, C)> {
    if matches!(node.kind, Kind::Text { .. }) {
        reader.wrong_type(node, "a mapping with a `type`, such as `{ type: in-memory }`");
        return None;
    }
    let mut fields = Fields::open(node, reader)?;
    let store = store_type::<B>(&mut fields, reader);
    let options = SideSection::fields(&mut fields, reader).options();
    let chain = chain(&mut fields, reader);
    // Without a type nobody knows which keys there may be.
    let backend = (store?.read)(&mut fields, reader);
    fields.close(reader);
    Some((backend, options, chain))
}

/// Finds the type that a mapping names, or the one it must mean.
pub(super) fn store_type<B: Types>(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<&'static StoreType<B>> {
    let (noun, names) = (B::NOUN, B::names());
    let Some(node) = fields.node("type") else {
        reader.problem(fields.place(), format!("has no `type`; a {noun} is {}", one_of(&names)));
        return None;
    };
    let given = String::read(node, reader)?;
    let named = |name: &str| B::TYPES.iter().find(|store| store.names.contains(&name));
    if let Some(store) = named(&given) {
        return Some(store);
    }
    let (other, theirs) = B::OTHER;
    if theirs.contains(&given.as_str()) {
        reader.problem(&node.place, format!("{other}; a {noun} is {}", one_of(&names)));
        return None;
    }
    let hint = nearest(&given, B::TYPES.iter().flat_map(|store| store.names).copied());
    reader.problem(&node.place, format!("is not a known type{}", did_you_mean(hint, &names)));
    // The other keys are read as those of the type that was meant, so that their problems are reported too.
    hint.and_then(named)
}

fn one_of(names: &[&str]) -> String {
    if names.len() == 1 { list(names) } else { format!("one of {}", list(names)) }
}

/// One flat object a type, so that an editor knows the keys as soon as it sees the `type`.
fn side_schema<B: Types>(
    chain: fn(&mut SchemaGenerator) -> Map<String, Json>,
    generator: &mut SchemaGenerator,
) -> Schema {
    let mut common = properties(SideSection::json_schema(generator));
    common.extend(chain(generator));
    let sides: Vec<Schema> = B::TYPES.iter().map(|store| store_schema(store, Some(&common), generator)).collect();
    json_schema!({ "anyOf": sides })
}

/// A type of store as an object: its own keys, and those in common.
pub(super) fn store_schema<B>(
    store: &StoreType<B>,
    common: Option<&Map<String, Json>>,
    generator: &mut SchemaGenerator,
) -> Schema {
    let mut schema = (store.schema)(generator);
    let own = properties(schema.clone());
    let kind = json!({ "type": "string", "enum": store.names, "description": "The type of store." });
    let keys = std::iter::once(("type".to_owned(), kind)).chain(common.cloned().unwrap_or_default()).chain(own);
    schema.insert("properties".to_owned(), Json::Object(keys.collect()));
    schema.insert("required".to_owned(), json!(["type"]));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

/// The keys of an object.
pub(super) fn properties(mut schema: Schema) -> Map<String, Json> {
    match schema.remove("properties") {
        Some(Json::Object(properties)) => properties,
        _ => Map::new(),
    }
}

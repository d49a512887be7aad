//! The files that stand in the repository: real ones of other projects, ours, the reference, and the schema.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_storage::config::{
    CacheBackendConfig, DatabaseBackendConfig, Environment, NatsAuth, PostgresConfig, StorageConfig, TlsMode,
};
use secrecy::ExposeSecret;
use serde_json::Value as Json;

/// The sections of the reference; each is a `storage` by another name.
const REFERENCE: [&str; 3] = ["storage", "storage-redis-postgres", "storage-jetstream-memory"];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn environment() -> Environment {
    Environment::from_iter([
        ("REDIS_URL", "redis://:hunter2@cache.example:6380/2"),
        ("POSTGRES_CONNECTION_STRING", "postgresql://u:hunter2@db.example:6543/agents?sslmode=verify-full"),
        ("DATABASE_PASSWORD", "hunter2"),
        ("NATS_URL", "nats://n1.example:4222,nats://n2.example:4222"),
        ("NATS_CREDENTIALS", "/run/secrets/nats.creds"),
        ("POSTGRES_HOST", "db.example"),
        ("POSTGRES_USER", "agents"),
        ("POSTGRES_PASSWORD", "hunter2"),
    ])
}

fn load(path: &str) -> StorageConfig {
    StorageConfig::from_file_with(root(path), &environment()).unwrap()
}

fn fixture(name: &str) -> StorageConfig {
    load(&format!("tests/fixtures/config/{name}.yml"))
}

fn postgres(config: &StorageConfig) -> &PostgresConfig {
    match &config.database.backend {
        DatabaseBackendConfig::Postgres(config) => config,
        other => panic!("{other:?}"),
    }
}

fn warnings(config: &StorageConfig) -> Vec<String> {
    config.warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn a_file_with_sqlite_alone_needs_nothing_else() {
    let config = fixture("saiki-sqlite");
    let DatabaseBackendConfig::Sqlite(sqlite) = &config.database.backend else { panic!() };
    assert_eq!(sqlite.path, root("tests/fixtures/config/.agent-storage/agent.db"));
    assert_eq!(warnings(&config), Vec::<String>::new());
}

#[test]
fn a_blob_store_is_answered_with_a_warning() {
    let config = fixture("dexto-memory");
    assert_eq!((config.cache.backend.kind(), config.database.backend.kind()), ("in-memory", "in-memory"));
    assert_eq!(warnings(&config).len(), 1);
    assert!(warnings(&config)[0].contains("storage.blob"));
}

#[test]
fn urls_from_variables_are_honoured() {
    let config = fixture("dexto-production");
    let CacheBackendConfig::Redis(redis) = &config.cache.backend else { panic!() };
    assert_eq!((redis.host.as_str(), redis.port, redis.database), ("cache.example", 6380, 2));
    assert_eq!(redis.password.as_ref().unwrap().expose_secret(), "hunter2");
    let postgres = postgres(&config);
    assert_eq!((postgres.host.as_str(), postgres.port, postgres.database.as_str()), ("db.example", 6543, "agents"));
    assert_eq!(postgres.tls.mode, TlsMode::VerifyFull);
    assert_eq!(warnings(&config), Vec::<String>::new());
}

#[test]
fn sizes_of_pools_are_honoured() {
    let config = fixture("dexto-pools");
    let CacheBackendConfig::Redis(redis) = &config.cache.backend else { panic!() };
    assert_eq!((redis.max_connections, postgres(&config).pool.max), (10, 25));
}

#[test]
fn every_key_of_the_advanced_file_is_honoured() {
    let config = fixture("saiki-advanced-postgres");
    let postgres = postgres(&config);
    assert_eq!((postgres.host.as_str(), postgres.port, postgres.database.as_str()), ("localhost", 5432, "saiki"));
    assert_eq!((postgres.username.as_str(), postgres.application_name.as_str()), ("user", "saiki"));
    assert_eq!((postgres.pool.max, postgres.pool.idle_timeout), (50, Duration::from_secs(30)));
    assert_eq!(postgres.connection_timeout, Duration::from_secs(5));
    assert_eq!(postgres.statement_timeout, Duration::from_secs(30));
    assert_eq!(postgres.tls.mode, TlsMode::Disable);
    assert_eq!(warnings(&config), Vec::<String>::new());
}

#[test]
fn parts_and_prefixes_are_honoured() {
    let config = fixture("saiki-parts");
    assert_eq!(config.cache.options.key_prefix, "saiki:cache:");
    assert_eq!(config.database.options.key_prefix, "saiki:db:");
    let postgres = postgres(&config);
    assert_eq!((postgres.username.as_str(), postgres.database.as_str()), ("saiki_user", "saiki"));
    assert_eq!(postgres.password.as_ref().unwrap().expose_secret(), "hunter2");
}

#[test]
fn our_own_files_load_without_a_warning() {
    for (path, kinds) in [
        ("agent.yml", ("in-memory", "sqlite")),
        ("config/development.yml", ("in-memory", "sqlite")),
        ("config/production.yml", ("jetstream", "postgres")),
        ("config/reference.yml", ("in-memory", "sqlite")),
    ] {
        let config = load(path);
        assert_eq!((config.cache.backend.kind(), config.database.backend.kind()), kinds, "{path}");
        assert_eq!(warnings(&config), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn production_is_verified_replicated_and_required() {
    let config = load("config/production.yml");
    let CacheBackendConfig::Jetstream(jetstream) = &config.cache.backend else { panic!() };
    assert_eq!((jetstream.servers.len(), jetstream.replicas), (2, 3));
    assert!(matches!(jetstream.auth, NatsAuth::CredentialsFile(_)) && jetstream.tls.files().is_some());
    assert_eq!(postgres(&config).tls.mode, TlsMode::VerifyFull);
    assert!(config.database.options.required);
}

/// The reference with one of its sections in the place of `storage`.
fn reference(section: &str) -> String {
    let text = std::fs::read_to_string(root("config/reference.yml")).unwrap();
    let text = text.replace("\nstorage:\n", "\nstorage-embedded:\n");
    let section = if section == "storage" { "storage-embedded" } else { section };
    text.replace(&format!("\n{section}:\n"), "\nstorage:\n")
}

#[test]
fn the_reference_shows_the_defaults() {
    for section in REFERENCE {
        let full = StorageConfig::from_yaml_with(&reference(section), "a.yml", &Environment::empty()).unwrap();
        let (cache, database) = (full.cache.backend.kind(), full.database.backend.kind());
        let bare = format!("storage: {{ cache: {{ type: {cache} }}, database: {{ type: {database} }} }}");
        let bare = StorageConfig::from_yaml_with(&bare, "a.yml", &Environment::empty()).unwrap();
        assert_eq!(format!("{:#?}", full.cache), format!("{:#?}", bare.cache), "{section}");
        assert_eq!(format!("{:#?}", full.database), format!("{:#?}", bare.database), "{section}");
        assert_eq!(warnings(&full), Vec::<String>::new());
    }
}

/// The schemas of the types of one side: the words for a type, and its keys.
fn types(side: &str) -> Vec<(String, serde_json::Map<String, Json>)> {
    let schema = StorageConfig::json_schema();
    let types = &schema["properties"]["storage"]["properties"][side]["anyOf"][0]["anyOf"];
    let described = |each: &Json| {
        let properties = each["properties"].as_object().unwrap().clone();
        (properties["type"]["enum"][0].as_str().unwrap().to_owned(), properties)
    };
    types.as_array().unwrap().iter().map(described).collect()
}

/// The keys of a schema's object, those of mappings below it with dots.
fn schema_keys(properties: &serde_json::Map<String, Json>, prefix: &str, keys: &mut BTreeSet<String>) {
    for (key, schema) in properties {
        keys.insert(format!("{prefix}{key}"));
        let inner = schema.get("properties").or_else(|| schema["anyOf"][0].get("properties"));
        // Encryption is a word as well as a mapping, and is shown as a word.
        if let Some(Json::Object(inner)) = inner.filter(|_| !matches!(key.as_str(), "ssl" | "tls")) {
            schema_keys(inner, &format!("{prefix}{key}."), keys);
        }
    }
}

fn yaml_keys(mapping: &Json, prefix: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in mapping.as_object().into_iter().flatten() {
        keys.insert(format!("{prefix}{key}"));
        yaml_keys(value, &format!("{prefix}{key}."), keys);
    }
}

#[test]
fn the_reference_has_every_key_of_the_schema() {
    let text = std::fs::read_to_string(root("config/reference.yml")).unwrap();
    let reference: Json = serde_saphyr::from_str(&text).unwrap();
    let both = ["keyPrefix", "timeout", "retry", "batching", "required", "fallback", "journal", "breaker"];
    let only = ["minDurability", "reads", "conflicts"];
    for (side, common) in [("cache", both.to_vec()), ("database", [&both[..], &only].concat())] {
        for (kind, properties) in types(side) {
            let section = REFERENCE.iter().map(|name| &reference[*name][side]).find(|section| section["type"] == kind);
            let (mut shown, mut known) = (BTreeSet::new(), BTreeSet::new());
            yaml_keys(section.expect(&kind), "", &mut shown);
            schema_keys(&properties, "", &mut known);
            let elsewhere = |key: &String| common.contains(&key.split('.').next().unwrap());
            if !shown.contains("keyPrefix") {
                known.retain(|key| !elsewhere(key));
            }
            assert_eq!(shown, known, "{side} {kind}");
        }
    }
}

#[test]
fn the_schema_gives_the_defaults_that_the_reference_shows() {
    let text = std::fs::read_to_string(root("config/reference.yml")).unwrap();
    let reference: Json = serde_saphyr::from_str(&text).unwrap();
    let mut compared = 0;
    for side in ["cache", "database"] {
        for (kind, properties) in types(side) {
            let section = REFERENCE.iter().map(|name| &reference[*name][side]).find(|section| section["type"] == kind);
            for (key, schema) in &properties {
                let shown = section.and_then(|section| section.get(key)).filter(|shown| !shown.is_object());
                if let Some(shown) = shown.filter(|_| key != "type") {
                    assert_eq!(schema.get("default").unwrap_or(&Json::Null), shown, "{side} {kind} {key}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn the_reader_knows_the_keys_of_the_schema_and_no_others() {
    for side in ["cache", "database"] {
        for (kind, properties) in types(side) {
            let yaml = format!("storage: {{ {side}: {{ type: {kind}, qqqqqqqqqqqq: 1 }} }}");
            let error = StorageConfig::from_yaml_with(&yaml, "a.yml", &Environment::empty()).unwrap_err().to_string();
            let listed = error.split("known are ").nth(1).unwrap();
            let read: BTreeSet<&str> = listed.split(", ").map(|key| key.trim_matches('`')).collect();
            let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            assert_eq!(read, described, "{side} {kind}");
        }
    }
}

#[test]
fn the_schema_is_closed_inside_storage_and_open_beside_it() {
    let schema = StorageConfig::json_schema();
    assert_eq!(schema["additionalProperties"], true);
    assert_eq!(schema["properties"]["storage"]["additionalProperties"], false);
    for side in ["cache", "database"] {
        for each in schema["properties"]["storage"]["properties"][side]["anyOf"][0]["anyOf"].as_array().unwrap() {
            assert_eq!((&each["additionalProperties"], &each["required"][0]), (&Json::Bool(false), &"type".into()));
            for (key, property) in each["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{key} has a description");
            }
        }
    }
}

#[test]
fn the_schema_for_editors_is_up_to_date() {
    let path = root("config/agent.schema.json");
    let fresh = serde_json::to_string_pretty(&StorageConfig::json_schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(
        stored == fresh,
        "run `UPDATE_SCHEMA=1 cargo test --test config_files` and commit config/agent.schema.json"
    );
}

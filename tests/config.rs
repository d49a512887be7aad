//! What an `agent.yml` may say, and what is said about one that is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use agent_storage::config::{
    CacheBackendConfig, ConfigError, DatabaseBackendConfig, Environment, JetstreamConfig, NatsAuth, PostgresConfig,
    RedisConfig, SqliteConfig, StorageConfig, StreamStorage, Synchronous, Tls, TlsMode,
};
use proptest::prelude::*;
use secrecy::ExposeSecret;

fn environment() -> Environment {
    Environment::from_iter([
        ("PORT", "6543"),
        ("WORD", "hunter2"),
        ("EMPTY", ""),
        ("YES", "true"),
        ("HOME", "/home/agent"),
        ("REDIS_URL", "redis://:hunter2@cache.example:6380/2"),
    ])
}

fn load(yaml: &str) -> Result<StorageConfig, ConfigError> {
    StorageConfig::from_yaml_with(yaml, "/etc/agent/agent.yml", &environment())
}

fn section(side: &str, keys: &str) -> String {
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    format!("storage:\n  {side}:\n{keys}")
}

fn cache(keys: &str) -> StorageConfig {
    load(&section("cache", keys)).unwrap()
}

fn database(keys: &str) -> StorageConfig {
    load(&section("database", keys)).unwrap()
}

fn redis(keys: &str) -> RedisConfig {
    match cache(&format!("type: redis\n{keys}")).cache.backend {
        CacheBackendConfig::Redis(config) => config,
        other => panic!("{other:?}"),
    }
}

fn jetstream(keys: &str) -> JetstreamConfig {
    match cache(&format!("type: jetstream\n{keys}")).cache.backend {
        CacheBackendConfig::Jetstream(config) => config,
        other => panic!("{other:?}"),
    }
}

fn postgres(keys: &str) -> PostgresConfig {
    match database(&format!("type: postgres\n{keys}")).database.backend {
        DatabaseBackendConfig::Postgres(config) => config,
        other => panic!("{other:?}"),
    }
}

fn sqlite(keys: &str) -> SqliteConfig {
    match database(&format!("type: sqlite\n{keys}")).database.backend {
        DatabaseBackendConfig::Sqlite(config) => config,
        other => panic!("{other:?}"),
    }
}

/// The problems without the file's name: `line:column: path: message`.
fn problems(yaml: &str) -> Vec<String> {
    let error = load(yaml).expect_err(yaml);
    error.to_string().lines().map(|line| line.strip_prefix("/etc/agent/agent.yml").unwrap().to_owned()).collect()
}

fn problem(yaml: &str) -> String {
    let problems = problems(yaml);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

fn warnings(config: &StorageConfig) -> Vec<String> {
    config.warnings().iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect()
}

#[test]
fn nothing_at_all_is_memory_on_both_sides() {
    for yaml in
        ["", "\n# only a comment\n", "storage:\n", "storage: {}\n", "storage: ~\n", "agent: { name: x }\n", "---\n"]
    {
        let config = load(yaml).unwrap();
        let kinds = (config.cache.backend.kind(), config.database.backend.kind());
        assert_eq!(kinds, ("in-memory", "in-memory"), "{yaml:?}");
        assert_eq!(warnings(&config), Vec::<String>::new());
    }
}

#[test]
fn one_side_alone_leaves_the_other_in_memory() {
    let config = cache("type: redis");
    assert_eq!((config.cache.backend.kind(), config.database.backend.kind()), ("redis", "in-memory"));
    assert_eq!(load("storage:\n  cache:\n").unwrap().cache.backend.kind(), "in-memory");
}

#[test]
fn every_word_for_a_type_is_taken() {
    for (word, kind) in
        [("in-memory", "in-memory"), ("memory", "in-memory"), ("jetstream", "jetstream"), ("nats", "jetstream")]
    {
        assert_eq!(cache(&format!("type: {word}")).cache.backend.kind(), kind);
    }
    for (word, kind) in
        [("memory", "in-memory"), ("sqlite", "sqlite"), ("postgres", "postgres"), ("postgresql", "postgres")]
    {
        assert_eq!(database(&format!("type: {word}")).database.backend.kind(), kind);
    }
}

#[test]
fn the_keys_of_every_store_are_read() {
    let config = cache(
        "type: in-memory\nkeyPrefix: 'a:'\ntimeout: 2s\nrequired: true\nmaxBytes: 1MiB\nmaxEntries: 10\n\
         retry: { attempts: 5, initialDelay: 1ms, maxDelay: 1s }",
    );
    let options = &config.cache.options;
    assert_eq!((options.key_prefix.as_str(), options.timeout, options.required), ("a:", Duration::from_secs(2), true));
    assert_eq!((options.retry.attempts, options.retry.max_delay), (5, Duration::from_secs(1)));
    let CacheBackendConfig::Memory(memory) = &config.cache.backend else { panic!() };
    assert_eq!((memory.max_bytes, memory.max_entries), (1024 * 1024, 10));
}

#[test]
fn redis_takes_a_url_apart() {
    let config = redis("url: rediss://us%65r:p%40ss@cache.example:6380/3");
    assert_eq!((config.host.as_str(), config.port, config.database), ("cache.example", 6380, 3));
    assert_eq!(config.username.as_deref(), Some("user"));
    assert_eq!(config.password.unwrap().expose_secret(), "p@ss");
    assert!(matches!(config.tls, Tls::Verified(_)));
}

#[test]
fn redis_fills_in_what_the_url_leaves_out() {
    let config = redis("url: redis://cache.example\npassword: $WORD\nport: $PORT\ndatabase: 4");
    assert_eq!((config.host.as_str(), config.port, config.database), ("cache.example", 6543, 4));
    assert_eq!(config.password.unwrap().expose_secret(), "hunter2");
}

#[test]
fn redis_keeps_its_defaults() {
    let config = redis("password: ${EMPTY}\nusername: ''");
    assert_eq!(format!("{config:?}"), format!("{:?}", RedisConfig::default()));
}

#[test]
fn tls_takes_files_relative_to_the_configuration() {
    let config = redis("tls: { ca: certs/ca.pem, cert: ~/me.pem, key: /abs/me.key }");
    let files = config.tls.files().unwrap();
    assert_eq!(files.ca_file.as_deref(), Some("/etc/agent/certs/ca.pem".as_ref()));
    assert_eq!(files.cert_file.as_deref(), Some("/home/agent/me.pem".as_ref()));
    assert_eq!(files.key_file.as_deref(), Some("/abs/me.key".as_ref()));
}

#[test]
fn jetstream_takes_servers_and_a_bucket() {
    let config = jetstream(
        "servers: [ 'nats://a.example', 'b.example:4333' ]\ntoken: $WORD\nbucket: sessions_1\nreplicas: 3\nstorage: memory\n\
         maxBytes: 1GiB\nmaxValueBytes: 64KiB\nttl: 1h\ndescription: d\nplacement: { cluster: c, tags: [ssd] }\nreads: direct\n\
         createBucket: false",
    );
    let servers: Vec<_> = config.servers.iter().map(|server| format!("{}:{}", server.host, server.port)).collect();
    assert_eq!(servers, ["a.example:4222", "b.example:4333"]);
    assert!(matches!(&config.auth, NatsAuth::Token(token) if token.expose_secret() == "hunter2"));
    assert_eq!((config.bucket.as_str(), config.replicas, config.storage), ("sessions_1", 3, StreamStorage::Memory));
    assert_eq!((config.max_bytes, config.max_value_bytes), (Some(1 << 30), Some(64 * 1024)));
    assert_eq!(config.ttl, Some(Duration::from_secs(3600)));
    assert_eq!(config.placement.unwrap().tags, ["ssd"]);
    assert!(!config.create_bucket);
}

#[test]
fn jetstream_takes_credentials_from_its_url() {
    let config = jetstream("url: tls://user:hunter2@a.example:4333,tls://b.example");
    assert_eq!(config.servers.len(), 2);
    assert!(matches!(&config.auth, NatsAuth::User { username, .. } if username == "user"));
    assert!(matches!(config.tls, Tls::Verified(_)));
    assert!(matches!(jetstream("url: nats://a,tls://b").tls, Tls::Verified(_)), "one that must be encrypted means all");
    assert!(jetstream("url: nats://a\ntls: { ca: /ca.pem }").tls.files().unwrap().ca_file.is_some());
    assert!(matches!(jetstream("url: nats://hunter2@a.example").auth, NatsAuth::Token(_)));
}

#[test]
fn sqlite_finds_its_file_from_the_configuration() {
    for (keys, path) in [
        ("", "/etc/agent/.agent-storage/agent.db"),
        ("path: data/a.db", "/etc/agent/data/a.db"),
        ("path: /var/a.db", "/var/a.db"),
        ("path: ~/a.db", "/home/agent/a.db"),
        ("database: saiki.db", "/etc/agent/.agent-storage/saiki.db"),
    ] {
        assert_eq!(sqlite(keys).path, std::path::Path::new(path), "{keys}");
    }
}

#[test]
fn sqlite_takes_the_names_of_the_family() {
    let config =
        sqlite("synchronous: normal\nmaxConnections: 8\nconnectionTimeoutMillis: 1500\ntombstoneRetention: 1h");
    assert_eq!((config.synchronous, config.readers), (Synchronous::Normal, 8));
    assert_eq!(config.busy_timeout, Duration::from_millis(1500));
    assert_eq!(config.tombstone_retention, Duration::from_secs(3600));
}

#[test]
fn postgres_takes_a_url_apart() {
    let config = postgres(
        "url: postgresql://us%40er:p%2Fw@db.example:6000/my%20db?sslmode=verify-full&application_name=me&connect_timeout=7&pgbouncer=true",
    );
    assert_eq!((config.host.as_str(), config.port), ("db.example", 6000));
    assert_eq!((config.username.as_str(), config.database.as_str()), ("us@er", "my db"));
    assert_eq!(config.password.unwrap().expose_secret(), "p/w");
    assert_eq!((config.tls.mode, config.application_name.as_str()), (TlsMode::VerifyFull, "me"));
    assert_eq!(config.connection_timeout, Duration::from_secs(7));
    assert!(config.transaction_pooler);
}

#[test]
fn postgres_finds_a_socket() {
    for keys in [
        "url: postgres://u:p@/db?host=/run/pg",
        "url: postgres:///db?host=/run/pg&user=u",
        "url: postgres://u@%2Frun%2Fpg/db",
        "host: /run/pg\nuser: u\ndatabase: db",
        "socketDir: /run/pg\nusername: u\ndatabase: db",
    ] {
        let config = postgres(keys);
        assert_eq!(config.socket_dir.as_deref(), Some("/run/pg".as_ref()), "{keys}");
        assert_eq!((config.username.as_str(), config.database.as_str()), ("u", "db"), "{keys}");
    }
}

#[test]
fn postgres_names_the_database_after_the_user() {
    assert_eq!(postgres("username: saiki").database, "saiki");
    assert_eq!(format!("{:?}", postgres("")), format!("{:?}", PostgresConfig::default()));
}

#[test]
fn postgres_takes_every_form_of_ssl() {
    for (ssl, mode) in [
        ("true", TlsMode::VerifyFull),
        ("false", TlsMode::Disable),
        ("$YES", TlsMode::VerifyFull),
        ("require", TlsMode::Require),
        ("{ ca: ca.pem }", TlsMode::VerifyFull),
        ("{ mode: verify-ca, ca: ca.pem }", TlsMode::VerifyCa),
        ("{ rejectUnauthorized: false }", TlsMode::Require),
    ] {
        assert_eq!(postgres(&format!("ssl: {ssl}")).tls.mode, mode, "{ssl}");
        assert_eq!(postgres(&format!("options:\n  ssl: {ssl}")).tls.mode, mode, "{ssl}");
    }
    let config = postgres("url: postgres://h/db?sslmode=verify-ca\nssl: { mode: verify-ca, ca: /ca.pem }");
    assert_eq!(config.tls.files.ca_file.as_deref(), Some("/ca.pem".as_ref()));
}

#[test]
fn postgres_takes_a_pool_in_both_forms() {
    let pool = postgres("pool: { min: 2, max: 20, acquireTimeoutMillis: 1000, idleTimeout: 1m, maxLifetime: 1h }").pool;
    assert_eq!((pool.min, pool.max, pool.acquire_timeout), (2, 20, Duration::from_secs(1)));
    assert_eq!((pool.idle_timeout, pool.max_lifetime), (Duration::from_secs(60), Duration::from_secs(3600)));
    let pool = postgres("maxConnections: 25\nidleTimeoutMillis: 30000").pool;
    assert_eq!((pool.max, pool.idle_timeout), (25, Duration::from_secs(30)));
}

#[test]
fn an_unencrypted_way_to_another_machine_is_a_warning() {
    let said = |keys: &str| warnings(&database(&format!("type: postgres\n{keys}")));
    assert!(said("host: db.example")[0].contains("`ssl: true`"));
    assert!(said("url: postgres://db.example/x?sslmode=require")[0].contains("does not check who answers"));
    assert!(said("url: postgres://db.example/x?sslmode=verify-ca")[0].contains("whatever the name"));
    for quiet in [
        "host: localhost",
        "host: 127.0.0.1",
        "socketDir: /run",
        "host: db.example\nssl: true",
        "host: db.example\nssl: false",
    ] {
        assert_eq!(said(quiet), Vec::<String>::new(), "{quiet}");
    }
}

#[test]
fn variables_are_replaced_quoted_or_plain() {
    for port in ["$PORT", "'$PORT'", "\"${PORT}\"", "${NONE:-6543}", "'${PORT:?needed}'", "6${NONE:-54}3"] {
        assert_eq!(redis(&format!("port: {port}")).port, 6543, "{port}");
    }
    assert!(
        cache("type: $NONE${NONE:-}\n".replace("$NONE${NONE:-}", "${NONE:-redis}").as_str()).cache.backend.kind()
            == "redis"
    );
    assert!(cache("type: redis\nrequired: $YES").cache.options.required);
    assert_eq!(redis("url: $REDIS_URL").host, "cache.example");
}

#[test]
fn a_password_keeps_its_dollars() {
    for (given, kept) in
        [("pa$$word", "pa$$word"), ("$$WORD", "$WORD"), ("'$${WORD}'", "${WORD}"), ("a$WORD", "a$WORD"), ("$", "$")]
    {
        assert_eq!(redis(&format!("password: {given}")).password.unwrap().expose_secret(), kept);
    }
}

#[test]
fn an_unset_variable_is_named_with_its_line() {
    assert_eq!(
        problem("storage:\n  cache:\n    type: redis\n    url: $NO_SUCH\n"),
        ":4:10: storage.cache.url: the variable `NO_SUCH` is not set; set it, or give a default: `${NO_SUCH:-...}`"
    );
    let message = problem("storage: { cache: { type: redis, password: '${NO_SUCH:?from the vault}' } }");
    assert!(message.ends_with("the variable `NO_SUCH` is not set: from the vault"), "{message}");
}

#[test]
fn variables_outside_the_section_are_nobodys_business() {
    assert!(
        load("llm: { key: $NO_SUCH, other: [ *x ] }\nstorage:\n").is_err(),
        "the YAML of the whole file must parse"
    );
    assert!(load("llm: { key: $NO_SUCH, port: 99999, storge: 1 }\nstorage:\n").is_ok());
}

#[test]
fn all_problems_are_reported_together() {
    let yaml = "\
storage:
  cache:
    type: redis
    port: 70000
    maxConections: 3
    url: $NO_SUCH
  database:
    type: postgrs
    port: x
  blobs: 1
";
    let found = problems(yaml);
    assert_eq!(
        found,
        [
            ":4:11: storage.cache.port: expected a whole number from 0 to 65535, found a larger one",
            ":5:5: storage.cache.maxConections: is not a known key; did you mean `maxConnections`?",
            ":6:10: storage.cache.url: the variable `NO_SUCH` is not set; set it, or give a default: `${NO_SUCH:-...}`",
            ":8:11: storage.database.type: is not a known type; did you mean `postgres`?",
            ":9:11: storage.database.port: expected a whole number from 0 to 65535, found text",
            ":10:3: storage.blobs: is not a known key; did you mean `blob`?",
        ]
    );
}

#[test]
fn a_wrong_type_is_told_without_the_value() {
    for (keys, message) in [
        ("port: hunter2", "expected a whole number from 0 to 65535, found text"),
        ("port: '6379'", "(take off the quotes), found text"),
        ("port: [1]", "found a list"),
        ("port: -1", "found a negative number"),
        ("port: 1.5", "found a number"),
        ("port: true", "found true or false"),
        ("port: $WORD", "found other text from the environment"),
        ("password: 424242", "expected text (put it in quotes), found a number"),
        ("password: [hunter2]", "expected text, found a list"),
        ("password: { hunter2: 424242 }", "expected text, found a mapping"),
        ("host: 424242", "expected text (put it in quotes), found a number"),
        ("required: hunter2", "expected `true` or `false`, found text"),
        ("timeout: 30", "expected a duration with its unit"),
        ("timeout: 30 parsecs", "expected a duration with its unit"),
        ("timeout: -5s", "expected a duration with its unit"),
        ("retry: 3", "expected a mapping, found a number"),
        ("tls: hunter2", "expected `true` or `false`, found text"),
        ("connectionTimeoutMillis: 5s", "expected a whole number"),
        ("url: hunter2", "is not a URL"),
        ("url: ''", "expected a URL, found empty text"),
        ("url: http://hunter2@host", "has a scheme that is not served"),
        ("url: redis://:hunter2@host:70000", "has a port that is not a number from 1 to 65535"),
        ("url: redis://host/hunter2", "must end with the number of a database"),
    ] {
        let said = problem(&section("cache", &format!("type: redis\n{keys}")));
        assert!(said.contains(message), "{keys}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("424242"), "{said}");
    }
}

#[test]
fn a_value_beyond_its_bounds_is_told_at_its_place() {
    for (side, keys, said) in [
        ("cache", "type: redis\nport: 0", ":4:11: storage.cache.port: must be from 1 to 65535"),
        ("cache", "type: redis\nurl: redis://h:0", ":4:10: storage.cache.url: must be from 1 to 65535"),
        ("cache", "type: redis\nmaxConnections: 0", ":4:21: storage.cache.maxConnections: must be from 1 to 1000"),
        ("cache", "type: redis\nhost: a/b", ":4:11: storage.cache.host: must be a host name"),
        (
            "cache",
            "type: redis\nconnectionTimeoutMillis: 0",
            ":4:30: storage.cache.connectionTimeoutMillis: must be from 1 ms",
        ),
        ("cache", "type: redis\ntimeout: 0s", ":4:14: storage.cache.timeout: must be from 1 ms"),
        ("cache", "type: redis\ntls: { cert: a }", ":4:10: storage.cache.tls: must have both `cert` and `key`"),
        ("cache", "type: redis\nretry: { attempts: 0 }", ":4:24: storage.cache.retry.attempts: must be from 1"),
        ("cache", "type: in-memory\nmaxEntries: 0", ":4:17: storage.cache.maxEntries: must be at least 1"),
        ("cache", "type: jetstream\nreplicas: 6", ":4:15: storage.cache.replicas: must be from 1 to 5"),
        ("cache", "type: jetstream\nbucket: a.b", ":4:13: storage.cache.bucket: must be 1 to 200 letters"),
        ("cache", "type: jetstream\nservers: []", "must name at least one server"),
        ("cache", "type: redis\nkeyPrefix: \"a\\n\"", ":4:16: storage.cache.keyPrefix: must not hold control"),
        ("database", "type: postgres\nmaxConnections: 0", "must be from 1 to 1000"),
        (
            "database",
            "type: postgres\npool: { min: 5, max: 4 }",
            ":4:11: storage.database.pool: must not have a `min` above",
        ),
        ("database", "type: postgres\nschema: pg_mine", ":4:13: storage.database.schema: must not begin with `pg_`"),
        ("database", "type: postgres\nschema: 'a b'", "must be 1 to 63 letters"),
        ("database", "type: sqlite\npath: ''", "expected a path"),
        ("database", "type: sqlite\npath: ':memory:'", "use `type: in-memory`"),
        ("database", "type: sqlite\ndatabase: ../x", "use `path` for a path"),
        ("database", "type: sqlite\ntombstoneRetention: 1s", "must be from 1 minute"),
    ] {
        let found = problem(&section(side, keys));
        assert!(found.contains(said), "{keys}: {found}");
    }
}

#[test]
fn sizes_are_bytes_or_words_and_nothing_else() {
    for (size, bytes) in [("1048576", 1 << 20), ("1MiB", 1 << 20), ("'1 MB'", 1_000_000), ("${NONE:-64KiB}", 64 << 10)]
    {
        let config = cache(&format!("type: in-memory\nmaxBytes: {size}"));
        let CacheBackendConfig::Memory(memory) = config.cache.backend else { panic!() };
        assert_eq!(memory.max_bytes, bytes, "{size}");
    }
    for size in ["-5MB", "-5", "1.5", "many", "1ZB", "[1]", "true"] {
        let said = problem(&section("cache", &format!("type: in-memory\nmaxBytes: {size}")));
        assert!(said.contains("storage.cache.maxBytes: expected a"), "{said}");
    }
}

#[test]
fn contradictions_are_told() {
    for (side, keys, said) in [
        (
            "cache",
            "type: redis\nurl: redis://a\nhost: b",
            ":5:11: storage.cache.host: says something else than `storage.cache.url`",
        ),
        ("cache", "type: redis\nurl: redis://:hunter2@a\npassword: hunter3", "password: says something else"),
        ("cache", "type: redis\nurl: redis://a\ntls: true", "tls: contradicts the scheme"),
        ("cache", "type: redis\nurl: rediss://a\ntls: false", "tls: contradicts the scheme"),
        ("cache", "type: redis\ntls: true\nssl: false", "ssl: says something else"),
        ("cache", "type: redis\nconnectionTimeout: 1s\nconnectionTimeoutMillis: 2", "says something else"),
        ("cache", "type: nats\nurl: nats://a\nservers: [b]", "servers: says something else"),
        ("cache", "type: nats\nurl: tls://a\ntls: false", "tls: contradicts the scheme"),
        ("cache", "type: nats\ntoken: hunter2\nnkeySeed: hunter2", "is a second way to say who we are"),
        ("cache", "type: nats\nservers: [a, 'nats://b:70000']", "has a port that is not"),
        ("cache", "type: nats\nusername: a", "needs a `password`"),
        ("cache", "type: redis\nusername: a\npassword: \"\"", "needs a `password`"),
        ("cache", "type: redis\nurl: redis://a@host/0", "needs a `password`"),
        ("cache", "type: nats\npassword: hunter2", "needs a `username`"),
        ("database", "type: postgres\nurl: postgres://a/x\nconnectionString: postgres://b/x", "says something else"),
        ("database", "type: postgres\nurl: postgres://a:1/x\nport: 2", "port: says something else"),
        (
            "database",
            "type: postgres\nurl: postgres://a/x?sslmode=disable\nssl: true",
            "ssl: says something else than the `sslmode`",
        ),
        ("database", "type: postgres\nhost: a\nsocketDir: /run", "give a host or a socket"),
        ("database", "type: postgres\npool: { max: 3 }\nmaxConnections: 4", "maxConnections: says something else"),
        ("database", "type: postgres\nurl: postgres://a,b/x", "names several hosts"),
        ("database", "type: postgres\nurl: host=a password=hunter2", "is not a URL"),
        ("database", "type: postgres\nurl: postgres://a/x?sslmode=hunter2", "`sslmode` that is not known"),
    ] {
        let found = problem(&section(side, keys));
        assert!(found.contains(said), "{keys}: {found}");
        assert!(!found.contains("hunter"), "{found}");
    }
}

#[test]
fn what_is_said_twice_in_agreement_is_taken() {
    assert_eq!(redis("url: redis://a:7000\nhost: a\nport: 7000").port, 7000);
    assert_eq!(postgres("url: postgres://a/x?sslmode=verify-full\nssl: true\nhost: a").host, "a");
    assert_eq!(postgres("url: postgres://a/x\nconnectionString: postgres://a/x").host, "a");
}

#[test]
fn a_type_of_the_other_side_is_told() {
    assert_eq!(
        problem("storage:\n  database:\n    type: redis\n"),
        ":3:11: storage.database.type: is a type of cache; a database is one of `in-memory`, `sqlite`, `postgres`"
    );
    assert!(problem("storage: { cache: { type: sqlite } }").contains("is a type of database; a cache is one of"));
    assert!(problem("storage:\n  cache:\n    port: 1\n").starts_with(":2:3: storage.cache: has no `type`"));
    assert!(problem("storage:\n  cache: redis\n").contains("expected a mapping with a `type`"));
    assert!(problem("storage: []\n").contains("expected a mapping, found a list"));
    assert!(problem("- storage\n").contains("expected a mapping with a `storage` section"));
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let config =
        load("storage:\n  blob: { type: local, anything: [1] }\n  cache: { type: in-memory, idleTimeoutMillis: 5 }\n")
            .unwrap();
    let found = warnings(&config);
    assert!(found.iter().any(|warning| warning.starts_with("storage.blob: is not served")), "{found:?}");
    assert!(
        found.iter().any(|warning| warning.starts_with("storage.cache.idleTimeoutMillis: has no effect")),
        "{found:?}"
    );
    let config = load("storge:\n  cache: { type: redis }\n").unwrap();
    assert!(warnings(&config)[0].contains("did you mean `storage`?"));
    assert!(warnings(&cache("type: redis\npassword: 'a${b c}d'"))[0].contains("stands for itself"));
    assert!(warnings(&cache("type: redis\nurl: redis://a?protocol=resp3"))[0].contains("`protocol`"));
    assert!(warnings(&cache("type: nats\nstorage: memory\ncompression: true"))[0].contains("in memory"));
}

#[test]
fn anchors_and_merges_are_followed_to_where_the_value_stands() {
    let yaml = "base: &base { type: redis, port: 70000 }\nstorage:\n  cache:\n    <<: *base\n    host: a\n";
    assert_eq!(problem(yaml).split(": ").take(2).collect::<Vec<_>>(), [":1:34", "storage.cache.port"]);
    let yaml = "port: &port 7000\nstorage: { cache: { type: redis, port: *port } }\n";
    assert!(load(yaml).is_ok());
}

#[test]
fn hostile_yaml_is_refused_with_a_reason() {
    let laughs = {
        let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            yaml.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
        }
        yaml + "storage: { cache: *a11 }\n"
    };
    let deep = format!("storage: {}{}", "[".repeat(5000), "]".repeat(5000));
    let stairs: String = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let huge = format!("# {}\n", "x".repeat(1 << 20));
    for (yaml, said) in [
        (laughs.as_str(), "anchors too often"),
        (deep.as_str(), "recursion limit"),
        (stairs.as_str(), "too deep"),
        (huge.as_str(), "is larger than 1024 KiB"),
        ("storage: &a { cache: *a }", "contains itself"),
        ("storage: { cache: *nowhere }", "anchor that is not defined"),
        ("storage: { blob: 1, blob: 2 }", "the same key twice"),
        ("storage:\nstorage:\n", "the same key twice"),
        ("storage:\n---\nstorage:\n", "more than one YAML document"),
        ("storage: { [a]: 1 }", "a key that is not text"),
        ("storage: { cache: [1, 2 }", "is not YAML"),
        ("storage:\n\tcache: 1\n", "is not YAML"),
        ("storage: { cache: { type: redis, password: \"hunter2 } }", "is not YAML"),
        ("storage:\n  cache:\n    password: hunter2: hunter2\n", "is not YAML"),
    ] {
        let found = problem(yaml);
        assert!(found.contains(said), "{found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
    let long = format!("storage: {{ cache: {{ type: redis, host: {} }} }}", "x".repeat(10_000));
    assert!(problem(&long).contains("longer than any setting"));
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yml");
    let said = |bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        StorageConfig::from_file_with(&path, &environment()).unwrap_err().to_string()
    };
    assert_eq!(said(None), format!("{}: there is no such file; make one, or name another", path.display()));
    assert!(said(Some(b"a: b\nc: \xc3\xa9\xff\n")).ends_with(":2:5: is not UTF-8 from here on; save it as UTF-8"));
    assert!(said(Some(b"\xff\xfes\x00")).contains("UTF-16"));
    assert!(said(Some(&vec![b'#'; (1 << 20) + 1])).contains("is larger than"));
    let error = StorageConfig::from_file(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
}

#[test]
fn a_file_is_read_with_a_byte_order_mark_and_windows_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yml");
    std::fs::write(&path, "\u{feff}storage:\r\n  database:\r\n    type: sqlite\r\n").unwrap();
    let config = StorageConfig::from_file_with(&path, &environment()).unwrap();
    let DatabaseBackendConfig::Sqlite(sqlite) = config.database.backend else { panic!() };
    assert_eq!(sqlite.path, folder.path().join(".agent-storage/agent.db"));
    std::fs::write(&path, "").unwrap();
    assert!(StorageConfig::from_file(&path).is_ok());
}

#[test]
fn no_debug_shows_a_secret() {
    let config = load(
        "storage:\n  cache: { type: nats, url: 'nats://u:hunter2@h' }\n  database: { type: postgres, url: 'postgres://u:hunter2@h/d' }\n",
    )
    .unwrap();
    assert!(!format!("{config:?} {:?}", environment()).contains("hunter2"));
}

#[test]
fn a_configuration_made_by_hand_keeps_the_same_rules() {
    let mut config = StorageConfig::default();
    assert!(config.validate().is_ok());
    config.cache.options.retry.attempts = 0;
    config.database.backend = DatabaseBackendConfig::Postgres(PostgresConfig::new("a b", 0));
    let error = config.validate().unwrap_err();
    let paths: Vec<_> = error.problems().iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["storage.cache.retry.attempts", "storage.database.host", "storage.database.port"]);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = load(&text);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let _ = StorageConfig::from_file_with(file.path(), &environment());
    }

    #[test]
    fn nothing_yaml_like_makes_the_reader_panic(text in "(storage|cache|database|type|url|[ \n:{}\\[\\]&*'\"$#|>!%@-]|redis|sqlite|[0-9]){0,60}") {
        let _ = load(&text);
        let _ = load(&format!("storage:\n  cache:\n    type: redis\n    {text}"));
    }

    #[test]
    fn no_url_makes_the_reader_panic_or_talk(rest in "[a-z0-9:/?#@%&=,.\\[\\]$-]{0,40}") {
        for (side, kind, scheme) in [("cache", "redis", "redis"), ("cache", "nats", "nats"), ("database", "postgres", "postgres")] {
            let yaml = section(side, &format!("type: {kind}\nurl: '{scheme}://{rest}secretsecret'"));
            if let Err(error) = load(&yaml) {
                prop_assert!(!error.to_string().contains("secretsecret"));
            }
        }
    }
}

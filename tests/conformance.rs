//! Every case of the testkit, on every backend and over every layer, against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::any::Any;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::{MemoryCache, MemoryDatabase};
use agent_storage::chain::{CacheChain, ChainOptions, DatabaseChain};
use agent_storage::config::{
    BatchingConfig, CacheChainConfig, DatabaseChainConfig, DatabaseFallback, MemoryCacheConfig, MemoryDatabaseConfig,
    RetryConfig,
};
use agent_storage::contract::{CacheBackend, Context, DatabaseBackend, Store, Write};
use agent_storage::layer::{Coalesce, Observe, Prefix, Retry, Side};
use agent_storage::testkit::{Case, Elapse, Subject, cache_cases, database_cases};
use agent_storage::{Clock, HybridClock, Key, KeyPrefix, Value};
use support::{Server, Suite};

/// The prefix of the layers.
const TENANT: &str = "tenant:1/";

/// How long preparing a subject may take.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut suite = Suite::new();
    caches(&mut suite, "memory_cache", &[], memory_cache);
    databases(&mut suite, "memory_database", &[], memory_database);
    caches(&mut suite, "layers_over_memory_cache", &[], layered_cache);
    databases(&mut suite, "layers_over_memory_database", &[], layered_database);
    caches(&mut suite, "coalesce_over_memory_cache", &[], coalesced_cache);
    databases(&mut suite, "coalesce_over_memory_database", &[], coalesced_database);
    caches(&mut suite, "chain_over_memory_cache", &[], chained_cache);
    databases(&mut suite, "chain_over_memory_database", &[], chained_database);
    #[cfg(feature = "sqlite")]
    databases(&mut suite, "sqlite", &[], sqlite);
    #[cfg(feature = "jetstream")]
    caches(&mut suite, "jetstream", &[Server::Nats], jetstream);
    #[cfg(feature = "redis")]
    caches(&mut suite, "redis", &[Server::Redis], redis);
    #[cfg(feature = "postgres")]
    databases(&mut suite, "postgres", &[Server::Postgres], postgres);
    #[cfg(all(feature = "postgres", feature = "sqlite"))]
    databases(&mut suite, "chain_over_postgres", &[Server::Postgres], chained_postgres);
    #[cfg(feature = "redis")]
    caches(&mut suite, "redis_shared", &[Server::Redis], redis_shared);
    suite.run()
}

/// A subject with what must outlive it, such as its folder.
type Fixture<B> = (Subject<B>, Box<dyn Any + Send>);

type Making<B> = Pin<Box<dyn Future<Output = Fixture<B>> + Send>>;

fn caches(suite: &mut Suite, name: &str, needs: &[Server], make: fn() -> Making<dyn CacheBackend>) {
    add(suite, name, needs, cache_cases(), make);
}

fn databases(suite: &mut Suite, name: &str, needs: &[Server], make: fn() -> Making<dyn DatabaseBackend>) {
    add(suite, name, needs, database_cases(), make);
}

fn add<B>(suite: &mut Suite, name: &str, needs: &[Server], cases: Vec<Case<B>>, make: fn() -> Making<B>)
where
    B: ?Sized + Send + Sync + 'static,
{
    for case in cases {
        suite.test(format!("{name}::{case}"), needs, move || async move {
            let (subject, _outlives) = make().await;
            case.run(subject).await
        });
    }
}

fn memory_cache() -> Making<dyn CacheBackend> {
    Box::pin(async {
        let (clock, stamps) = clocks();
        let cache = MemoryCache::with_clocks(&MemoryCacheConfig::default(), clock.clone(), stamps.clone());
        let subject = Subject::cache(Arc::new(cache), Elapse::Manual(clock)).with_stamps(stamps);
        (subject, nothing())
    })
}

fn memory_database() -> Making<dyn DatabaseBackend> {
    Box::pin(async {
        let (clock, stamps) = clocks();
        let database = MemoryDatabase::with_clocks(&MemoryDatabaseConfig::default(), clock.clone(), stamps.clone());
        (Subject::database(Arc::new(database), Elapse::Manual(clock)).with_stamps(stamps), nothing())
    })
}

/// What every layer over a cache of this process answers; the cache holds another tenant's entry too.
fn layered_cache() -> Making<dyn CacheBackend> {
    Box::pin(async {
        let (clock, stamps) = clocks();
        let cache = MemoryCache::with_clocks(&MemoryCacheConfig::default(), clock.clone(), stamps.clone());
        cache.write(others_entry(&stamps), &Context::with_timeout(LIMIT)).await.unwrap();
        let layers = Prefix::new(KeyPrefix::parse(TENANT).unwrap(), Arc::new(cache));
        let layers = Retry::new(RetryConfig::default(), Arc::new(Observe::new(Side::Cache, Arc::new(layers))));
        let subject = Subject::cache(Arc::new(layers), Elapse::Manual(clock)).with_stamps(stamps);
        (subject.with_longest_key(Key::MAX_BYTES - TENANT.len()), nothing())
    })
}

/// What every layer over a database of this process answers; the database holds another tenant's entry too.
fn layered_database() -> Making<dyn DatabaseBackend> {
    Box::pin(async {
        let (clock, stamps) = clocks();
        let database = MemoryDatabase::with_clocks(&MemoryDatabaseConfig::default(), clock.clone(), stamps.clone());
        database.write(others_entry(&stamps), &Context::with_timeout(LIMIT)).await.unwrap();
        let layers = Prefix::new(KeyPrefix::parse(TENANT).unwrap(), Arc::new(database));
        let layers = Retry::new(RetryConfig::default(), Arc::new(Observe::new(Side::Database, Arc::new(layers))));
        let subject = Subject::database(Arc::new(layers), Elapse::Manual(clock)).with_stamps(stamps);
        (subject.with_longest_key(Key::MAX_BYTES - TENANT.len()), nothing())
    })
}

fn coalesced_cache() -> Making<dyn CacheBackend> {
    Box::pin(async {
        let (clock, stamps) = clocks();
        let cache = MemoryCache::with_clocks(&MemoryCacheConfig::default(), clock.clone(), stamps.clone());
        let layer = Coalesce::cache(&BatchingConfig::default(), Arc::new(cache));
        (Subject::cache(Arc::new(layer), Elapse::Manual(clock)).with_stamps(stamps), nothing())
    })
}

fn coalesced_database() -> Making<dyn DatabaseBackend> {
    Box::pin(async {
        let (clock, stamps) = clocks();
        let database = MemoryDatabase::with_clocks(&MemoryDatabaseConfig::default(), clock.clone(), stamps.clone());
        let layer = Coalesce::database(&BatchingConfig::default(), Arc::new(database));
        (Subject::database(Arc::new(layer), Elapse::Manual(clock)).with_stamps(stamps), nothing())
    })
}

/// A database with a journal behind it, whose primary is there.
fn chained_cache() -> Making<dyn CacheBackend> {
    Box::pin(async {
        let (clock, stamps) = clocks();
        let memory =
            || Arc::new(MemoryCache::with_clocks(&MemoryCacheConfig::default(), clock.clone(), stamps.clone()));
        let mut options = ChainOptions::new(LIMIT);
        (options.clock, options.stamps) = (clock.clone(), stamps.clone());
        let chain = CacheChain::open(memory(), memory(), &CacheChainConfig::default(), options).await.unwrap();
        (Subject::cache(Arc::new(chain), Elapse::Manual(clock)).with_stamps(stamps), nothing())
    })
}

fn chained_database() -> Making<dyn DatabaseBackend> {
    Box::pin(async {
        let (clock, stamps) = clocks();
        let database = MemoryDatabase::with_clocks(&MemoryDatabaseConfig::default(), clock.clone(), stamps.clone());
        let mut options = ChainOptions::new(LIMIT);
        (options.clock, options.stamps) = (clock.clone(), stamps.clone());
        let config = DatabaseChainConfig::default();
        let chain = DatabaseChain::open(Arc::new(database), DatabaseFallback::Memory, &config, options).await.unwrap();
        (Subject::database(Arc::new(chain), Elapse::Manual(clock)).with_stamps(stamps), nothing())
    })
}

#[cfg(feature = "sqlite")]
fn sqlite() -> Making<dyn DatabaseBackend> {
    use agent_storage::backend::sqlite::SqliteDatabase;
    use agent_storage::config::SqliteConfig;

    Box::pin(async {
        let folder = tempfile::tempdir().unwrap();
        let (clock, stamps) = clocks();
        let config = SqliteConfig::at(folder.path().join("agent.db"));
        let database = SqliteDatabase::with_clocks(&config, clock.clone(), stamps.clone());
        let subject = Subject::database(Arc::new(database), Elapse::Manual(clock)).with_stamps(stamps);
        (subject, Box::new(folder) as Box<dyn Any + Send>)
    })
}

/// A logical database of its own for each case, on a server of this test.
#[cfg(feature = "redis")]
fn redis() -> Making<dyn CacheBackend> {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use agent_storage::backend::redis::RedisCache;
    use agent_storage::config::RedisConfig;

    static SERVER: OnceLock<support::Redis> = OnceLock::new();
    static DATABASES: AtomicU32 = AtomicU32::new(0);
    Box::pin(async {
        let server = SERVER.get_or_init(|| support::Redis::start(&["--databases", "2000"]));
        let mut config = RedisConfig::new(server.host(), server.port());
        config.database = DATABASES.fetch_add(1, Ordering::Relaxed);
        let cache = RedisCache::new(&config).unwrap();
        (Subject::cache(Arc::new(cache), Elapse::Real), nothing())
    })
}

#[cfg(feature = "jetstream")]
fn jetstream() -> Making<dyn CacheBackend> {
    use std::sync::atomic::{AtomicU32, Ordering};

    use agent_storage::backend::jetstream::JetstreamCache;
    use agent_storage::config::JetstreamConfig;

    static BUCKETS: AtomicU32 = AtomicU32::new(0);
    Box::pin(async {
        let server = support::Nats::shared();
        let (clock, stamps) = clocks();
        let mut config = JetstreamConfig::new(server.host(), server.port());
        config.bucket = format!("conformance-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        let cache = JetstreamCache::new(&config, clock.clone()).unwrap();
        (Subject::cache(Arc::new(cache), Elapse::Manual(clock)).with_stamps(stamps), nothing())
    })
}

/// A cache on the server that all cases share, each with a namespace of its own.
#[cfg(feature = "redis")]
fn redis_shared() -> Making<dyn CacheBackend> {
    use std::sync::atomic::{AtomicU32, Ordering};

    use agent_storage::backend::redis::RedisCache;
    use agent_storage::config::RedisConfig;
    use support::Redis;

    static CASES: AtomicU32 = AtomicU32::new(0);

    Box::pin(async {
        let server = Redis::shared();
        let cache = RedisCache::new(&RedisConfig::new(server.host(), server.port())).unwrap();
        let namespace = format!("case-{}:", CASES.fetch_add(1, Ordering::SeqCst));
        (Subject::cache(Arc::new(cache), Elapse::Real).with_namespace(namespace), nothing())
    })
}

#[cfg(feature = "postgres")]
fn postgres() -> Making<dyn DatabaseBackend> {
    use agent_storage::backend::postgres::PostgresDatabase;
    use agent_storage::config::PostgresConfig;
    use support::Postgres;

    Box::pin(async {
        let server = Postgres::shared();
        let mut config = PostgresConfig::new(server.host(), server.port());
        config.database = server.create_database();
        config.username = server.user().to_owned();
        config.password = Some(server.password().into());
        let stamps = Arc::new(HybridClock::new(Clock::system()));
        let database = PostgresDatabase::with_stamps(&config, Arc::clone(&stamps)).unwrap();
        (Subject::database(Arc::new(database), Elapse::Real).with_stamps(stamps), nothing())
    })
}

/// A PostgreSQL database with a journal in SQLite behind it, as is the default. Each case has a schema of its own.
#[cfg(all(feature = "postgres", feature = "sqlite"))]
fn chained_postgres() -> Making<dyn DatabaseBackend> {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use agent_storage::backend::postgres::PostgresDatabase;
    use agent_storage::config::PostgresConfig;
    use support::Postgres;

    static DATABASE: OnceLock<String> = OnceLock::new();
    static SCHEMAS: AtomicU32 = AtomicU32::new(0);
    Box::pin(async {
        let (server, folder) = (Postgres::shared(), tempfile::tempdir().unwrap());
        let mut config = PostgresConfig::new(server.host(), server.port());
        config.database.clone_from(DATABASE.get_or_init(|| server.create_database()));
        config.schema = format!("case_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        config.username = server.user().to_owned();
        config.password = Some(server.password().into());
        let mut options = ChainOptions::new(LIMIT);
        options.stamps = Arc::new(HybridClock::new(Clock::system()));
        let stamps = Arc::clone(&options.stamps);
        let database = PostgresDatabase::with_stamps(&config, Arc::clone(&stamps)).unwrap();
        let mut config = DatabaseChainConfig::default();
        config.journal.path = folder.path().join("journal");
        let chain = DatabaseChain::open(Arc::new(database), DatabaseFallback::Sqlite, &config, options).await.unwrap();
        let subject = Subject::database(Arc::new(chain), Elapse::Real).with_stamps(stamps);
        (subject, Box::new(folder) as Box<dyn Any + Send>)
    })
}

/// An entry outside the prefix of the layers, which no case may see.
fn others_entry(stamps: &HybridClock) -> Write {
    Write::put(Key::parse("tenant").unwrap(), Value::from_integer(1), stamps.issue())
}

/// A clock in the test's hand, and the stamps of a process that runs by it.
fn clocks() -> (Clock, Arc<HybridClock>) {
    let clock = Clock::manual();
    (clock.clone(), Arc::new(HybridClock::new(clock)))
}

/// What outlives a subject that needs nothing.
fn nothing() -> Box<dyn Any + Send> {
    Box::new(())
}

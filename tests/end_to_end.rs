//! From an `agent.yml` to real servers and back, through everything that stands between: handles, prefix, batches, retries.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::process::ExitCode;
use std::time::Duration;

use agent_storage::{Cache, Database, ErrorKind, HealthStatus, SetOptions, StorageManager, Ttl, Value};
use support::{Nats, Postgres, Redis, Server, Suite};
use tempfile::TempDir;

fn main() -> ExitCode {
    let mut suite = Suite::new();
    suite.test("memory_and_sqlite", &[], || async {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("data/agent.db");
        run("type: in-memory", &format!("type: sqlite\n    path: {}", file.display()), false).await;
    });
    suite.test("redis_and_postgres", &[Server::Redis, Server::Postgres], || async {
        let cache = format!("type: redis\n    url: {}", Redis::shared().url());
        let (database, _journal) = postgres();
        run(&cache, &database, true).await;
    });
    suite.test("jetstream_and_postgres", &[Server::Nats, Server::Postgres], || async {
        let bucket = format!("end-to-end-{}", std::process::id());
        let cache = format!("type: jetstream\n    url: {}\n    bucket: {bucket}", Nats::shared().url());
        let (database, _journal) = postgres();
        run(&cache, &database, true).await;
    });
    suite.run()
}

/// A database, and the folder of its journal.
fn postgres() -> (String, TempDir) {
    let (server, folder) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let url = server.url(&server.create_database());
    let journal = folder.path().join("journal").display().to_string();
    (format!("type: postgres\n    connectionString: {url}\n    journal: {{ path: {journal:?} }}"), folder)
}

fn manager(cache: &str, database: &str) -> StorageManager {
    let prefix = format!("agent-{}:", std::process::id());
    let yaml = format!(
        "storage:\n  cache:\n    keyPrefix: \"{prefix}\"\n    {cache}\n  database:\n    keyPrefix: \"{prefix}\"\n    {database}\n"
    );
    StorageManager::from_yaml(&yaml).unwrap()
}

async fn run(cache: &str, database: &str, cache_outlives: bool) {
    let first = manager(cache, database);
    let storage = first.connect().await.unwrap();
    assert_eq!(first.health_check().await.status(), HealthStatus::Healthy);
    use_cache(&storage.cache).await;
    use_database(&storage.database).await;
    many_callers(&storage.cache, &storage.database).await;
    first.disconnect().await.unwrap();
    assert_eq!(storage.database.get("session:1").await.unwrap_err().kind(), ErrorKind::Closed);

    let second = manager(cache, database);
    let storage = second.connect().await.unwrap();
    assert_eq!(storage.database.length("messages:1").await.unwrap(), 300);
    assert_eq!(storage.database.get_json::<u64>("visits").await.unwrap(), Some(64));
    assert_eq!(storage.cache.exists("kept").await.unwrap(), cache_outlives);
    storage.cache.clear("").await.unwrap();
    storage.database.clear("").await.unwrap();
    assert_eq!(storage.database.count("").await.unwrap() + storage.cache.count("").await.unwrap(), 0);
    second.disconnect().await.unwrap();
}

async fn use_cache(cache: &Cache) {
    cache.set_json("kept", &[1, 2, 3]).await.unwrap();
    let minute = Some(Ttl::from_secs(60).unwrap());
    let loaded = cache.get_or_load_json("loaded", minute, || async { Ok("value".to_owned()) }).await.unwrap();
    assert_eq!(cache.get_json::<String>("loaded").await.unwrap(), Some(loaded));
    match cache.ttl("loaded").await.unwrap() {
        agent_storage::handle::TimeToLive::Left(left) => assert!(left <= Duration::from_secs(75), "{left:?}"),
        other => panic!("{other:?}"),
    }
    let lost = cache.set_with("kept", Value::from_integer(0), SetOptions::new().if_absent()).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert_eq!(cache.keys("k?pt").unwrap().collect().await.unwrap().len(), 1);
}

async fn use_database(database: &Database) {
    let picture: Vec<u8> = (0..=255).collect();
    database.set_bytes("picture", picture.clone()).await.unwrap();
    assert_eq!(database.get("picture").await.unwrap().unwrap().as_bytes(), picture);
    database.transaction().set_json("session:1", &"a").unwrap().append_json("log", &1).unwrap().commit().await.unwrap();
    let revision = database.lookup("session:1").await.unwrap().into_entry().unwrap().revision;
    let failed = database
        .transaction()
        .append_json("log", &2)
        .unwrap()
        .set_with("session:1", Value::from_integer(1), SetOptions::new().if_absent())
        .unwrap();
    assert_eq!(failed.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(database.length("log").await.unwrap(), 1);
    database.delete_if("session:1", revision).await.unwrap();
    assert_eq!(database.delete("session:1").await.unwrap().existed, Some(false));
    assert_eq!(database.list("").unwrap().collect().await.unwrap().len(), 2);
}

/// As many at once as share batches: nothing is lost, and the order of each writer is kept.
async fn many_callers(cache: &Cache, database: &Database) {
    let tasks = (0..64_u64).map(|caller| {
        let (cache, database) = (cache.clone(), database.clone());
        tokio::spawn(async move {
            database.update_json("visits", |old: Option<u64>| Ok(old.unwrap_or(0) + 1)).await.unwrap();
            cache.increment("hits", 1).await.unwrap();
            cache.set_json(format!("own:{caller}"), &caller).await.unwrap();
            assert_eq!(cache.get_json(format!("own:{caller}")).await.unwrap(), Some(caller));
            if caller < 10 {
                for number in 0..30_u64 {
                    database.append_json("messages:1", &(caller, number)).await.unwrap();
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(cache.get_json::<u64>("hits").await.unwrap(), Some(64));
    let messages: Vec<(u64, u64)> = database.range_json("messages:1", 0, -1).await.unwrap();
    for caller in 0..10 {
        let own: Vec<u64> = messages.iter().filter(|(who, _)| *who == caller).map(|(_, number)| *number).collect();
        assert_eq!(own, (0..30).collect::<Vec<_>>());
    }
}

//! Many callers, and threads that never rest: the store is slow, and so are we, but it is not away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_storage::chain::{ChainState, ChainStatus};
use agent_storage::contract::{Durability, Freshness};
use agent_storage::{Cache, Database, Error, ErrorKind, Result, SetOptions, StorageManager, Ttl, Value};
use tempfile::TempDir;
use tokio::sync::watch::Receiver;

use crate::support::{Nats, Postgres, PostgresOptions, Redis, Server, Suite};
use crate::{limit, say};

/// From which length on it is worth to have more callers, whose first calls take a while.
const LONG: Duration = Duration::from_secs(60);

/// Nearly all the time that a call has by default.
const NEARLY_ALL: Duration = Duration::from_millis(4500);

/// How many keys the callers share.
const KEYS: u64 = 2000;

pub(crate) fn tests(suite: &mut Suite, length: Duration) {
    for server in [Server::Postgres, Server::Redis, Server::Nats] {
        let name = format!("overload_is_no_outage::{}", server.name());
        suite.test_within(limit(length), name, &[server], move || overload_is_no_outage(server, length));
    }
}

/// Its state stays normal, and nobody is told anything but that, or of overload.
async fn overload_is_no_outage(server: Server, length: Duration) {
    let running = Running::start(server);
    let folder = tempfile::tempdir().unwrap();
    let manager = running.manager(&folder);
    let side = Side::of(&manager, server).await;
    let watch = side.watch(&manager).await;
    let first = watch.borrow().clone();
    assert_eq!(first.state, ChainState::Normal);
    let watching = tokio::spawn(stays_normal(watch.clone()));
    let busy = Busy::begin();
    let (end, tally) = (Instant::now() + length, Arc::new(Tally::default()));
    let callers = if length < LONG { 256 } else { 1024 };
    let callers: Vec<_> = (0..callers)
        .map(|caller| {
            let (side, tally) = (side.clone(), Arc::clone(&tally));
            tokio::spawn(async move {
                let mut turn = caller;
                while Instant::now() < end {
                    turn += 257;
                    let began = Instant::now();
                    let answer = side.call(turn).await;
                    tally.note(answer, began.elapsed());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    drop(busy);
    watching.abort();
    assert!(watching.await.is_err_and(|ended| ended.is_cancelled()), "the state changed");
    let last = watch.borrow().clone();
    assert_eq!((last.state, last.since), (first.state, first.since), "{last:?}");
    assert_eq!((last.pending, last.replayed), (0, 0), "nothing was kept here");
    let (answered, refused) = tally.counts();
    say(&format!("{}: {answered} calls were answered; refused for overload: {refused:?}", server.name()));
    assert!(answered > 0);
    manager.disconnect().await.unwrap();
}

async fn stays_normal(mut watch: Receiver<ChainStatus>) {
    while watch.changed().await.is_ok() {
        let status = watch.borrow_and_update().clone();
        assert_eq!(status.state, ChainState::Normal, "{status:?}");
    }
}

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    /// What whoever was refused was told, and how often.
    refused: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    fn note(&self, answer: Result<()>, took: Duration) {
        match answer {
            Ok(()) => _ = self.answered.fetch_add(1, Ordering::Relaxed),
            Err(error) if is_of_overload(&error) || is_late_count(&error, took) => {
                *self.refused.lock().unwrap().entry(error.to_string()).or_default() += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn counts(&self) -> (u64, BTreeMap<String, u64>) {
        (self.answered.load(Ordering::Relaxed), self.refused.lock().unwrap().clone())
    }
}

/// Whether a call had no effect because there was no time or room for it, and the store is not said to be away.
fn is_of_overload(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && error.is_transient() && error.outage().is_none()
}

/// Whether a change of a counter had its turn so late that the rest of its time was too short: the others of its key were before it.
fn is_late_count(error: &Error, took: Duration) -> bool {
    let unanswered = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown);
    unanswered && error.operation() == Some("increment") && took >= NEARLY_ALL
}

/// One thread a processor that never rests, until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn begin() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(ended)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

enum Running {
    Postgres(Postgres, String),
    Redis(Redis),
    Nats(Nats),
}

impl Running {
    fn start(server: Server) -> Self {
        match server {
            Server::Postgres => {
                let server = Postgres::start(PostgresOptions { fsync: true, ..PostgresOptions::default() });
                let name = server.create_database();
                Self::Postgres(server, name)
            }
            Server::Redis => Self::Redis(Redis::start(&[])),
            Server::Nats => Self::Nats(Nats::start(true, "")),
            Server::PgBouncer | Server::Mounts => unreachable!("no store"),
        }
    }

    /// As an application has it that says nothing of a fallback.
    fn manager(&self, folder: &TempDir) -> StorageManager {
        let journal = folder.path().join("journal");
        let yaml = match self {
            Self::Postgres(server, name) => {
                let (url, journal) = (server.url(name), journal.display());
                format!("database: {{ type: postgres, url: '{url}', journal: {{ path: '{journal}' }} }}")
            }
            Self::Redis(server) => format!("cache: {{ type: redis, url: '{}' }}", server.url()),
            Self::Nats(server) => format!("cache: {{ type: jetstream, url: '{}', bucket: overload }}", server.url()),
        };
        StorageManager::from_yaml(&format!("storage: {{ {yaml} }}")).unwrap()
    }
}

/// The side that is overloaded.
#[derive(Clone)]
enum Side {
    Cache(Cache),
    Database(Database),
}

impl Side {
    async fn of(manager: &StorageManager, server: Server) -> Self {
        match server {
            Server::Postgres => Self::Database(manager.database().await.unwrap()),
            _ => Self::Cache(manager.cache().await.unwrap()),
        }
    }

    async fn watch(&self, manager: &StorageManager) -> Receiver<ChainStatus> {
        let watch = match self {
            Self::Cache(_) => manager.watch_cache_chain().await,
            Self::Database(_) => manager.watch_database_chain().await,
        };
        watch.unwrap().expect("a fallback by default")
    }

    /// One call of many sorts, which the primary must answer.
    async fn call(&self, turn: u64) -> Result<()> {
        // By chance, so that the callers do not go from key to key in one long queue.
        let random = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let (sort, key) = (random % 8, format!("key:{}", random / 8 % KEYS));
        let (list, counter) = (format!("list:{}", random / 8 % KEYS), format!("counter:{}", random / 8 % KEYS));
        let value = Value::from_integer(i64::try_from(turn).unwrap());
        let ttl = SetOptions::new().with_ttl(Ttl::from_secs(1)?);
        let durability = match (self, sort) {
            (Self::Database(database), 0 | 1) => database.set(key, value).await?.durability,
            (Self::Database(database), 2) => database.set_with(key, value, ttl).await?.durability,
            (Self::Database(database), 3) => database.delete(key).await?.durability,
            (Self::Database(database), 4) => database.append(list, value).await?.durability,
            (Self::Cache(cache), 0 | 1) => cache.set(key, value).await?.durability,
            (Self::Cache(cache), 2) => cache.set_with(key, value, ttl).await?.durability,
            (Self::Cache(cache), 3) => cache.delete(key).await?.durability,
            (Self::Cache(cache), 4) => return cache.increment(counter, 1).await.map(drop),
            (Self::Database(database), _) => return Self::read(database.lookup(key).await?.freshness()),
            (Self::Cache(cache), _) => return Self::read(cache.lookup(key).await?.freshness()),
        };
        assert_ne!(durability, Durability::Local);
        Ok(())
    }

    fn read(freshness: Freshness) -> Result<()> {
        assert_eq!(freshness, Freshness::Primary);
        Ok(())
    }
}

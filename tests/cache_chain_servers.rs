//! The chain of a cache before real servers: killed, frozen, cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use agent_storage::chain::{ChainState, ChainStatus};
use agent_storage::config::Fallback;
use agent_storage::contract::{Durability, Freshness, Lookup};
use agent_storage::testkit::{FaultProxy, NetworkFault};
use agent_storage::{Cache, HealthStatus, StorageConfig, StorageManager};
use support::{Nats, Process, Redis, Server, Suite};

/// Long enough for a busy machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a test may take.
const LIMIT: Duration = Duration::from_secs(200);

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for kind in [Kind::Redis, Kind::Nats] {
        let name = |what: &str| format!("{}::{what}", kind.name());
        suite.test_within(LIMIT, name("a_killed_server_is_stood_in_for"), &[kind.server()], move || killed(kind));
        suite.test_within(LIMIT, name("a_server_away_at_the_start"), &[kind.server()], move || away_at_the_start(kind));
        for trouble in [Trouble::Killed, Trouble::Frozen, Trouble::Stalled, Trouble::BlackHole] {
            let name = name(&format!("nothing_old_after_{trouble:?}").to_lowercase());
            suite.test_within(LIMIT, name, &[kind.server()], move || nothing_old_comes_back(kind, trouble));
        }
    }
    suite.test_within(LIMIT, "redis::a_full_server_is_used_again", &[Server::Redis], a_full_server_is_used_again);
    suite.test_within(LIMIT, "redis::a_check_takes_no_mark_over", &[Server::Redis], a_check_takes_no_mark_over);
    suite.run()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Redis,
    Nats,
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Killed,
    Frozen,
    /// What was sent arrives late.
    Stalled,
    /// What was sent never arrives.
    BlackHole,
}

/// A server that keeps its data when it is killed.
enum Running {
    Redis(Redis),
    Nats(Nats),
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "jetstream",
        }
    }

    const fn server(self) -> Server {
        match self {
            Self::Redis => Server::Redis,
            Self::Nats => Server::Nats,
        }
    }

    fn start(self) -> Running {
        match self {
            Self::Redis => Running::Redis(Redis::start(&["--appendonly", "yes", "--appendfsync", "always"])),
            Self::Nats => Running::Nats(Nats::start(true, "")),
        }
    }

    /// A manager of a cache at an address.
    fn manager(self, host: &str, port: u16) -> StorageManager {
        let url = match self {
            Self::Redis => format!("type: redis\n    url: redis://{host}:{port}/0"),
            Self::Nats => format!("type: jetstream\n    url: nats://{host}:{port}\n    bucket: chain"),
        };
        let yaml = format!(
            "storage:\n  cache:\n    {url}\n    keyPrefix: \"app:\"\n    timeout: 1s\n    connectionTimeout: 500ms\n    \
             breaker: {{ probeInterval: 100ms, slowCall: 100ms }}\n"
        );
        StorageManager::new(StorageConfig::from_yaml(&yaml, "agent.yml").unwrap())
    }

    /// A handle of another process, that has no chain.
    async fn other(self, server: &Process) -> Cache {
        let mut config = self.manager(server.host(), server.port()).config().clone();
        config.cache.fallback = Fallback::None;
        StorageManager::new(config).cache().await.unwrap()
    }
}

impl std::ops::Deref for Running {
    type Target = Process;

    fn deref(&self) -> &Process {
        match self {
            Self::Redis(server) => server,
            Self::Nats(server) => server,
        }
    }
}

async fn until(manager: &StorageManager, state: ChainState) {
    let mut watch = manager.watch_cache_chain().await.unwrap().unwrap();
    let reached = |status: &ChainStatus| status.state == state;
    let waited = tokio::time::timeout(PATIENCE, watch.wait_for(reached)).await.is_ok();
    assert!(waited, "still {:?}", manager.cache_chain());
}

fn read(lookup: Lookup) -> (Option<i64>, Freshness) {
    let freshness = lookup.freshness();
    (lookup.into_value().map(|value| value.decode().unwrap()), freshness)
}

async fn killed(kind: Kind) {
    let server = kind.start();
    let manager = kind.manager(server.host(), server.port());
    let cache = manager.cache().await.unwrap();
    for key in ["set", "deleted", "clean"] {
        assert_eq!(cache.set_json(key, &1).await.unwrap().durability, Durability::Primary);
    }
    assert_eq!(manager.health_check().await.status(), HealthStatus::Healthy);
    server.kill();
    assert_eq!(cache.set_json("set", &2).await.unwrap().durability, Durability::Volatile);
    assert_eq!(cache.delete("deleted").await.unwrap().durability, Durability::Volatile);
    assert_eq!(read(cache.lookup("set").await.unwrap()), (Some(2), Freshness::Fallback));
    assert_eq!(read(cache.lookup("clean").await.unwrap()), (None, Freshness::Fallback));
    until(&manager, ChainState::Degraded).await;
    assert_eq!(manager.health_check().await.status(), HealthStatus::Degraded);
    server.restart();
    until(&manager, ChainState::Normal).await;
    assert_eq!(read(cache.lookup("set").await.unwrap()), (None, Freshness::Primary));
    assert_eq!(read(cache.lookup("deleted").await.unwrap()), (None, Freshness::Primary));
    assert_eq!(read(cache.lookup("clean").await.unwrap()), (Some(1), Freshness::Primary), "it kept its data");
    assert_eq!(cache.set_json("set", &3).await.unwrap().durability, Durability::Primary);
    manager.disconnect().await.unwrap();
}

async fn away_at_the_start(kind: Kind) {
    let server = kind.start();
    server.kill();
    let manager = kind.manager(server.host(), server.port());
    let cache = manager.cache().await.unwrap();
    assert_eq!(manager.cache_chain().unwrap().state, ChainState::Degraded);
    assert_eq!(cache.set_json("k", &1).await.unwrap().durability, Durability::Volatile);
    server.restart();
    until(&manager, ChainState::Normal).await;
    assert_eq!(cache.set_json("k", &2).await.unwrap().durability, Durability::Primary);
    assert_eq!(kind.other(&server).await.get_json("k").await.unwrap(), Some(2));
    manager.disconnect().await.unwrap();
}

/// A server without room is there all the same: it is read, and what is deleted there makes room.
async fn a_full_server_is_used_again() {
    let kind = Kind::Redis;
    let server = kind.start();
    let address = (server.host().parse::<IpAddr>().unwrap(), server.port());
    let proxy = FaultProxy::start(address.into()).await.unwrap();
    let manager = kind.manager(&proxy.address().ip().to_string(), proxy.address().port());
    let (cache, other) = (manager.cache().await.unwrap(), kind.other(&server).await);
    for key in ["deleted", "clean"] {
        assert_eq!(cache.set_json(key, &1).await.unwrap().durability, Durability::Primary);
    }
    let mut raw = redis::Client::open(format!("redis://{}:{}", server.host(), server.port())).unwrap();
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut raw).unwrap();
    proxy.set(NetworkFault::Refuse).await.unwrap();
    proxy.reset().await;
    until(&manager, ChainState::Degraded).await;
    assert_eq!(cache.delete("deleted").await.unwrap().durability, Durability::Volatile);
    proxy.set(NetworkFault::Pass).await.unwrap();
    until(&manager, ChainState::Normal).await;
    assert_eq!(other.get_json::<i64>("deleted").await.unwrap(), None);
    assert_eq!(read(cache.lookup("clean").await.unwrap()), (Some(1), Freshness::Primary));
    let refused = cache.set_json("clean", &2).await.unwrap_err();
    assert!(refused.is_full(), "{refused}");
    manager.disconnect().await.unwrap();
}

/// Writers go on through three outages. Each value is newer than those before it, whoever writes it; nobody may be told something older
/// than what was acknowledged to him, then or afterwards.
async fn nothing_old_comes_back(kind: Kind, trouble: Trouble) {
    let server = kind.start();
    let address = (server.host().parse::<IpAddr>().unwrap(), server.port());
    let proxy = FaultProxy::start(address.into()).await.unwrap();
    let manager = kind.manager(&proxy.address().ip().to_string(), proxy.address().port());
    let (cache, other) = (manager.cache().await.unwrap(), kind.other(&server).await);
    let story = Arc::new(Story::default());
    let writers: Vec<_> = (0..4).map(|writer| tokio::spawn(Arc::clone(&story).write(writer, cache.clone()))).collect();
    for _ in 0..3 {
        story.until_steps(200).await;
        match trouble {
            Trouble::Killed => {
                server.kill();
                proxy.reset().await;
            }
            Trouble::Frozen => server.freeze(),
            Trouble::Stalled => proxy.set(NetworkFault::Stall).await.unwrap(),
            Trouble::BlackHole => proxy.set(NetworkFault::BlackHole).await.unwrap(),
        }
        until(&manager, ChainState::Degraded).await;
        story.until_steps(400).await;
        if matches!(trouble, Trouble::Stalled | Trouble::BlackHole) {
            // Only we are cut off.
            for key in ["theirs", "0:0", "1:1"] {
                other.set_json(key, &story.next()).await.unwrap();
            }
        }
        match trouble {
            Trouble::Killed => server.restart(),
            Trouble::Frozen => server.thaw(),
            Trouble::Stalled | Trouble::BlackHole => proxy.set(NetworkFault::Pass).await.unwrap(),
        }
        until(&manager, ChainState::Normal).await;
    }
    story.ended.store(true, Ordering::SeqCst);
    let mut newest = Vec::new();
    for writer in writers {
        newest.extend(writer.await.unwrap());
    }
    until(&manager, ChainState::Normal).await;
    for (key, known) in newest {
        for reader in [&cache, &other] {
            let seen: Option<i64> = reader.get_json(key.as_str()).await.unwrap();
            assert!(seen.is_none_or(|seen| seen >= known), "{key} is {seen:?} after {known}");
        }
    }
    if matches!(trouble, Trouble::Stalled | Trouble::BlackHole) {
        assert!(cache.exists("theirs").await.unwrap(), "what nobody wrote here stays");
    }
    manager.disconnect().await.unwrap();
}

/// What the writers share.
#[derive(Default)]
struct Story {
    numbers: AtomicI64,
    steps: AtomicU64,
    ended: AtomicBool,
}

impl Story {
    fn next(&self) -> i64 {
        self.numbers.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Waits until the writers have come so much further.
    async fn until_steps(&self, more: u64) {
        let goal = self.steps.load(Ordering::SeqCst) + more;
        let reached = async {
            while self.steps.load(Ordering::SeqCst) < goal {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the writers go on");
    }

    /// Writes and reads keys of its own until the story ends, and says what it was told last of each.
    async fn write(self: Arc<Self>, writer: usize, cache: Cache) -> Vec<(String, i64)> {
        let mut newest: Vec<(String, i64)> = (0..5).map(|key| (format!("{writer}:{key}"), 0)).collect();
        let mut step = 0;
        while !self.ended.load(Ordering::SeqCst) {
            let at = step % newest.len();
            let (key, known) = &mut newest[at];
            match step % 13 {
                0 | 4 | 7 | 9 => {
                    let number = self.next();
                    cache.set_json(key.as_str(), &number).await.expect("a put is acknowledged in any case");
                    *known = number;
                }
                11 => {
                    let number = self.next();
                    cache.delete(key.as_str()).await.expect("a delete is acknowledged in any case");
                    *known = number;
                }
                _ => {
                    if let Some(seen) = cache.get_json::<i64>(key.as_str()).await.expect("a read is answered") {
                        assert!(seen >= *known, "{key} was {seen} after {known}");
                        *known = seen;
                    }
                }
            }
            step += 1;
            self.steps.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
        newest
    }
}

/// A mark says that what is old must be deleted before the server is read. Whoever only looks does not start in its place.
async fn a_check_takes_no_mark_over() {
    let server = Kind::Redis.start();
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "storage:\n  cache:\n    type: redis\n    url: redis://{}:{}/0\n    connectionTimeout: 500ms\n    \
         journal: {{ path: marks }}\n    breaker: {{ probeInterval: 100ms, slowCall: 100ms }}\n",
        server.host(),
        server.port()
    );
    let file = folder.path().join("agent.yml");
    std::fs::write(&file, yaml).unwrap();
    let start = || StorageManager::from_file(&file).unwrap();
    let manager = start();
    let cache = manager.cache().await.unwrap();
    cache.set_json("k", &1).await.unwrap();
    server.kill();
    assert_eq!(cache.set_json("k", &2).await.unwrap().durability, Durability::Volatile);
    let marks = || {
        let files = std::fs::read_dir(folder.path().join("marks")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "dirty")).count()
    };
    assert_eq!(marks(), 1);
    // It ends without a word.
    drop((cache, manager));
    server.restart();
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_agent-storage"));
        command.arg("check").current_dir(folder.path()).output().unwrap()
    };
    let checked = tokio::task::block_in_place(check);
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(marks(), 1);
    let heir = start();
    assert_eq!(read(heir.cache().await.unwrap().lookup("k").await.unwrap()).0, None, "what is old is deleted first");
    until(&heir, ChainState::Normal).await;
    assert_eq!(Kind::Redis.other(&server).await.get_json::<i64>("k").await.unwrap(), None);
}

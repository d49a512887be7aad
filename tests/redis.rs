//! What is particular to the Redis cache: what other clients see and write, scripts that the server forgets, replicas,
//! servers that freeze and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use agent_storage::backend::redis::RedisCache;
use agent_storage::config::{RedisConfig, Tls, TlsFiles};
use agent_storage::contract::{
    Attempt, CacheBackend, Context, Cursor, Durability, Expiry, GetOptions, IncrementOptions, ListOptions, Lookup,
    Store, Write, WriteAck, WriteMode, WriteOp,
};
use agent_storage::testkit::{Direction, FaultProxy, NetworkFault, Point};
use agent_storage::{Error, ErrorKind, HybridClock, Key, KeyPrefix, Outage, Result, Revision, Ttl, Value};
use redis::{Commands, Connection};
use support::process::wait_until;
use support::{Certificates, Redis, Server, Suite};

/// Long enough for a busy machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

/// For calls that are meant to run into it.
const IMPATIENCE: Duration = Duration::from_millis(30);

fn main() -> ExitCode {
    let mut suite = Suite::new();
    macro_rules! tests {
        ($($name:ident),* $(,)?) => { $(suite.test(stringify!($name), &[Server::Redis], $name);)* };
    }
    tests![
        other_clients_read_the_json,
        other_clients_counters_and_json_are_read,
        what_another_client_stored_as_text_or_pickle_is_corrupt_alone,
        a_list_under_a_key_is_a_wrong_type_alone,
        a_large_value_does_not_replace_a_list_either,
        keys_that_are_all_there_are_read_by_one_command,
        what_one_command_does_not_find_is_never_a_guess,
        a_batch_is_read_where_access_rules_forbid_to_read_it_at_once,
        a_full_server_refuses_writes_and_still_reads,
        a_wrong_password_is_said_and_is_permanent,
        a_database_that_is_not_there_is_said,
        an_unreachable_server_is_transient,
        a_failed_attempt_is_not_remembered,
        scripts_that_the_server_forgot_are_sent_again,
        a_batch_keeps_its_order_when_the_server_forgot_the_scripts,
        a_write_right_after_a_restart_is_applied,
        a_frozen_server_leaks_nothing,
        a_late_write_does_not_land_on_a_newer_one,
        a_silent_connection_is_replaced_and_dropped_by_the_server,
        replies_to_given_up_calls_reach_nobody_else,
        a_write_to_a_frozen_server_is_of_unknown_outcome,
        prefixes_are_literal,
        every_key_is_listed_however_small_the_page,
        a_cursor_that_is_none_is_refused,
        a_listing_misses_nothing_though_another_server_goes_on_with_it,
        names_that_are_no_keys_are_left_alone,
        a_ping_leaves_nothing_to_see,
        a_ping_tells_the_version,
        a_replica_does_not_pass_the_ping,
        what_is_read_comes_from_where_the_writes_go,
        a_hundred_years_are_kept,
        a_put_clears_the_expiry,
        the_expiry_is_told_by_an_older_server_too,
        a_touch_is_seen_by_the_server,
        an_increment_counts_as_the_memory_cache_does,
        an_increment_sets_the_expiry_only_where_it_creates,
        identical_values_have_identical_revisions,
        a_value_is_digested_only_where_somebody_asks,
        a_batch_over_the_limits_is_cut_up,
        a_write_whose_caller_went_away_is_applied,
        closing_waits_and_refuses_what_comes_later,
        concurrent_first_callers_share_the_connections,
        one_connection_is_enough,
        an_encrypted_connection_is_verified,
    ];
    suite.run()
}

fn cache(server: &Redis) -> RedisCache {
    RedisCache::new(&RedisConfig::new(server.host(), server.port())).unwrap()
}

fn raw(server: &Redis) -> Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

fn cx() -> Context {
    Context::with_timeout(PATIENCE)
}

fn soon() -> Context {
    Context::with_timeout(IMPATIENCE)
}

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

fn json(text: &str) -> Value {
    Value::json(text.to_owned()).unwrap()
}

fn put(name: &str, value: Value) -> Write {
    Write::put(key(name), value, HybridClock::process().issue())
}

fn put_as(name: &str, value: Value, mode: WriteMode, ttl: Option<Ttl>) -> Write {
    Write::new(key(name), WriteOp::Put { value, mode, ttl }, HybridClock::process().issue())
}

fn delete(name: &str) -> Write {
    Write::delete(key(name), HybridClock::process().issue())
}

async fn read(cache: &RedisCache, name: &str) -> Result<Option<Value>> {
    cache.get(&key(name), &GetOptions::default(), &cx()).await.map(Lookup::into_value)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn all_keys(cache: &RedisCache, prefix: &str, limit: usize) -> Vec<String> {
    let prefix = KeyPrefix::parse(prefix).unwrap();
    let mut options = ListOptions::default().with_limit(limit);
    let mut keys = Vec::new();
    loop {
        let page = cache.list(&prefix, &options, &cx()).await.unwrap();
        assert!(page.keys.len() <= limit);
        keys.extend(page.keys.iter().map(|key| key.as_str().to_owned()));
        match page.next {
            Some(next) => options = options.with_cursor(next),
            None => return keys,
        }
    }
}

async fn other_clients_read_the_json() {
    let server = Redis::shared();
    let (cache, mut raw) = (cache(server), raw(server));
    for text in ["{\"a\":1,\"a\":2}", " 1e400\n", "\"\\ud800\""] {
        cache.write(put("seen:json", json(text)), &cx()).await.unwrap();
        assert_eq!(raw.get::<_, String>("seen:json").unwrap(), text);
    }
    cache.write(put("seen:binary", Value::binary(&b"{}"[..]).unwrap()), &cx()).await.unwrap();
    assert_eq!(raw.get::<_, Vec<u8>>("seen:binary").unwrap(), b"\0{}");
}

async fn other_clients_counters_and_json_are_read() {
    let server = Redis::shared();
    let (cache, mut raw) = (cache(server), raw(server));
    let _: () = raw.set("foreign:json", " [1, 2]").unwrap();
    let _: i64 = raw.incr("foreign:counter", 7).unwrap();
    assert_eq!(read(&cache, "foreign:json").await.unwrap(), Some(json(" [1, 2]")));
    assert_eq!(read(&cache, "foreign:counter").await.unwrap(), Some(json("7")));
}

async fn what_another_client_stored_as_text_or_pickle_is_corrupt_alone() {
    let server = Redis::shared();
    let (cache, mut raw) = (cache(server), raw(server));
    let _: () = raw.set("corrupt:text", "hello").unwrap();
    let _: () = raw.set("corrupt:pickle", b"\x80\x04\x95").unwrap();
    let _: () = raw.set("corrupt:fine", "1").unwrap();
    let keys = ["corrupt:text", "corrupt:fine", "corrupt:pickle"].map(key);
    for options in [GetOptions::default(), GetOptions::default().with_expiry()] {
        let answers = cache.get_many(&keys, &options, &cx()).await;
        let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(Error::kind)).collect();
        assert_eq!(kinds, [Some(ErrorKind::Corrupt), None, Some(ErrorKind::Corrupt)]);
    }
    let ack = cache.write(delete("corrupt:text"), &cx()).await.unwrap();
    assert_eq!(ack.existed, Some(true));
}

async fn a_list_under_a_key_is_a_wrong_type_alone() {
    let server = Redis::shared();
    let (cache, mut raw) = (cache(server), raw(server));
    let _: i64 = raw.rpush("typed:list", "item").unwrap();
    cache.write(put("typed:value", json("1")), &cx()).await.unwrap();
    let revision = cache.write(put("typed:value", json("1")), &cx()).await.unwrap().revision.unwrap();
    let keys = ["typed:value", "typed:list", "typed:value"].map(key);
    for options in [GetOptions::default(), GetOptions::default().with_expiry()] {
        let answers = cache.get_many(&keys, &options, &cx()).await;
        assert!(answers[0].is_ok() && answers[2].is_ok());
        assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::WrongType);
    }
    let update = put_as("typed:list", json("1"), WriteMode::Update(revision), None);
    let remove =
        Write::new(key("typed:list"), WriteOp::Delete { only_if: Some(revision) }, HybridClock::process().issue());
    let writes = vec![put("typed:value", json("2")), put("typed:list", json("2")), update, remove];
    let answers = cache.write_many(writes, &cx()).await;
    assert!(answers[0].is_ok());
    for refused in answers.into_iter().skip(1) {
        assert_eq!(kind(refused), ErrorKind::WrongType);
    }
    let created = put_as("typed:list", json("1"), WriteMode::Create, None);
    assert_eq!(kind(cache.write(created, &cx()).await), ErrorKind::Conflict);
    let counted = cache.increment(&key("typed:list"), 1, &IncrementOptions::default(), &cx()).await;
    assert_eq!(kind(counted), ErrorKind::WrongType);
    assert_eq!(raw.lrange::<_, Vec<String>>("typed:list", 0, -1).unwrap(), ["item"]);
    assert_eq!(cache.write(delete("typed:list"), &cx()).await.unwrap().existed, Some(true));
}

async fn a_large_value_does_not_replace_a_list_either() {
    let server = Redis::shared();
    let (cache, mut raw) = (cache(server), raw(server));
    let large = Value::binary(vec![7; 300_000]).unwrap();
    let _: i64 = raw.rpush("large:list", "item").unwrap();
    assert_eq!(kind(cache.write(put("large:list", large.clone()), &cx()).await), ErrorKind::WrongType);
    let ttl = Some(Ttl::from_secs(1000).unwrap());
    for existed in [false, true] {
        let ack = cache.write(put_as("large:value", large.clone(), WriteMode::Upsert, ttl), &cx()).await.unwrap();
        assert_eq!(ack.existed, Some(existed));
    }
    assert!(raw.pttl::<_, i64>("large:value").unwrap() > 900_000);
    assert_eq!(read(&cache, "large:value").await.unwrap(), Some(large));
}

async fn keys_that_are_all_there_are_read_by_one_command() {
    let server = Redis::start(&[]);
    let (cache, mut raw) = (cache(&server), raw(&server));
    let keys: Vec<Key> = (0..100).map(|number| key(&format!("k:{number}"))).collect();
    for (number, key) in keys.iter().enumerate() {
        let value = json(&number.to_string());
        cache.write(Write::put(key.clone(), value, HybridClock::process().issue()), &cx()).await.unwrap();
    }
    for _ in 0..3 {
        for (number, answer) in cache.get_many(&keys, &GetOptions::default(), &cx()).await.into_iter().enumerate() {
            assert_eq!(answer.unwrap().into_value(), Some(json(&number.to_string())));
        }
    }
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut raw).unwrap();
    assert!(stats.contains("cmdstat_mget:calls=3,") && !stats.contains("cmdstat_get:"), "{stats}");
}

async fn what_one_command_does_not_find_is_never_a_guess() {
    let server = Redis::start(&[]);
    let (cache, mut raw) = (cache(&server), raw(&server));
    cache.write(put("value", json("1")), &cx()).await.unwrap();
    let _: i64 = raw.rpush("list", "item").unwrap();
    let batches: [&[&str]; 6] = [
        &["value", "missing", "list", "value", "list", "missing"],
        &["missing", "list"],
        &["value", "value"],
        &["list", "list"],
        &["list", "value", "missing"],
        &["missing", "missing"],
    ];
    // Whatever the batch before it found.
    for names in batches.iter().flat_map(|first| batches.iter().flat_map(move |second| [first, second])) {
        let keys: Vec<Key> = names.iter().map(|name| key(name)).collect();
        for (name, answer) in names.iter().zip(cache.get_many(&keys, &GetOptions::default(), &cx()).await) {
            match *name {
                "value" => assert_eq!(answer.unwrap().into_value(), Some(json("1")), "{names:?}"),
                "missing" => assert!(!answer.unwrap().is_found(), "{names:?}"),
                _ => assert_eq!(kind(answer), ErrorKind::WrongType, "{names:?}"),
            }
        }
    }
}

async fn a_batch_is_read_where_access_rules_forbid_to_read_it_at_once() {
    let server = Redis::start(&[]);
    let mut raw = raw(&server);
    let _: () = raw.set("ours:value", "1").unwrap();
    let _: () = raw.set("theirs:value", "2").unwrap();
    for rules in [["~*", "+@all", "-mget"], ["~ours:*", "+@all", "+mget"]] {
        redis::cmd("ACL")
            .arg("SETUSER")
            .arg("limited")
            .arg("reset")
            .arg("on")
            .arg(">pw")
            .arg(&rules)
            .exec(&mut raw)
            .unwrap();
        let mut config = RedisConfig::new(server.host(), server.port());
        (config.username, config.password) = (Some("limited".to_owned()), Some("pw".into()));
        let cache = RedisCache::new(&config).unwrap();
        let allowed = rules.contains(&"~*");
        for _ in 0..3 {
            let keys = ["ours:value", "theirs:value", "ours:missing"].map(key);
            let [ours, theirs, missing] =
                <[_; 3]>::try_from(cache.get_many(&keys, &GetOptions::default(), &cx()).await).unwrap();
            assert_eq!(ours.unwrap().into_value(), Some(json("1")));
            match theirs {
                Ok(theirs) => assert_eq!(theirs.into_value().filter(|_| allowed), Some(json("2"))),
                Err(refused) => assert!(refused.kind() == ErrorKind::Unavailable && !allowed),
            }
            assert!(!missing.unwrap().is_found());
        }
    }
}

async fn a_full_server_refuses_writes_and_still_reads() {
    let server = Redis::start(&["--maxmemory-policy", "noeviction"]);
    let (cache, mut raw) = (cache(&server), raw(&server));
    let mut allow = |bytes: u32| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec(&mut raw).unwrap();
    let revision = cache.write(put("key", json("1")), &cx()).await.unwrap().revision.unwrap();
    allow(1);
    let large = Value::binary(vec![7; 300_000]).unwrap();
    let update = put_as("key", json("2"), WriteMode::Update(revision), None);
    for write in [put("key", json("2")), put("key", large), update] {
        let refused = cache.write(write, &cx()).await.unwrap_err();
        assert!(refused.kind() == ErrorKind::Unavailable && refused.is_transient());
        assert!(refused.message().contains("out of memory"), "{refused}");
    }
    assert!(cache.ping(&cx()).await.unwrap_err().message().contains("out of memory"));
    assert_eq!(read(&cache, "key").await.unwrap(), Some(json("1")));
    assert_eq!(cache.write(delete("key"), &cx()).await.unwrap().existed, Some(true));
    allow(0);
    cache.write(put("key", json("2")), &cx()).await.unwrap();
}

async fn a_wrong_password_is_said_and_is_permanent() {
    let server = Redis::start(&["--requirepass", "right"]);
    let mut config = RedisConfig::new(server.host(), server.port());
    for password in [None, Some("wrong-secret")] {
        config.password = password.map(Into::into);
        let cache = RedisCache::new(&config).unwrap();
        let refused = cache.ping(&cx()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(!refused.is_transient() && refused.message().contains("password"), "{refused}");
        assert!(!format!("{refused:?} {cache:?}").contains("wrong-secret"));
        let refused = cache.write(put("key", json("1")), &cx()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "nothing was sent");
    }
    config.password = Some("right".into());
    RedisCache::new(&config).unwrap().ping(&cx()).await.unwrap();
}

async fn a_database_that_is_not_there_is_said() {
    let server = Redis::shared();
    let mut config = RedisConfig::new(server.host(), server.port());
    config.database = 99;
    let refused = RedisCache::new(&config).unwrap().ping(&cx()).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && !refused.is_transient());
    assert!(refused.message().contains("database"), "{refused}");
    config.database = 3;
    let cache = RedisCache::new(&config).unwrap();
    cache.write(put("database:three", json("3")), &cx()).await.unwrap();
    let mut raw = raw(server);
    assert!(!raw.exists::<_, bool>("database:three").unwrap());
}

async fn an_unreachable_server_is_transient() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    server.kill();
    let refused = read(&cache, "key").await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && refused.is_transient(), "{refused}");
    let refused = cache.write(put("key", json("1")), &cx()).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && refused.is_transient(), "{refused}");
    assert_eq!(refused.outage(), Some(Outage::Down), "{refused}");
    let unknown = RedisCache::new(&RedisConfig::new("no-such-host.invalid", 6379)).unwrap();
    let refused = unknown.ping(&cx()).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && refused.is_transient(), "{refused}");
    assert_eq!(refused.outage(), Some(Outage::Down), "{refused}");
}

async fn a_failed_attempt_is_not_remembered() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    server.kill();
    for _ in 0..3 {
        assert_eq!(kind(read(&cache, "key").await), ErrorKind::Unavailable);
    }
    server.restart();
    assert_eq!(read(&cache, "key").await.unwrap(), None);
}

async fn scripts_that_the_server_forgot_are_sent_again() {
    let server = Redis::start(&[]);
    let (cache, mut raw) = (cache(&server), raw(&server));
    let ttl = IncrementOptions::default().with_ttl(Ttl::from_secs(1000).unwrap());
    for round in 1..=2 {
        let revision = cache.write(put("key", json("1")), &cx()).await.unwrap().revision.unwrap();
        let update = put_as("key", json("2"), WriteMode::Update(revision), None);
        let revision = cache.write(update, &cx()).await.unwrap().revision.unwrap();
        let remove =
            Write::new(key("key"), WriteOp::Delete { only_if: Some(revision) }, HybridClock::process().issue());
        cache.write(remove, &cx()).await.unwrap();
        assert_eq!(cache.increment(&key("counter"), 1, &ttl, &cx()).await.unwrap(), round);
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut raw).unwrap();
    }
}

async fn a_batch_keeps_its_order_when_the_server_forgot_the_scripts() {
    let server = Redis::start(&[]);
    let (cache, mut raw) = (cache(&server), raw(&server));
    let revision = cache.write(put("key", json("1")), &cx()).await.unwrap().revision.unwrap();
    for _ in 0..2 {
        cache.write(put("key", json("1")), &cx()).await.unwrap();
        let writes = vec![
            put_as("key", json("2"), WriteMode::Update(revision), None),
            put("key", json("1")),
            put_as("key", json("3"), WriteMode::Update(revision), None),
            put("key", json("4")),
        ];
        let answers: Result<Vec<WriteAck>> = cache.write_many(writes, &cx()).await.into_iter().collect();
        assert!(answers.unwrap().iter().all(|ack| ack.existed == Some(true)));
        assert_eq!(read(&cache, "key").await.unwrap(), Some(json("4")));
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut raw).unwrap();
    }
}

async fn a_write_right_after_a_restart_is_applied() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    for round in 0..5 {
        cache.write(put("key", json(&round.to_string())), &cx()).await.unwrap();
        assert_eq!(read(&cache, "key").await.unwrap(), Some(json(&round.to_string())));
        server.restart();
    }
    cache.ping(&cx()).await.unwrap();
}

async fn a_frozen_server_leaks_nothing() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    cache.write(put("kept", json("1")), &cx()).await.unwrap();
    assert_eq!(read(&cache, "kept").await.unwrap(), Some(json("1")));
    server.freeze();
    for round in 0..50 {
        let written = cache.write(put(&format!("lost:{round}"), json("1")), &soon()).await;
        assert!(matches!(kind(written), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable));
        let got = cache.get(&key("kept"), &GetOptions::default(), &soon()).await;
        assert_eq!(kind(got), ErrorKind::Unavailable);
    }
    server.thaw();
    for round in 0..100 {
        cache.write(put(&format!("kept:{round}"), json("1")), &cx()).await.unwrap();
        assert_eq!(read(&cache, "kept").await.unwrap(), Some(json("1")));
    }
    let connected = || {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut raw(&server)).unwrap();
        clients.lines().count()
    };
    // Ours for writes, ours for reads, and the one that asks.
    assert!(wait_until(|| connected() == 3), "{} connections", connected());
    cache.close(&cx()).await.unwrap();
    assert!(wait_until(|| connected() == 1), "{} connections", connected());
}

async fn a_late_write_does_not_land_on_a_newer_one() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    // Large enough that the server needs many turns to read what it missed.
    let old = Value::binary(vec![7; 60_000]).unwrap();
    cache.write(put("key", old.clone()), &cx()).await.unwrap();
    server.freeze();
    for _ in 0..100 {
        assert!(cache.write(put("key", old.clone()), &soon()).await.is_err());
    }
    server.thaw();
    cache.write(put("key", json("\"new\"")), &cx()).await.unwrap();
    // Once only our own connection is left besides the one that asks, nothing old can come.
    let connected = || {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut raw(&server)).unwrap();
        clients.lines().count()
    };
    assert!(wait_until(|| connected() == 2), "{} connections", connected());
    assert_eq!(read(&cache, "key").await.unwrap(), Some(json("\"new\"")));
}

async fn a_silent_connection_is_replaced_and_dropped_by_the_server() {
    let server = Redis::start(&[]);
    let proxy = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let cache = RedisCache::new(&RedisConfig::new("127.0.0.1", proxy.address().port())).unwrap();
    cache.write(put("key", json("1")), &cx()).await.unwrap();
    // This connection alone; the server sees it open, as behind a firewall that forgot it.
    proxy.set_once(NetworkFault::LoseFrom(Direction::ToServer, Point::Bytes(0))).await.unwrap();
    let mut given_up = 0;
    while let Err(lost) = cache.write(put("key", json("2")), &Context::with_timeout(5 * IMPATIENCE)).await {
        assert!(matches!(lost.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable), "{lost}");
        given_up += 1;
        assert!(given_up < 100, "the silent connection is kept");
    }
    assert!(given_up > 0);
    assert_eq!(read(&cache, "key").await.unwrap(), Some(json("2")));
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut raw(&server)).unwrap();
    assert_eq!(clients.lines().count(), 3, "what the silent connection still holds could run later\n{clients}");
}

async fn replies_to_given_up_calls_reach_nobody_else() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    let names: Vec<String> = (0..50).map(|number| format!("key:{number}")).collect();
    let writes = names.iter().map(|name| put(name, json(&format!("\"{name}\"")))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    assert!(read(&cache, "key:0").await.unwrap().is_some());
    server.freeze();
    let keys: Vec<Key> = names.iter().map(|name| key(name)).collect();
    // At once, so that the connection is not replaced before the replies come.
    let given_up = futures_util::future::join_all(
        keys.iter().map(|key| async { cache.get(key, &GetOptions::default(), &soon()).await }),
    );
    assert!(given_up.await.iter().all(Result::is_err));
    server.thaw();
    for name in names.iter().rev() {
        assert_eq!(read(&cache, name).await.unwrap(), Some(json(&format!("\"{name}\""))));
    }
}

async fn a_write_to_a_frozen_server_is_of_unknown_outcome() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    cache.write(put("key", json("1")), &cx()).await.unwrap();
    server.freeze();
    let lost = cache.write(put("key", json("2")), &soon()).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(kind(cache.increment(&key("n"), 1, &IncrementOptions::default(), &soon()).await), lost.kind());
    assert_eq!(lost.outage(), None, "so short a wait says nothing of the server");
    let longer = Context::with_timeout(Duration::from_millis(100));
    assert_eq!(cache.ping(&longer).await.unwrap_err().outage(), Some(Outage::Silent));
    let late = Context::with_timeout(Duration::ZERO);
    assert_eq!(kind(cache.write(put("key", json("3")), &late).await), ErrorKind::Unavailable);
    server.thaw();
    assert_eq!(read(&cache, "key").await.unwrap().map(|value| value != json("3")), Some(true));
}

async fn prefixes_are_literal() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    let names = ["g*:1", "gx:1", "g?:1", "g[x]:1", "g\\*:1", "g^:1", "G*:1", "g*"];
    let writes = names.iter().map(|name| put(name, json("1"))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    for (prefix, expected) in [
        ("g*", &["g*", "g*:1"][..]),
        ("g?", &["g?:1"]),
        ("g[x]", &["g[x]:1"]),
        ("g\\", &["g\\*:1"]),
        ("g\\*", &["g\\*:1"]),
        ("g^", &["g^:1"]),
        ("G", &["G*:1"]),
        ("g", &["g*", "g*:1", "g?:1", "g[x]:1", "g\\*:1", "g^:1", "gx:1"]),
    ] {
        let mut listed = all_keys(&cache, prefix, 1000).await;
        listed.sort();
        assert_eq!(listed, expected, "{prefix}");
        let counted = cache.count(&KeyPrefix::parse(prefix).unwrap(), &cx()).await.unwrap();
        assert_eq!(counted, expected.len() as u64, "{prefix}");
    }
    let prefix = KeyPrefix::parse("g*").unwrap();
    assert_eq!(cache.clear(&prefix, HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap(), Some(2));
    assert_eq!(cache.count(&KeyPrefix::empty(), &cx()).await.unwrap(), 6);
}

async fn every_key_is_listed_however_small_the_page() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    let names: BTreeSet<String> = (0..3000).map(|number| format!("many:{number}")).collect();
    let writes = names.iter().map(|name| put(name, json("1"))).chain([put("other", json("1"))]).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    for limit in [1, 7, 1000, 10_000] {
        let listed: BTreeSet<String> = all_keys(&cache, "many:", limit).await.into_iter().collect();
        assert_eq!(listed, names, "pages of {limit}");
    }
    assert_eq!(cache.count(&KeyPrefix::parse("many:").unwrap(), &cx()).await.unwrap(), 3000);
    let removed =
        cache.clear(&KeyPrefix::parse("many:").unwrap(), HybridClock::process().issue(), Attempt::First, &cx()).await;
    assert_eq!(removed.unwrap(), Some(3000));
    assert_eq!(all_keys(&cache, "", 10).await, ["other"]);
}

async fn a_cursor_that_is_none_is_refused() {
    let cache = cache(Redis::shared());
    let prefix = KeyPrefix::parse("p:").unwrap();
    for text in ["", "nonsense", "-1", "1\nq:outside"] {
        let options = ListOptions::default().with_cursor(Cursor::new(text));
        assert_eq!(kind(cache.list(&prefix, &options, &cx()).await), ErrorKind::InvalidValue, "{text:?}");
    }
}

async fn a_listing_misses_nothing_though_another_server_goes_on_with_it() {
    let (first, second) = (Redis::start(&[]), Redis::start(&[]));
    let address = |server: &Redis| SocketAddr::from(([127, 0, 0, 1], server.port()));
    let names: BTreeSet<String> = (0..1000).map(|number| format!("k:{number}")).collect();
    for server in [&first, &second] {
        let mut fill = redis::cmd("MSET");
        names.iter().for_each(|name| _ = fill.arg(name).arg(1));
        fill.exec(&mut raw(server)).unwrap();
    }
    let proxy = FaultProxy::start(address(&first)).await.unwrap();
    let cache = RedisCache::new(&RedisConfig::new("127.0.0.1", proxy.address().port())).unwrap();
    let (prefix, mut options) = (KeyPrefix::parse("k:").unwrap(), ListOptions::default().with_limit(100));
    let mut found = BTreeSet::new();
    for page in 0.. {
        if page == 5 {
            // As after a restart: the keys are the same, and their order is another one.
            proxy.lead_to(address(&second)).await;
            proxy.reset().await;
        }
        let answer = loop {
            // A connection that was reset is found out by who uses it next.
            match cache.list(&prefix, &options, &cx()).await {
                Ok(answer) => break answer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        };
        found.extend(answer.keys.iter().map(|key| key.as_str().to_owned()));
        let Some(next) = answer.next else { break };
        options = options.with_cursor(next);
    }
    assert_eq!(found, names);
}

async fn names_that_are_no_keys_are_left_alone() {
    let server = Redis::start(&[]);
    let (cache, mut raw) = (cache(&server), raw(&server));
    for name in [&b"x\xff"[..], b"x\n", &[b'x'; 1025]] {
        let _: () = raw.set(name, "1").unwrap();
    }
    cache.write(put("x", json("1")), &cx()).await.unwrap();
    let prefix = KeyPrefix::parse("x").unwrap();
    assert_eq!(all_keys(&cache, "x", 10).await, ["x"]);
    assert_eq!(cache.count(&prefix, &cx()).await.unwrap(), 1);
    assert_eq!(cache.clear(&prefix, HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap(), Some(1));
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut raw).unwrap(), 3);
}

async fn a_ping_leaves_nothing_to_see() {
    let server = Redis::start(&[]);
    let (cache, mut raw) = (cache(&server), raw(&server));
    cache.ping(&cx()).await.unwrap();
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut raw).unwrap(), 1, "a ping writes");
    let written: Vec<String> = raw.keys("agent-storage:*").unwrap();
    assert!(raw.pttl::<_, i64>(&written[0]).unwrap() > 0, "and what it wrote goes by itself");
    for prefix in ["", "agent-storage:"] {
        assert!(all_keys(&cache, prefix, 10).await.is_empty());
        assert_eq!(cache.count(&KeyPrefix::parse(prefix).unwrap(), &cx()).await.unwrap(), 0);
    }
}

async fn a_ping_tells_the_version() {
    let server = Redis::shared();
    let cache = cache(server);
    let info: String = redis::cmd("INFO").arg("server").query(&mut raw(server)).unwrap();
    for _ in 0..2 {
        let version = cache.ping(&cx()).await.unwrap().server_version.unwrap();
        assert!(info.contains(version.rsplit(' ').next().unwrap()), "{version}");
    }
    assert_eq!(cache.capabilities().durability, Durability::Primary);
}

async fn a_replica_does_not_pass_the_ping() {
    let primary = Redis::start(&[]);
    let replica = Redis::start(&["--replicaof", &format!("127.0.0.1 {}", primary.port())]);
    let cache = cache(&replica);
    let refused = cache.ping(&cx()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.message().contains("replica"), "{refused}");
    assert_eq!(refused.outage(), Some(Outage::Down));
    let refused = cache.write(put("key", json("1")), &cx()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    // Promoted, it is used again.
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut raw(&replica)).unwrap();
    cache.ping(&cx()).await.unwrap();
}

async fn what_is_read_comes_from_where_the_writes_go() {
    let (first, second) = (Redis::start(&[]), Redis::start(&[]));
    let address = |server: &Redis| SocketAddr::from(([127, 0, 0, 1], server.port()));
    let proxy = FaultProxy::start(address(&first)).await.unwrap();
    let mut config = RedisConfig::new("127.0.0.1", proxy.address().port());
    config.max_connections = 4;
    let cache = RedisCache::new(&config).unwrap();
    // Reads come first: they are there before it is known where the writes go.
    for _ in 0..config.max_connections {
        assert_eq!(read(&cache, "key").await.unwrap(), None);
    }
    cache.write(put("key", json("1")), &cx()).await.unwrap();
    for _ in 0..config.max_connections {
        assert_eq!(read(&cache, "key").await.unwrap(), Some(json("1")));
    }
    assert_eq!(proxy.accepted(), 4, "those that lead to the same server stay");
    // A failover that ends no connection; the former primary does not hear what is written from now on.
    proxy.lead_to(address(&second)).await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(&mut raw(&first)).unwrap();
    let written = async {
        while let Err(refused) = cache.write(put("key", json("2")), &cx()).await {
            assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
            tokio::time::sleep(IMPATIENCE).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the new primary takes it");
    for _ in 0..config.max_connections {
        assert_eq!(read(&cache, "key").await.unwrap(), Some(json("2")));
    }
}

async fn a_hundred_years_are_kept() {
    let server = Redis::shared();
    let (cache, mut raw) = (cache(server), raw(server));
    for name in ["years:put", "years:created"] {
        let mode = if name == "years:put" { WriteMode::Upsert } else { WriteMode::Create };
        cache.write(put_as(name, json("1"), mode, Some(Ttl::MAX)), &cx()).await.unwrap();
        let left = raw.pttl::<_, i64>(name).unwrap();
        assert!(left > i64::try_from(Ttl::MAX.as_millis()).unwrap() - 60_000, "{left}");
    }
}

async fn a_put_clears_the_expiry() {
    let server = Redis::shared();
    let cache = cache(server);
    let ttl = Some(Ttl::from_secs(1000).unwrap());
    let expiry = async || {
        let options = GetOptions::default().with_expiry();
        cache.get(&key("expiry:cleared"), &options, &cx()).await.unwrap().into_entry().unwrap().expiry
    };
    let ack = cache.write(put_as("expiry:cleared", json("1"), WriteMode::Upsert, ttl), &cx()).await.unwrap();
    assert!(matches!(expiry().await, Expiry::At(_)));
    let update = put_as("expiry:cleared", json("2"), WriteMode::Update(ack.revision.unwrap()), None);
    cache.write(update, &cx()).await.unwrap();
    assert_eq!(expiry().await, Expiry::Never);
    cache.write(put_as("expiry:cleared", json("1"), WriteMode::Upsert, ttl), &cx()).await.unwrap();
    cache.write(put("expiry:cleared", json("1")), &cx()).await.unwrap();
    assert_eq!(expiry().await, Expiry::Never);
}

async fn the_expiry_is_told_by_an_older_server_too() {
    let older = Redis::start(&["--rename-command", "PEXPIRETIME", ""]);
    for server in [&older, &Redis::start(&[])] {
        let (cache, mut raw) = (cache(server), raw(server));
        let ttl = Ttl::from_secs(1000).unwrap();
        cache.write(put_as("told", json("1"), WriteMode::Upsert, Some(ttl)), &cx()).await.unwrap();
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut raw).unwrap();
        let options = GetOptions::default().with_expiry();
        for keys in [&["told"].map(key)[..], &["told", "told"].map(key)] {
            for answer in cache.get_many(keys, &options, &cx()).await {
                let Expiry::At(at) = answer.unwrap().into_entry().unwrap().expiry else { panic!("it has a TTL") };
                let left = at.as_millis() - (seconds * 1000 + micros / 1000);
                assert!((900_000..=1_000_001).contains(&left), "{left}");
            }
        }
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut raw).unwrap();
        let entry = cache.get(&key("told"), &options, &cx()).await.unwrap();
        assert!(matches!(entry.into_entry().unwrap().expiry, Expiry::At(_)), "a forgotten script is sent again");
    }
}

async fn a_touch_is_seen_by_the_server() {
    let server = Redis::shared();
    let (cache, mut raw) = (cache(server), raw(server));
    let touch = |name: &str, ttl| Write::new(key(name), WriteOp::Touch { ttl }, HybridClock::process().issue());
    let ttl = Some(Ttl::from_secs(1000).unwrap());
    cache.write(put("touched", json("1")), &cx()).await.unwrap();
    for (ttl, lives) in [(ttl, true), (None, false), (None, false)] {
        assert_eq!(cache.write(touch("touched", ttl), &cx()).await.unwrap().existed, Some(true));
        assert_eq!(raw.pttl::<_, i64>("touched").unwrap() > 0, lives);
        assert_eq!(cache.write(touch("touched:not", ttl), &cx()).await.unwrap().existed, Some(false));
    }
    assert_eq!(read(&cache, "touched:not").await.unwrap(), None);
}

async fn an_increment_counts_as_the_memory_cache_does() {
    let cache = cache(Redis::shared());
    let add = async |by| cache.increment(&key("counted"), by, &IncrementOptions::default(), &cx()).await;
    for text in [" 1", "1 ", "-0", "1.0", "1e3", "\"1\"", "null", "9223372036854775808"] {
        cache.write(put("counted", json(text)), &cx()).await.unwrap();
        assert_eq!(kind(add(1).await), ErrorKind::WrongType, "{text:?}");
        assert_eq!(read(&cache, "counted").await.unwrap(), Some(json(text)));
    }
    cache.write(put("counted", Value::binary(&b"1"[..]).unwrap()), &cx()).await.unwrap();
    assert_eq!(kind(add(1).await), ErrorKind::WrongType);
    for (start, by) in [(i64::MAX, 1), (i64::MIN, -1), (-1, i64::MIN)] {
        cache.write(put("counted", Value::from_integer(start)), &cx()).await.unwrap();
        assert_eq!(kind(add(by).await), ErrorKind::InvalidValue, "{start} + {by}");
        assert_eq!(read(&cache, "counted").await.unwrap(), Some(Value::from_integer(start)));
    }
    cache.write(put("counted", Value::from_integer(0)), &cx()).await.unwrap();
    assert_eq!(add(i64::MIN).await.unwrap(), i64::MIN);
    assert_eq!(read(&cache, "counted").await.unwrap(), Some(Value::from_integer(i64::MIN)));
}

async fn an_increment_sets_the_expiry_only_where_it_creates() {
    let server = Redis::shared();
    let (cache, mut raw) = (cache(server), raw(server));
    let (long, short) = (Ttl::from_secs(9000).unwrap(), Ttl::from_secs(1).unwrap());
    let with = |ttl| IncrementOptions::default().with_ttl(ttl);
    // Beyond 53 bits, where a number of Lua would lose its end.
    let start = (1 << 53) + 1;
    assert_eq!(cache.increment(&key("expiring"), start, &with(long), &cx()).await.unwrap(), start);
    assert_eq!(cache.increment(&key("expiring"), 1, &with(short), &cx()).await.unwrap(), start + 1);
    assert!(raw.pttl::<_, i64>("expiring").unwrap() > 8_000_000);
    cache.write(put("staying", json("1")), &cx()).await.unwrap();
    assert_eq!(cache.increment(&key("staying"), 1, &with(short), &cx()).await.unwrap(), 2);
    assert_eq!(raw.pttl::<_, i64>("staying").unwrap(), -1);
}

async fn identical_values_have_identical_revisions() {
    let cache = cache(Redis::shared());
    let first = cache.write(put("digest:a", json("{}")), &cx()).await.unwrap().revision;
    let second = cache.write(put("digest:b", json("{}")), &cx()).await.unwrap().revision;
    let binary = cache.write(put("digest:c", Value::binary(&b"{}"[..]).unwrap()), &cx()).await.unwrap().revision;
    assert_eq!(first, second);
    assert_ne!(first, binary);
    let read = cache.get(&key("digest:a"), &GetOptions::default(), &cx()).await.unwrap();
    assert_eq!(read.into_entry().map(|entry| entry.revision), first);
}

async fn a_value_is_digested_only_where_somebody_asks() {
    let cache = cache(Redis::shared());
    let keys = [key("undigested:a"), key("undigested:b")];
    for key in &keys {
        let write = Write::put(key.clone(), json("{}"), HybridClock::process().issue());
        cache.write(write, &cx()).await.unwrap();
    }
    for asked in [GetOptions::default(), GetOptions::default().with_expiry()] {
        for options in [asked, asked.without_revision()] {
            let mut answers = cache.get_many(&keys, &options, &cx()).await;
            answers.push(cache.get(&keys[0], &options, &cx()).await);
            for answer in answers {
                let entry = answer.unwrap().into_entry().unwrap();
                assert_eq!(entry.revision == Revision::NOT_ASKED, options.without_revision, "{options:?}");
            }
        }
    }
}

async fn a_batch_over_the_limits_is_cut_up() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    let large = Value::binary(vec![7; 5 << 20]).unwrap();
    let mut writes: Vec<Write> = (0..2500).map(|number| put(&format!("k:{number}"), json("1"))).collect();
    writes.extend((0..4).map(|number| put(&format!("large:{number}"), large.clone())));
    writes.push(put("k:0", json("\"last\"")));
    let answers = cache.write_many(writes, &cx()).await;
    assert_eq!(answers.len(), 2505);
    assert!(answers.iter().all(Result::is_ok));
    let keys: Vec<Key> = (0..2500).map(|number| key(&format!("k:{number}"))).collect();
    let found = cache.get_many(&keys, &GetOptions::default(), &cx()).await;
    assert_eq!(found[0].as_ref().unwrap().clone().into_value(), Some(json("\"last\"")));
    assert!(found.iter().all(|answer| answer.as_ref().unwrap().is_found()));
    assert!(cache.exists(&keys, &cx()).await.into_iter().all(|answer| answer.unwrap()));
    assert_eq!(read(&cache, "large:3").await.unwrap(), Some(large));
}

async fn a_write_whose_caller_went_away_is_applied() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    cache.ping(&cx()).await.unwrap();
    server.freeze();
    let writes = (0..3000).map(|number| put(&format!("k:{number}"), json("1"))).collect();
    let batch = tokio::time::timeout(IMPATIENCE, cache.write_many(writes, &cx())).await;
    assert!(batch.is_err(), "the caller goes away while the server stands still");
    server.thaw();
    // Closing waits for what is in flight.
    cache.close(&cx()).await.unwrap();
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut raw(&server)).unwrap(), 3001);
}

async fn closing_waits_and_refuses_what_comes_later() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    cache.ping(&cx()).await.unwrap();
    server.freeze();
    let cx = cx();
    let mut writing = Box::pin(cache.write(put("key", json("1")), &cx));
    assert!(tokio::time::timeout(Duration::ZERO, &mut writing).await.is_err());
    assert_eq!(kind(cache.close(&soon()).await), ErrorKind::Unavailable, "it still waits");
    server.thaw();
    let (closed, written) = tokio::join!(cache.close(&cx), writing);
    closed.unwrap();
    written.unwrap();
    assert_eq!(kind(read(&cache, "key").await), ErrorKind::Closed);
    assert_eq!(kind(cache.write(put("key", json("1")), &cx).await), ErrorKind::Closed);
    assert_eq!(kind(cache.ping(&cx).await), ErrorKind::Closed);
    let answers = cache.write_many(vec![put("key", json("1"))], &cx).await;
    assert!(answers.into_iter().all(|answer| kind(answer) == ErrorKind::Closed));
    let answers = cache.get_many(&[key("key")], &GetOptions::default(), &cx).await;
    assert!(answers.into_iter().all(|answer| kind(answer) == ErrorKind::Closed));
    cache.close(&cx).await.unwrap();
}

async fn concurrent_first_callers_share_the_connections() {
    let server = Redis::start(&[]);
    let cache = cache(&server);
    let calls = (0..100).map(|number| {
        let cache = &cache;
        async move {
            cache.write(put(&format!("k:{number}"), json("1")), &cx()).await?;
            read(cache, &format!("k:{number}")).await
        }
    });
    assert!(futures_util::future::join_all(calls).await.into_iter().all(|read| read.unwrap().is_some()));
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut raw(&server)).unwrap();
    // One for writes, one for reads, and the one that asks.
    assert_eq!(clients.lines().count(), 3, "{clients}");
}

async fn one_connection_is_enough() {
    let server = Redis::shared();
    let mut config = RedisConfig::new(server.host(), server.port());
    config.max_connections = 1;
    let cache = RedisCache::new(&config).unwrap();
    cache.write(put("single", json("1")), &cx()).await.unwrap();
    assert_eq!(read(&cache, "single").await.unwrap(), Some(json("1")));
}

async fn an_encrypted_connection_is_verified() {
    let certificates = Certificates::make();
    let file = |name: &str| certificates.file(name);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let _server = Redis::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path("server.pem"),
        "--tls-key-file",
        &path("server.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
    ]);
    let connect = async |host: &str, files: TlsFiles| {
        let mut config = RedisConfig::new(host, port);
        config.tls = Tls::Verified(files);
        RedisCache::new(&config).unwrap().ping(&cx()).await
    };
    let mut trusting = TlsFiles::default();
    trusting.ca_file = Some(file("ca.pem"));
    let mut complete = trusting.clone();
    complete.cert_file = Some(file("client.pem"));
    complete.key_file = Some(file("client.key"));
    connect("localhost", complete.clone()).await.unwrap();

    let refused = connect("127.0.0.1", complete.clone()).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && !refused.is_transient(), "another name: {refused}");
    let refused = connect("localhost", TlsFiles::default()).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && !refused.is_transient(), "an unknown authority: {refused}");
    let refused = connect("localhost", trusting).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "no certificate of ours");
    complete.ca_file = Some(file("missing.pem"));
    let refused = connect("localhost", complete.clone()).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Config && refused.message().contains("missing.pem"), "{refused}");
    complete.ca_file = Some(file("ca.pem"));
    complete.key_file = None;
    let mut config = RedisConfig::new("localhost", port);
    config.tls = Tls::Verified(complete);
    assert_eq!(RedisCache::new(&config).unwrap_err().kind(), ErrorKind::Config);
}

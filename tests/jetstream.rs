//! What is special about the JetStream cache: its bucket, which others use too, and what an outage does to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agent_storage::backend::jetstream::JetstreamCache;
use agent_storage::config::{JetstreamConfig, NatsAuth, NatsServer, ReadFrom, Tls, TlsFiles};
use agent_storage::contract::{
    Attempt, CacheBackend, Context, Expiry, GetOptions, IncrementOptions, ListOptions, Lookup, Store, Write, WriteMode,
    WriteOp,
};
use agent_storage::testkit::{Direction, FaultProxy, NetworkFault, Point};
use agent_storage::{Clock, Error, ErrorKind, Format, HybridClock, Key, KeyPrefix, Outage, Revision, Ttl, Value};
use async_nats::jetstream::{self, kv};
use futures_util::StreamExt;
use support::process::wait_until;
use support::{Nats, Server, Suite};

fn main() -> ExitCode {
    let mut suite = Suite::new();
    macro_rules! tests {
        ($($name:ident),* $(,)?) => { $(suite.test(stringify!($name), &[Server::Nats], $name);)* };
    }
    tests![
        other_clients_read_our_values,
        values_of_other_clients_are_read,
        a_record_with_damaged_headers_is_an_error_for_its_key_alone,
        the_server_is_told_a_ttl_that_is_not_too_short,
        a_ttl_of_a_hundred_years_holds,
        every_key_has_its_own_entry,
        the_longest_key_of_the_worst_alphabet_is_stored,
        many_keys_are_read_at_once,
        many_large_values_are_read_at_once,
        large_values_that_are_overwritten_meanwhile_are_never_missing,
        an_expired_entry_that_is_still_stored_is_absent,
        a_write_over_an_expired_entry_is_a_creation,
        a_counter_keeps_its_expiry,
        counters_of_several_clients_lose_nothing,
        pages_end_where_they_say,
        a_reserved_subject_is_never_listed,
        an_aligned_prefix_clears_no_other,
        a_prefix_within_a_token_is_cleared,
        a_clear_that_broke_off_in_the_middle_is_not_said_to_have_done_nothing,
        the_server_limits_values,
        a_full_bucket_is_unavailable,
        several_clients_make_the_bucket_once,
        a_bucket_of_another_configuration_is_refused,
        a_bucket_that_is_missing_is_not_made_unasked,
        a_server_without_jetstream_is_refused,
        wrong_credentials_are_refused,
        a_server_that_is_down_is_unavailable_and_found_when_it_is_back,
        a_server_that_is_down_is_passed_over,
        a_write_of_an_outage_is_never_applied_later,
        a_frozen_server_leaves_nothing_behind,
        what_a_lost_connection_had_not_sent_is_gone,
        a_write_whose_answer_was_lost_is_looked_up,
        a_batch_whose_answers_were_lost_claims_nothing_that_is_not_so,
        a_put_that_is_too_large_fails_alone_in_its_batch,
        an_increment_whose_answer_was_lost_counts_once,
        what_arrives_late_changes_nothing,
        what_arrives_late_on_the_same_connection_is_deleted_too,
        a_delete_makes_sure_only_where_a_write_was_given_up,
        a_write_asks_the_leader_wherever_reads_go,
        a_fence_is_raised_once_a_connection,
        a_fence_that_is_gone_is_raised_anew,
        clearing_leaves_the_fence,
        a_full_bucket_can_be_emptied,
        a_fence_is_raised_when_a_full_bucket_has_room_again,
        a_bucket_that_stays_full_is_not_asked_for_a_fence_each_time,
        a_connection_is_shared_and_made_once,
        keys_that_are_overwritten_meanwhile_are_never_missing,
        keys_that_are_overwritten_meanwhile_are_counted_once,
        deletes_during_a_listing_break_nothing,
        a_prefix_of_few_keys_among_many_takes_few_requests,
        a_listing_whose_rest_was_cleared_ends_at_once,
        a_cursor_can_be_used_twice,
        a_denied_subject_is_said_so,
        an_encrypted_connection_is_verified,
        a_bucket_that_was_removed_is_made_anew,
        a_closed_cache_stays_closed,
    ];
    suite.run()
}

/// A bucket's name that no other test uses.
fn fresh_bucket() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn config_for(server: &Nats) -> JetstreamConfig {
    let mut config = JetstreamConfig::new(server.host(), server.port());
    config.bucket = fresh_bucket();
    config.connection_timeout = Duration::from_secs(2);
    config
}

fn open(config: &JetstreamConfig) -> JetstreamCache {
    JetstreamCache::new(config, Clock::system()).unwrap()
}

fn shared() -> (JetstreamConfig, JetstreamCache) {
    let config = config_for(Nats::shared());
    let cache = open(&config);
    (config, cache)
}

async fn context_of(config: &JetstreamConfig) -> jetstream::Context {
    let server = &config.servers[0];
    jetstream::new(async_nats::connect(format!("nats://{}:{}", server.host, server.port)).await.unwrap())
}

async fn bucket_of(config: &JetstreamConfig) -> kv::Store {
    context_of(config).await.get_key_value(&config.bucket).await.unwrap()
}

fn cx() -> Context {
    Context::with_timeout(Duration::from_secs(20))
}

fn within(millis: u64) -> Context {
    Context::with_timeout(Duration::from_millis(millis))
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn prefix(text: &str) -> KeyPrefix {
    KeyPrefix::parse(text).unwrap()
}

fn json(text: &str) -> Value {
    Value::json(text.to_owned()).unwrap()
}

fn put(name: &str, value: Value) -> Write {
    Write::put(key(name), value, HybridClock::process().issue())
}

fn put_with(name: &str, value: Value, mode: WriteMode, ttl: Option<Ttl>) -> Write {
    Write::new(key(name), WriteOp::Put { value, mode, ttl }, HybridClock::process().issue())
}

fn delete(name: &str) -> Write {
    Write::delete(key(name), HybridClock::process().issue())
}

async fn set(cache: &JetstreamCache, name: &str, value: &str) -> Revision {
    cache.write(put(name, json(value)), &cx()).await.unwrap().revision.unwrap()
}

async fn get(cache: &JetstreamCache, name: &str) -> Option<Value> {
    cache.get(&key(name), &GetOptions::default(), &cx()).await.unwrap().into_value()
}

async fn list(cache: &JetstreamCache, text: &str, limit: usize) -> Vec<String> {
    let mut options = ListOptions::default().with_limit(limit);
    let mut keys = Vec::new();
    loop {
        let page = cache.list(&prefix(text), &options, &cx()).await.unwrap();
        assert!(page.keys.len() <= limit);
        keys.extend(page.keys.iter().map(|key| key.as_str().to_owned()));
        match page.next {
            Some(cursor) => options = options.with_cursor(cursor),
            None => break,
        }
    }
    keys.sort();
    keys
}

async fn other_clients_read_our_values() {
    let (config, cache) = shared();
    set(&cache, "session:42", r#"{"a":1}"#).await;
    set(&cache, "gone", "1").await;
    assert_eq!(cache.write(delete("gone"), &cx()).await.unwrap().existed, Some(true));
    cache.ping(&cx()).await.unwrap();
    let bucket = bucket_of(&config).await;
    assert_eq!(bucket.get("session.42").await.unwrap().unwrap().as_ref(), br#"{"a":1}"#);
    assert_eq!(bucket.get("gone").await.unwrap(), None);
    let keys: Vec<String> = futures_util::TryStreamExt::try_collect(bucket.keys().await.unwrap()).await.unwrap();
    assert_eq!(keys, ["session.42"]);
}

async fn values_of_other_clients_are_read() {
    let (config, cache) = shared();
    cache.ping(&cx()).await.unwrap();
    let bucket = bucket_of(&config).await;
    bucket.put("user.1", "{\"n\": 1}".into()).await.unwrap();
    bucket.put("user.2", "plain text".into()).await.unwrap();
    bucket.put("user.3", "".into()).await.unwrap();
    bucket.put("user.4", "4".into()).await.unwrap();
    bucket.put("user.x=y", "no key of ours".into()).await.unwrap();
    bucket.delete("user.4").await.unwrap();
    assert_eq!(get(&cache, "user:1").await, Some(json("{\"n\": 1}")));
    assert_eq!(get(&cache, "user:2").await.unwrap().format(), Format::Binary);
    assert_eq!(get(&cache, "user:3").await, Some(Value::binary("").unwrap()));
    assert_eq!(get(&cache, "user:4").await, None);
    assert_eq!(list(&cache, "user:", 10).await, ["user:1", "user:2", "user:3"]);
    assert_eq!(cache.count(&prefix("user:"), &cx()).await.unwrap(), 3);
    bucket.put("counter", "41".into()).await.unwrap();
    assert_eq!(cache.increment(&key("counter"), 1, &IncrementOptions::default(), &cx()).await.unwrap(), 42);
    assert_eq!(bucket.get("counter").await.unwrap().unwrap().as_ref(), b"42");
}

async fn a_record_with_damaged_headers_is_an_error_for_its_key_alone() {
    let (config, cache) = shared();
    set(&cache, "a", "1").await;
    set(&cache, "c", "3").await;
    let context = context_of(&config).await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Agent-Storage-Expires", "soon");
    let publish = context.publish_with_headers(format!("$KV.{}.b", config.bucket), headers, "2".into()).await;
    publish.unwrap().await.unwrap();
    let answers = cache.get_many(&[key("a"), key("b"), key("c")], &GetOptions::default(), &cx()).await;
    assert!(answers[0].as_ref().unwrap().is_found() && answers[2].as_ref().unwrap().is_found());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(list(&cache, "", 10).await, ["a", "b", "c"]);
    set(&cache, "b", "2").await;
    assert_eq!(get(&cache, "b").await, Some(json("2")));
}

async fn the_server_is_told_a_ttl_that_is_not_too_short() {
    let (config, cache) = shared();
    for (name, millis, seconds) in [("short", 1, "2"), ("exact", 2000, "3"), ("fraction", 2001, "4")] {
        let ttl = Some(Ttl::from_millis(millis).unwrap());
        cache.write(put_with(name, json("1"), WriteMode::Upsert, ttl), &cx()).await.unwrap();
        let bucket = bucket_of(&config).await;
        let message = bucket.stream.get_last_raw_message_by_subject(&format!("$KV.{}.{name}", config.bucket)).await;
        assert_eq!(message.unwrap().headers.get("Nats-TTL").unwrap().as_str(), seconds);
    }
}

async fn a_ttl_of_a_hundred_years_holds() {
    let (_, cache) = shared();
    cache.write(put_with("long", json("1"), WriteMode::Upsert, Some(Ttl::MAX)), &cx()).await.unwrap();
    let found = cache.get(&key("long"), &GetOptions::default().with_expiry(), &cx()).await.unwrap();
    let Expiry::At(at) = found.into_entry().unwrap().expiry else { panic!("it has an expiry") };
    assert!(at.since(Clock::system().now()) > Ttl::MAX.as_duration() - Duration::from_secs(60));
}

async fn every_key_has_its_own_entry() {
    let (_, cache) = shared();
    let names = [
        "a:b",
        "a/b",
        "a.b",
        "a..b",
        "a::b",
        "a//b",
        ":a",
        "a:",
        "/a",
        "a/",
        ".",
        "..",
        "*",
        ">",
        "a b",
        "Ünï/😀",
        "50%",
        "=2E",
        "[x",
        "\\",
        "A:b",
    ];
    let writes = names.iter().enumerate().map(|(at, name)| put(name, json(&at.to_string()))).collect();
    for answer in cache.write_many(writes, &cx()).await {
        answer.unwrap();
    }
    for (at, name) in names.iter().enumerate() {
        assert_eq!(get(&cache, name).await, Some(json(&at.to_string())), "{name}");
    }
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    assert_eq!(list(&cache, "", 4).await, sorted);
    for text in ["a", "a:", "a/", "a::", "a.", "Ü", "*"] {
        let expected: Vec<&String> = sorted.iter().filter(|name| name.starts_with(text)).collect();
        assert_eq!(list(&cache, text, 3).await.iter().collect::<Vec<_>>(), expected, "{text}");
    }
}

async fn the_longest_key_of_the_worst_alphabet_is_stored() {
    let (_, cache) = shared();
    let (longest, other) = ("*".repeat(1024), format!("{}.", "*".repeat(1023)));
    set(&cache, &longest, "1").await;
    set(&cache, &other, "2").await;
    assert_eq!(get(&cache, &longest).await, Some(json("1")));
    let both = [key(&longest), key(&other), key("absent")];
    let answers = cache.get_many(&both, &GetOptions::default(), &cx()).await;
    let values: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().into_value()).collect();
    assert_eq!(values, [Some(json("1")), Some(json("2")), None]);
    assert_eq!(list(&cache, &"*".repeat(1024), 10).await, [longest]);
}

async fn many_keys_are_read_at_once() {
    let (_, cache) = shared();
    let writes = (0..3000).map(|number| match number % 3 {
        0 => put(&format!("k:{number}"), Value::binary("").unwrap()),
        _ => put(&format!("k:{number}"), json(&number.to_string())),
    });
    assert!(cache.write_many(writes.collect(), &cx()).await.iter().all(Result::is_ok));
    let deletes = (0..3000).filter(|number| number % 7 == 0).map(|number| delete(&format!("k:{number}")));
    assert!(cache.write_many(deletes.collect(), &cx()).await.iter().all(Result::is_ok));
    let keys: Vec<Key> = (0..6000).rev().map(|number| key(&format!("k:{}", number / 2))).collect();
    let answers = cache.get_many(&keys, &GetOptions::default(), &cx()).await;
    for (answer, number) in answers.into_iter().zip((0..6000).rev().map(|number| number / 2)) {
        let value = answer.unwrap().into_value();
        let expected = match number {
            _ if number % 7 == 0 => None,
            _ if number % 3 == 0 => Some(Value::binary("").unwrap()),
            _ => Some(json(&number.to_string())),
        };
        assert_eq!(value, expected, "{number}");
    }
    assert_eq!(cache.count(&prefix("k:"), &cx()).await.unwrap(), 3000 - 429);
}

async fn many_large_values_are_read_at_once() {
    let (_, cache) = shared();
    let large = Value::binary(vec![7; 1_000_000]).unwrap();
    let writes = (0..100).map(|number| put(&format!("{number}"), large.clone())).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    let keys: Vec<Key> = (0..100).map(|number| key(&format!("{number}"))).collect();
    for answer in cache.get_many(&keys, &GetOptions::default(), &cx()).await {
        assert_eq!(answer.unwrap().into_value().as_ref(), Some(&large));
    }
}

async fn large_values_that_are_overwritten_meanwhile_are_never_missing() {
    let (config, cache) = shared();
    let large = Value::binary(vec![7; 1_000_000]).unwrap();
    let names: Vec<String> = (0..100).map(|number| format!("{number}")).collect();
    let writes = names.iter().map(|name| put(name, large.clone())).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    let keys: Vec<Key> = names.iter().map(|name| key(name)).collect();
    let writer = open(&config);
    // They are more than one answer. First some of the last are overwritten before they are asked for, then many.
    for overwritten in [&names[95..], &names[50..]] {
        let writes = || overwritten.iter().map(|name| put(name, large.clone())).collect::<Vec<_>>();
        let reading = async {
            for _ in 0..4 {
                let answers = cache.get_many(&keys, &GetOptions::default(), &cx()).await;
                for (name, answer) in names.iter().zip(answers) {
                    assert!(answer.unwrap().is_found(), "{name}");
                }
            }
        };
        let writing = async {
            loop {
                assert!(writer.write_many(writes(), &cx()).await.iter().all(Result::is_ok));
            }
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    }
}

async fn an_expired_entry_that_is_still_stored_is_absent() {
    let config = config_for(Nats::shared());
    let clock = Clock::manual();
    let cache = JetstreamCache::new(&config, clock.clone()).unwrap();
    let ttl = Some(Ttl::from_secs(60).unwrap());
    let ack = cache.write(put_with("a", json("1"), WriteMode::Upsert, ttl), &cx()).await.unwrap();
    set(&cache, "b", "2").await;
    clock.advance(Duration::from_secs(60));
    assert_eq!(get(&cache, "a").await, None);
    assert_eq!(
        cache.exists(&[key("a"), key("b")], &cx()).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap(),
        [false, true]
    );
    assert_eq!(list(&cache, "", 10).await, ["b"]);
    assert_eq!(cache.count(&prefix(""), &cx()).await.unwrap(), 1);
    let update = put_with("a", json("2"), WriteMode::Update(ack.revision.unwrap()), None);
    assert!(cache.write(update, &cx()).await.unwrap_err().is_conflict());
    let remove = Write::new(key("a"), WriteOp::Delete { only_if: ack.revision }, HybridClock::process().issue());
    assert!(cache.write(remove, &cx()).await.unwrap_err().is_conflict());
    assert_eq!(cache.write(delete("a"), &cx()).await.unwrap().existed, Some(false));
    let touch = Write::new(key("a"), WriteOp::Touch { ttl: None }, HybridClock::process().issue());
    assert_eq!(cache.write(touch, &cx()).await.unwrap().existed, Some(false));
    assert_eq!(get(&cache, "a").await, None);
}

async fn a_write_over_an_expired_entry_is_a_creation() {
    let config = config_for(Nats::shared());
    let clock = Clock::manual();
    let cache = JetstreamCache::new(&config, clock.clone()).unwrap();
    let ttl = Some(Ttl::from_secs(60).unwrap());
    cache.write(put_with("a", json("1"), WriteMode::Create, ttl), &cx()).await.unwrap();
    assert!(cache.write(put_with("a", json("2"), WriteMode::Create, ttl), &cx()).await.unwrap_err().is_conflict());
    clock.advance(Duration::from_secs(60));
    cache.write(put_with("a", json("3"), WriteMode::Create, ttl), &cx()).await.unwrap();
    assert_eq!(get(&cache, "a").await, Some(json("3")));
    cache.write(delete("a"), &cx()).await.unwrap();
    cache.write(put_with("a", json("4"), WriteMode::Create, None), &cx()).await.unwrap();
    assert_eq!(get(&cache, "a").await, Some(json("4")));
}

async fn a_counter_keeps_its_expiry() {
    let config = config_for(Nats::shared());
    let clock = Clock::manual();
    let cache = JetstreamCache::new(&config, clock.clone()).unwrap();
    let options = IncrementOptions::default().with_ttl(Ttl::from_secs(60).unwrap());
    assert_eq!(cache.increment(&key("n"), 2, &options, &cx()).await.unwrap(), 2);
    clock.advance(Duration::from_secs(59));
    assert_eq!(cache.increment(&key("n"), 2, &options, &cx()).await.unwrap(), 4);
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.increment(&key("n"), 2, &options, &cx()).await.unwrap(), 2);
}

async fn counters_of_several_clients_lose_nothing() {
    let (config, _) = shared();
    let caches: Vec<Arc<JetstreamCache>> = (0..4).map(|_| Arc::new(open(&config))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let cache = Arc::clone(&caches[number % caches.len()]);
        tasks.spawn(async move {
            for _ in 0..10 {
                cache.increment(&key("n"), 1, &IncrementOptions::default(), &cx()).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(get(&caches[0], "n").await, Some(json("400")));
}

async fn pages_end_where_they_say() {
    let (_, cache) = shared();
    let writes = (0..2500).map(|number| put(&format!("p:{number:04}"), json("1"))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    let expected: Vec<String> = (0..2500).map(|number| format!("p:{number:04}")).collect();
    for limit in [1000, 2500, 999, 10_000] {
        assert_eq!(list(&cache, "p:", limit).await, expected);
    }
    assert_eq!(list(&cache, "p:0", 300).await.len(), 1000);
    let options = ListOptions::default().with_cursor(agent_storage::contract::Cursor::new("nonsense"));
    let error = cache.list(&prefix("p:"), &options, &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
}

async fn a_reserved_subject_is_never_listed() {
    let (_, cache) = shared();
    let ping = cache.ping(&cx()).await.unwrap();
    assert!(ping.server_version.unwrap().starts_with("2."));
    assert!(list(&cache, "", 10).await.is_empty());
    assert_eq!(cache.count(&prefix(""), &cx()).await.unwrap(), 0);
}

async fn an_aligned_prefix_clears_no_other() {
    let (_, cache) = shared();
    for name in ["a:b", "a:", "a/b", "a", "ab", "a.b", "b"] {
        set(&cache, name, "1").await;
    }
    cache.clear(&prefix("a:"), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap();
    assert_eq!(list(&cache, "", 10).await, ["a", "a.b", "a/b", "ab", "b"]);
    cache.clear(&prefix(""), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap();
    assert!(list(&cache, "", 10).await.is_empty());
}

async fn a_prefix_within_a_token_is_cleared() {
    let (_, cache) = shared();
    let writes = (0..1500).map(|number| put(&format!("key{number}"), json("1")));
    let others = ["ke", "other", "ke:y"].into_iter().map(|name| put(name, json("1")));
    assert!(cache.write_many(writes.chain(others).collect(), &cx()).await.iter().all(Result::is_ok));
    let cleared = cache.clear(&prefix("key"), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap();
    assert_eq!(cleared, Some(1500));
    assert_eq!(list(&cache, "", 10).await, ["ke", "ke:y", "other"]);
}

async fn a_clear_that_broke_off_in_the_middle_is_not_said_to_have_done_nothing() {
    let (proxy, cache) = behind_a_proxy(Nats::shared()).await;
    let writes = (0..1500).map(|number| put(&format!("p:key{number}"), json("1"))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    // It deletes 1024 keys, and then asks for the rest.
    let rest = NetworkFault::CutAt(Direction::ToServer, Point::Pattern(b"\"batch\":476".to_vec()));
    proxy.set_once(rest).await.unwrap();
    let error = cache.clear(&prefix("p:key"), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap_err();
    assert_eq!((error.kind(), proxy.hits()), (ErrorKind::OutcomeUnknown, 1));
    assert_eq!(cache.count(&prefix("p:key"), &cx()).await.unwrap(), 476);
}

async fn the_server_limits_values() {
    let server = Nats::start(true, "max_payload: 64KB");
    let cache = open(&config_for(&server));
    assert_eq!(cache.capabilities().max_value_bytes, (1 << 20) - 512);
    cache.ping(&cx()).await.unwrap();
    let limit = cache.capabilities().max_value_bytes;
    assert_eq!(limit, (64 << 10) - 512);
    let ttl = Some(Ttl::MAX);
    let largest = Value::binary(vec![1; limit]).unwrap();
    cache.write(put_with("a", largest.clone(), WriteMode::Create, ttl), &cx()).await.unwrap();
    assert_eq!(get(&cache, "a").await, Some(largest));
    let error = cache.write(put("b", Value::binary(vec![1; limit + 1]).unwrap()), &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(get(&cache, "b").await, None);
    let mut config = config_for(&server);
    config.max_value_bytes = Some(1000);
    let cache = open(&config);
    cache.write(put_with("a", Value::binary(vec![1; 1000]).unwrap(), WriteMode::Create, ttl), &cx()).await.unwrap();
    let error = cache.write(put("b", Value::binary(vec![1; 1001]).unwrap()), &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

async fn a_full_bucket_is_unavailable() {
    let mut config = config_for(Nats::shared());
    config.max_bytes = Some(10_000);
    let cache = open(&config);
    set(&cache, "kept", "1").await;
    let error = async {
        for number in 0..100 {
            cache.write(put(&format!("{number}"), Value::binary(vec![1; 1000]).unwrap()), &cx()).await?;
        }
        Ok::<(), Error>(())
    };
    let error = error.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("full"), "{error}");
    assert_eq!(get(&cache, "kept").await, Some(json("1")));
}

async fn several_clients_make_the_bucket_once() {
    let config = config_for(Nats::shared());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let cache = open(&config);
        tasks.spawn(async move {
            set(&cache, &format!("{number}"), "1").await;
        });
    }
    tasks.join_all().await;
    assert_eq!(open(&config).count(&prefix(""), &cx()).await.unwrap(), 16);
}

async fn a_bucket_of_another_configuration_is_refused() {
    let server = Nats::shared();
    let context = context_of(&config_for(server)).await;
    let mut config = config_for(server);
    let theirs = kv::Config { bucket: config.bucket.clone(), history: 5, ..kv::Config::default() };
    context.create_key_value(theirs).await.unwrap();
    let error = open(&config).ping(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("history is 5, not 1") && error.message().contains("allow_msg_ttl"), "{error}");
    config.bucket = fresh_bucket();
    let theirs = kv::Config {
        bucket: config.bucket.clone(),
        history: 1,
        limit_markers: Some(Duration::from_secs(5)),
        description: "somebody else's".to_owned(),
        ..kv::Config::default()
    };
    context.create_key_value(theirs).await.unwrap();
    open(&config).ping(&cx()).await.unwrap();
    config.max_bytes = Some(1_000_000);
    let error = open(&config).ping(&cx()).await.unwrap_err();
    assert!(error.message().contains("max_bytes is unlimited, not 1000000"), "{error}");
}

async fn a_bucket_that_is_missing_is_not_made_unasked() {
    let mut config = config_for(Nats::shared());
    config.create_bucket = false;
    let error = open(&config).ping(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains(&config.bucket) && !error.is_transient());
}

async fn a_server_without_jetstream_is_refused() {
    let server = Nats::start(false, "");
    let error = open(&config_for(&server)).ping(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("JetStream"), "{error}");
}

async fn wrong_credentials_are_refused() {
    let server = Nats::start(true, "authorization { user: ann, password: \"right one\" }");
    let mut config = config_for(&server);
    let user = |password: &str| NatsAuth::User { username: "ann".to_owned(), password: password.to_owned().into() };
    for auth in [NatsAuth::None, user("wrong one"), NatsAuth::Token("wrong one".to_owned().into())] {
        config.auth = auth;
        let error = open(&config).ping(&cx()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.is_transient() && error.message().contains("credentials"), "{error}");
        assert!(!format!("{error} {error:?}").contains("wrong one"));
    }
    config.auth = NatsAuth::NkeySeed("not a seed".to_owned().into());
    assert!(!open(&config).ping(&cx()).await.unwrap_err().is_transient());
    config.auth = user("right one");
    let cache = open(&config);
    cache.ping(&cx()).await.unwrap();
    assert!(!format!("{cache:?}").contains("right one"));
}

async fn a_server_that_is_down_is_unavailable_and_found_when_it_is_back() {
    let server = Nats::start(true, "");
    let cache = open(&config_for(&server));
    set(&cache, "a", "1").await;
    server.kill();
    let read = || async { cache.get(&key("a"), &GetOptions::default(), &within(1000)).await.unwrap_err() };
    // Who asks while the connection breaks loses the reply only; whoever comes after that is refused.
    let first = read().await;
    assert!(first.kind() == ErrorKind::Unavailable && first.outage().is_some(), "{first}");
    for _ in 0..3 {
        let error = read().await;
        assert!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
        assert_eq!(error.outage(), Some(Outage::Down), "{error}");
        let error = cache.list(&prefix(""), &ListOptions::default(), &within(1000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    server.restart();
    assert_eq!(get(&cache, "a").await, Some(json("1")));
}

async fn a_server_that_is_down_is_passed_over() {
    let server = Nats::start(true, "");
    let mut config = config_for(Nats::shared());
    config.servers.insert(0, NatsServer::new(server.host(), server.port()));
    server.kill();
    let cache = open(&config);
    set(&cache, "a", "1").await;
    assert_eq!(get(&cache, "a").await, Some(json("1")));
}

async fn a_write_of_an_outage_is_never_applied_later() {
    let server = Nats::start(true, "");
    let cache = Arc::new(open(&config_for(&server)));
    set(&cache, "before", "1").await;
    server.kill();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..500 {
        let cache = Arc::clone(&cache);
        tasks.spawn(async move { cache.write(put(&format!("late:{number}"), json("1")), &within(300)).await });
    }
    let outcomes = tasks.join_all().await;
    let unapplied = outcomes.iter().filter(|outcome| {
        matches!(outcome, Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown))
    });
    assert_eq!(unapplied.count(), 500);
    server.restart();
    assert_eq!(get(&cache, "before").await, Some(json("1")));
    // A marker sent after anything that could be left has been answered.
    set(&cache, "after", "1").await;
    assert_eq!(list(&cache, "", 1000).await, ["after", "before"]);
}

async fn a_frozen_server_leaves_nothing_behind() {
    let server = Nats::start(true, "");
    let cache = Arc::new(open(&config_for(&server)));
    set(&cache, "a", "1").await;
    server.freeze();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let cache = Arc::clone(&cache);
        tasks.spawn(async move {
            let context = within(300);
            match number % 4 {
                0 => cache.get(&key("a"), &GetOptions::default(), &context).await.map(|_| ()),
                1 => cache.write(put("b", json("1")), &context).await.map(|_| ()),
                2 => cache.list(&prefix(""), &ListOptions::default(), &context).await.map(|_| ()),
                _ => {
                    let both = cache.get_many(&[key("a"), key("b")], &GetOptions::default(), &context).await;
                    both.into_iter().collect::<Result<Vec<Lookup>, _>>().map(|_| ())
                }
            }
        });
    }
    for outcome in tasks.join_all().await {
        assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown));
    }
    assert_eq!(cache.ping(&within(100)).await.unwrap_err().outage(), Some(Outage::Silent));
    server.thaw();
    set(&cache, "b", "2").await;
    let writes = (0..1000).map(|number| put(&format!("n:{number}"), json("1"))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    assert_eq!(cache.count(&prefix(""), &cx()).await.unwrap(), 1002);
    assert_eq!(get(&cache, "b").await, Some(json("2")));
    cache.close(&cx()).await.unwrap();
}

/// A cache that reaches its server through a proxy.
async fn behind_a_proxy(server: &Nats) -> (FaultProxy, Arc<JetstreamCache>) {
    let proxy = FaultProxy::start((server.host().parse::<IpAddr>().unwrap(), server.port()).into()).await.unwrap();
    let mut config = config_for(server);
    config.servers = vec![NatsServer::new(proxy.address().ip().to_string(), proxy.address().port())];
    (proxy, Arc::new(open(&config)))
}

async fn what_a_lost_connection_had_not_sent_is_gone() {
    let (proxy, cache) = behind_a_proxy(Nats::shared()).await;
    set(&cache, "before", "1").await;
    proxy.set(NetworkFault::Stall).await.unwrap();
    // More than sockets and buffers hold, so that some is still with the client.
    let large = Value::binary(vec![7; 900_000]).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (cache, large) = (Arc::clone(&cache), large.clone());
        tasks.spawn(async move { cache.write(put(&format!("late:{number}"), large), &within(300)).await });
    }
    for outcome in tasks.join_all().await {
        assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown));
    }
    proxy.reset().await;
    proxy.set(NetworkFault::Pass).await.unwrap();
    // The client may hear of the reset only by its next write.
    while cache.write(put("after", json("1")), &cx()).await.is_err() {}
    assert_eq!(list(&cache, "", 1000).await, ["after", "before"]);
}

async fn a_write_whose_answer_was_lost_is_looked_up() {
    let (proxy, cache) = behind_a_proxy(Nats::shared()).await;
    set(&cache, "a", "1").await;
    let acknowledgement = NetworkFault::CutAt(Direction::ToClient, Point::Pattern(b"\"seq\":".to_vec()));
    let revision = cache.get(&key("a"), &GetOptions::default(), &cx()).await.unwrap().into_entry().unwrap().revision;
    let writes = [
        put("a", json("2")),
        put_with("b", json("3"), WriteMode::Create, None),
        delete("b"),
        put_with("a", json("4"), WriteMode::Update(revision), None),
    ];
    for (hits, write) in (1..).zip(writes) {
        // The first write of a connection raises its fence, whose answer is not the one to lose.
        set(&cache, "other", "1").await;
        proxy.set_once(acknowledgement.clone()).await.unwrap();
        let outcome = cache.write(write, &cx()).await;
        if hits == 4 {
            // The first write took that revision away; nothing is acknowledged, so nothing is cut.
            assert!(outcome.unwrap_err().is_conflict());
        } else {
            outcome.unwrap();
            assert_eq!(proxy.hits(), hits);
        }
    }
    assert_eq!(get(&cache, "a").await, Some(json("2")));
    assert_eq!(get(&cache, "b").await, None);
}

async fn a_batch_whose_answers_were_lost_claims_nothing_that_is_not_so() {
    let (proxy, cache) = behind_a_proxy(Nats::shared()).await;
    // The first write of a connection raises its fence, whose answer is not the one to lose.
    set(&cache, "other", "1").await;
    let acknowledgement = NetworkFault::CutAt(Direction::ToClient, Point::Pattern(b"\"seq\":".to_vec()));
    proxy.set_once(acknowledgement).await.unwrap();
    let names: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
    let answers = cache.write_many(names.iter().map(|name| put(name, json("7"))).collect(), &cx()).await;
    assert_eq!(proxy.hits(), 1);
    assert!(answers.iter().any(Result::is_ok), "what was stored is found by its stamp");
    for (name, answer) in names.iter().zip(answers) {
        match answer {
            Ok(ack) => {
                let found = cache.get(&key(name), &GetOptions::default(), &cx()).await.unwrap().into_entry().unwrap();
                assert_eq!((Some(found.revision), found.value), (ack.revision, json("7")));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}"),
        }
    }
}

async fn a_put_that_is_too_large_fails_alone_in_its_batch() {
    let (_, cache) = shared();
    let large = Value::binary(vec![7; 2 << 20]).unwrap();
    let answers = cache.write_many(vec![put("a", json("1")), put("b", large), put("c", json("3"))], &cx()).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!((get(&cache, "a").await, get(&cache, "c").await), (Some(json("1")), Some(json("3"))));
    assert_eq!(get(&cache, "b").await, None);
}

async fn an_increment_whose_answer_was_lost_counts_once() {
    let (proxy, cache) = behind_a_proxy(Nats::shared()).await;
    cache.ping(&cx()).await.unwrap();
    let acknowledgement = NetworkFault::CutAt(Direction::ToClient, Point::Pattern(b"\"seq\":".to_vec()));
    for count in 1..=3 {
        // Raises the fence of the connection, whose answer is not the one to lose.
        set(&cache, "other", "1").await;
        proxy.set_once(acknowledgement.clone()).await.unwrap();
        assert_eq!(cache.increment(&key("n"), 1, &IncrementOptions::default(), &cx()).await.unwrap(), count);
    }
    assert_eq!((proxy.hits(), get(&cache, "n").await), (3, Some(json("3"))));
}

/// A cache whose first connections can be held up, and whose later ones then go past that.
async fn beside_a_proxy() -> (FaultProxy, Arc<JetstreamCache>) {
    let server = Nats::shared();
    let proxy = FaultProxy::start((server.host().parse::<IpAddr>().unwrap(), server.port()).into()).await.unwrap();
    let mut config = config_for(server);
    config.connection_timeout = Duration::from_millis(500);
    config.servers.insert(0, NatsServer::new(proxy.address().ip().to_string(), proxy.address().port()));
    (proxy, Arc::new(open(&config)))
}

async fn what_arrives_late_changes_nothing() {
    let (proxy, cache) = beside_a_proxy().await;
    for name in ["put", "deleted", "touched", "counted", "updated"] {
        set(&cache, name, "1").await;
    }
    proxy.set(NetworkFault::Stall).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for name in ["put", "deleted", "touched", "counted", "updated", "absent", "cleared:put"] {
        let cache = Arc::clone(&cache);
        tasks.spawn(async move { cache.write(put(name, json("2")), &within(300)).await.map(|_| ()) });
    }
    for outcome in tasks.join_all().await {
        assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown));
    }
    // The client gives the connection up, and makes another.
    let found = loop {
        if let Ok(found) = cache.get(&key("updated"), &GetOptions::default(), &cx()).await {
            break found;
        }
    };
    let update = WriteMode::Update(found.into_entry().unwrap().revision);
    cache.write(put_with("updated", json("3"), update, None), &cx()).await.unwrap();
    set(&cache, "put", "3").await;
    assert_eq!(cache.write(delete("deleted"), &cx()).await.unwrap().existed, Some(true));
    assert_eq!(cache.write(delete("absent"), &cx()).await.unwrap().existed, Some(false));
    cache.clear(&prefix("cleared:"), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap();
    let touch = Write::new(key("touched"), WriteOp::Touch { ttl: None }, HybridClock::process().issue());
    assert_eq!(cache.write(touch, &cx()).await.unwrap().existed, Some(true));
    assert_eq!(cache.increment(&key("counted"), 2, &IncrementOptions::default(), &cx()).await.unwrap(), 3);
    // Only now the server receives what the first connection sent.
    proxy.set(NetworkFault::Pass).await.unwrap();
    assert!(wait_until(|| proxy.open() == 0));
    set(&cache, "after", "1").await;
    assert_eq!(list(&cache, "", 100).await, ["after", "counted", "put", "touched", "updated"]);
    for (name, value) in [("put", "3"), ("touched", "1"), ("counted", "3"), ("updated", "3")] {
        assert_eq!(get(&cache, name).await, Some(json(value)), "{name}");
    }
}

async fn what_arrives_late_on_the_same_connection_is_deleted_too() {
    let (proxy, cache) = behind_a_proxy(Nats::shared()).await;
    for round in 0..8 {
        let deleted = format!("deleted:{round}");
        set(&cache, "other", "1").await;
        proxy.set(NetworkFault::Stall).await.unwrap();
        let mut given_up: Vec<Write> = (0..500).map(|number| put(&format!("cleared{number}"), json("1"))).collect();
        given_up.push(put(&deleted, json("1")));
        for answer in cache.write_many(given_up, &within(200)).await {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        }
        let removing = {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move {
                let (all, stamp, context) = (prefix("clea"), HybridClock::process().issue(), cx());
                tokio::join!(
                    cache.write(delete(&deleted), &context),
                    cache.clear(&all, stamp, Attempt::First, &context)
                )
            })
        };
        // Until they have been sent, and stand right behind what was given up.
        assert!(cache.get(&key("other"), &GetOptions::default(), &within(50)).await.is_err());
        proxy.set(NetworkFault::Pass).await.unwrap();
        let (deleted, cleared) = removing.await.unwrap();
        assert_eq!((deleted.unwrap().existed, cleared.unwrap()), (Some(true), Some(500)), "round {round}");
        // The server has stored by now what came before this.
        set(&cache, "other", "1").await;
        assert_eq!(list(&cache, "", 1000).await, ["other"], "round {round}");
    }
    assert_eq!(proxy.accepted(), 1);
}

async fn a_delete_makes_sure_only_where_a_write_was_given_up() {
    let (proxy, cache) = behind_a_proxy(Nats::shared()).await;
    let absent = async || assert_eq!(cache.write(delete("absent"), &cx()).await.unwrap().existed, Some(false));
    // The sequences in between are those of messages that are stored beside the writes.
    let before = set(&cache, "a", "1").await.to_sequence().unwrap();
    absent().await;
    assert_eq!(set(&cache, "a", "2").await.to_sequence(), Some(before + 1));
    proxy.set(NetworkFault::Stall).await.unwrap();
    assert_eq!(cache.write(put("a", json("3")), &within(200)).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    proxy.set(NetworkFault::Pass).await.unwrap();
    for _ in 0..3 {
        absent().await;
    }
    // That which was given up, and one message for all three deletes.
    assert_eq!(set(&cache, "a", "4").await.to_sequence(), Some(before + 4));
}

/// Two servers that hold their buckets together.
fn cluster() -> [Nats; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
    let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
    ports.map(|port| {
        let listen = format!("listen: \"127.0.0.1:{port}\", routes: [{routes}]");
        Nats::start(true, &format!("server_name: node-{port}\ncluster {{ name: test, {listen} }}"))
    })
}

async fn a_write_asks_the_leader_wherever_reads_go() {
    let [first, _second] = cluster();
    let mut config = config_for(&first);
    (config.replicas, config.reads) = (2, ReadFrom::Direct);
    let cache = open(&config);
    let opening = Context::with_timeout(Duration::from_secs(60));
    // The servers have yet to elect their leaders.
    while !opening.is_expired() && cache.write(put("deleted", json("1")), &cx()).await.is_err() {}
    let watcher = async_nats::connect(first.url()).await.unwrap();
    let direct = format!("$JS.API.DIRECT.GET.KV_{}.", config.bucket);
    let mut asked = watcher.subscribe(format!("{direct}>")).await.unwrap();
    watcher.flush().await.unwrap();

    let revision = set(&cache, "updated", "1").await;
    cache.write(put_with("updated", json("2"), WriteMode::Update(revision), None), &cx()).await.unwrap();
    let taken = cache.write(put_with("updated", json("3"), WriteMode::Create, None), &cx()).await;
    assert!(taken.unwrap_err().is_conflict());
    let touch = Write::new(key("updated"), WriteOp::Touch { ttl: None }, HybridClock::process().issue());
    assert_eq!(cache.write(touch, &cx()).await.unwrap().existed, Some(true));
    assert_eq!(cache.write(delete("deleted"), &cx()).await.unwrap().existed, Some(true));
    assert_eq!(cache.increment(&key("counted"), 2, &IncrementOptions::default(), &cx()).await.unwrap(), 2);
    // The first that any replica was asked for is what is read, not what was written.
    cache.get(&key("read"), &GetOptions::default(), &cx()).await.unwrap();
    assert_eq!(asked.next().await.unwrap().subject.as_str(), format!("{direct}$KV.{}.read", config.bucket));
}

/// The sequences of the fences in a bucket.
async fn fences(config: &JetstreamConfig) -> Vec<u64> {
    let bucket = bucket_of(config).await;
    let subjects = bucket.stream.info_with_subjects(format!("$KV.{}.=fence.>", config.bucket)).await.unwrap();
    let subjects: Vec<String> =
        futures_util::TryStreamExt::try_collect(futures_util::TryStreamExt::map_ok(subjects, |(subject, _)| subject))
            .await
            .unwrap();
    let mut sequences = Vec::new();
    for subject in subjects {
        let message = bucket.stream.get_last_raw_message_by_subject(&subject).await.unwrap();
        assert_eq!(message.headers.get("Nats-TTL").unwrap().as_str(), "3600");
        sequences.push(message.sequence);
    }
    sequences
}

async fn a_fence_is_raised_once_a_connection() {
    let (config, cache) = shared();
    assert_eq!(get(&cache, "a").await, None);
    assert!(fences(&config).await.is_empty());
    let writes = (0..500).map(|number| put(&format!("{number}"), json("1"))).collect();
    let answers = cache.write_many(writes, &cx()).await;
    let mut revisions: Vec<u64> =
        answers.into_iter().map(|answer| answer.unwrap().revision.unwrap().to_sequence().unwrap()).collect();
    revisions.sort_unstable();
    // One message for the fence, one that stays behind it, one for each write, and none that was sent twice.
    let fences = fences(&config).await;
    let [fence] = fences[..] else { panic!("{fences:?}") };
    let behind = bucket_of(&config).await.stream.get_raw_message(fence + 1).await.unwrap();
    assert!(behind.subject.contains(".=behind."), "{}", behind.subject);
    assert_eq!(revisions, (fence + 2..fence + 502).collect::<Vec<_>>());
    set(&open(&config), "b", "1").await;
    assert_eq!(self::fences(&config).await.len(), 2);
}

async fn a_fence_that_is_gone_is_raised_anew() {
    let (config, cache) = shared();
    set(&cache, "a", "1").await;
    let purge = async || {
        context_of(&config).await.get_stream(format!("KV_{}", config.bucket)).await.unwrap().purge().await.unwrap();
    };
    purge().await;
    set(&cache, "a", "2").await;
    purge().await;
    let writes = (0..500).map(|number| put(&format!("{number}"), json("1"))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    assert_eq!(cache.count(&prefix(""), &cx()).await.unwrap(), 500);
    assert_eq!(fences(&config).await.len(), 1);
    // Somebody writes there what is no fence of ours.
    let bucket = bucket_of(&config).await;
    let stolen = bucket.stream.get_raw_message(fences(&config).await[0]).await.unwrap().subject;
    context_of(&config).await.publish(stolen.to_string(), "x".into()).await.unwrap().await.unwrap();
    set(&cache, "a", "3").await;
    assert_eq!(get(&cache, "a").await, Some(json("3")));
}

async fn clearing_leaves_the_fence() {
    let (config, cache) = shared();
    let other = open(&config);
    set(&cache, "a", "1").await;
    set(&other, "b", "1").await;
    cache.clear(&prefix(""), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap();
    let fence = fences(&config).await;
    assert_eq!(fence.len(), 1);
    // Behind the message that was stored with it.
    assert_eq!(set(&cache, "a", "2").await.to_sequence(), Some(fence[0] + 2));
    set(&other, "b", "2").await;
    assert_eq!(list(&cache, "", 10).await, ["a", "b"]);
}

async fn a_full_bucket_can_be_emptied() {
    let mut config = config_for(Nats::shared());
    config.max_bytes = Some(10_000);
    let cache = open(&config);
    set(&cache, "a", "1").await;
    for size in [1000, 100, 10, 1] {
        for number in 0..100 {
            let value = Value::binary(vec![1; size]).unwrap();
            if cache.write(put(&format!("{size}:{number}"), value), &cx()).await.is_err() {
                break;
            }
        }
    }
    // A cache that has no fence yet finds no room for it. What it puts without one is smaller, and might find some.
    let other = open(&config);
    let large = put("large", Value::binary(vec![1; 1000]).unwrap());
    assert_eq!(other.write(large, &cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(other.write(delete("a"), &cx()).await.unwrap().existed, Some(true));
    other.clear(&prefix(""), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap();
    set(&other, "b", "1").await;
    set(&cache, "a", "1").await;
    assert_eq!(list(&cache, "", 100).await, ["a", "b"]);
}

/// A bucket that somebody else has filled to the last byte, so that a new cache finds no room for its fence.
async fn full_bucket() -> (JetstreamConfig, JetstreamCache) {
    let mut config = config_for(Nats::shared());
    config.max_bytes = Some(10_000);
    let cache = open(&config);
    cache.ping(&cx()).await.unwrap();
    let context = context_of(&config).await;
    for number in 0.. {
        let subject = format!("$KV.{}.{number}", config.bucket);
        let headers = async_nats::HeaderMap::new();
        if context.publish_with_headers(subject, headers, vec![1; 30].into()).await.unwrap().await.is_err() {
            break;
        }
    }
    (config, cache)
}

/// Whether the last message of a key was stored behind a fence.
async fn is_fenced(config: &JetstreamConfig, name: &str) -> bool {
    let subject = format!("$KV.{}.{name}", config.bucket);
    let message = bucket_of(config).await.stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    message.headers.get("Nats-Expected-Last-Subject-Sequence").is_some()
}

async fn a_fence_is_raised_when_a_full_bucket_has_room_again() {
    let room_by_others = async |config: &JetstreamConfig, _: &JetstreamCache| {
        let stream = context_of(config).await.get_stream(format!("KV_{}", config.bucket)).await.unwrap();
        stream.purge().await.unwrap();
    };
    let (config, cache) = full_bucket().await;
    assert!(cache.write(put("a", json("1")), &cx()).await.is_err());
    room_by_others(&config, &cache).await;
    // What nobody tells it of, it finds after a while.
    let patience = cx();
    loop {
        set(&cache, "a", "1").await;
        if is_fenced(&config, "a").await {
            break;
        }
        assert!(!patience.is_expired(), "it never raises its fence");
    }
    let (config, cache) = full_bucket().await;
    assert!(cache.write(put("a", json("1")), &cx()).await.is_err());
    cache.clear(&prefix(""), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap();
    set(&cache, "a", "1").await;
    assert!(is_fenced(&config, "a").await);
}

async fn a_bucket_that_stays_full_is_not_asked_for_a_fence_each_time() {
    let (config, cache) = full_bucket().await;
    let watcher = async_nats::connect(Nats::shared().url()).await.unwrap();
    let mut raised = watcher.subscribe(format!("$KV.{}.=fence.>", config.bucket)).await.unwrap();
    watcher.flush().await.unwrap();
    let began = std::time::Instant::now();
    for _ in 0..300 {
        assert!(cache.write(put("a", json("1")), &cx()).await.is_err());
    }
    let seconds = began.elapsed().as_secs();
    watcher.publish(format!("$KV.{}.=fence.end", config.bucket), "".into()).await.unwrap();
    let mut count = 0;
    while !raised.next().await.unwrap().subject.ends_with(".end") {
        count += 1;
    }
    assert!((1..=2 + seconds).contains(&count), "{count} times");
}

async fn a_connection_is_shared_and_made_once() {
    let (proxy, cache) = behind_a_proxy(Nats::shared()).await;
    assert_eq!(proxy.accepted(), 0);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let cache = Arc::clone(&cache);
        tasks.spawn(async move { set(&cache, &format!("{number}"), "1").await });
    }
    tasks.join_all().await;
    assert_eq!(proxy.accepted(), 1);
    cache.close(&cx()).await.unwrap();
    drop(cache);
    assert!(wait_until(|| proxy.open() == 0));
}

async fn keys_that_are_overwritten_meanwhile_are_never_missing() {
    let (config, cache) = shared();
    let names: Vec<String> = (0..50).map(|number| format!("hot:{number}")).collect();
    let writes = || names.iter().map(|name| put(name, json("1"))).collect::<Vec<_>>();
    cache.write_many(writes(), &cx()).await;
    let writer = open(&config);
    let keys: Vec<Key> = names.iter().map(|name| key(name)).collect();
    let reading = async {
        for _ in 0..200 {
            for answer in cache.get_many(&keys, &GetOptions::default(), &cx()).await {
                assert!(answer.unwrap().is_found());
            }
        }
    };
    let writing = async {
        loop {
            assert!(writer.write_many(writes(), &cx()).await.iter().all(Result::is_ok));
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

async fn keys_that_are_overwritten_meanwhile_are_counted_once() {
    let (config, cache) = shared();
    let writes = || (0..2000).map(|number| put(&format!("hot:{number}"), json("1"))).collect::<Vec<_>>();
    assert!(cache.write_many(writes(), &cx()).await.iter().all(Result::is_ok));
    let writer = open(&config);
    let counting = async {
        for _ in 0..20 {
            assert_eq!(cache.count(&prefix("hot:"), &cx()).await.unwrap(), 2000);
        }
    };
    let writing = async {
        loop {
            assert!(writer.write_many(writes(), &cx()).await.iter().all(Result::is_ok));
        }
    };
    tokio::select! {
        () = counting => {}
        () = writing => {}
    }
}

async fn deletes_during_a_listing_break_nothing() {
    let (_, cache) = shared();
    let writes = (0..3000).map(|number| put(&format!("{}:{number}", ["keep", "drop"][number % 2]), json("1")));
    assert!(cache.write_many(writes.collect(), &cx()).await.iter().all(Result::is_ok));
    let mut options = ListOptions::default().with_limit(100);
    let mut kept = std::collections::BTreeSet::new();
    let mut dropped = (0..3000).filter(|number| number % 2 == 1).rev();
    loop {
        let page = cache.list(&prefix(""), &options, &cx()).await.unwrap();
        kept.extend(page.keys.into_iter().filter(|key| key.as_str().starts_with("keep:")));
        let deletes = dropped.by_ref().take(100).map(|number| delete(&format!("drop:{number}"))).collect();
        assert!(cache.write_many(deletes, &cx()).await.iter().all(Result::is_ok));
        match page.next {
            Some(cursor) => options = options.with_cursor(cursor),
            None => break,
        }
    }
    assert_eq!(kept.len(), 1500);
}

async fn a_prefix_of_few_keys_among_many_takes_few_requests() {
    let (config, cache) = shared();
    let writes = (0..3000).map(|number| put(&format!("a{number}"), json("1"))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    set(&cache, "zz", "1").await;
    let watcher = async_nats::connect(Nats::shared().url()).await.unwrap();
    let mut calls = watcher.subscribe("$JS.API.>").await.unwrap();
    watcher.flush().await.unwrap();
    assert_eq!(list(&cache, "zz", 1).await, ["zz"]);
    get(&cache, "end").await;
    let (pulls, end) = (format!(".MSG.NEXT.KV_{}.", config.bucket), format!(".KV_{0}.$KV.{0}.end", config.bucket));
    let mut requests = 0;
    loop {
        let subject = calls.next().await.unwrap().subject;
        requests += u32::from(subject.contains(&pulls));
        if subject.ends_with(&end) {
            break;
        }
    }
    assert!((1..30).contains(&requests), "{requests} requests");
}

async fn a_listing_whose_rest_was_cleared_ends_at_once() {
    let (_, cache) = shared();
    let writes = (0..1500).map(|number| put(&format!("session:{number}"), json("1"))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    let options = ListOptions::default().with_limit(1000);
    let first = cache.list(&prefix("session:"), &options, &cx()).await.unwrap();
    cache.clear(&prefix("session:"), HybridClock::process().issue(), Attempt::First, &cx()).await.unwrap();
    let options = options.with_cursor(first.next.unwrap());
    let second = cache.list(&prefix("session:"), &options, &within(4000)).await.unwrap();
    assert_eq!((first.keys.len(), second.keys.len(), second.next), (1000, 0, None));
}

async fn a_cursor_can_be_used_twice() {
    let (config, cache) = shared();
    let writes = (0..30).map(|number| put(&format!("{number:02}"), json("1"))).collect();
    assert!(cache.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    let options = ListOptions::default().with_limit(10);
    let first = cache.list(&prefix(""), &options, &cx()).await.unwrap();
    let options = options.with_cursor(first.next.unwrap());
    let second = cache.list(&prefix(""), &options, &cx()).await.unwrap();
    let again = cache.list(&prefix(""), &options, &cx()).await.unwrap();
    let elsewhere = open(&config).list(&prefix(""), &options, &cx()).await.unwrap();
    assert_eq!((second.keys.len(), &second.keys), (10, &again.keys));
    assert_eq!(second, elsewhere);
    let none = cache.list(&prefix("2"), &options, &cx()).await.unwrap();
    assert_eq!(none.keys.len(), 10);
    // What the walks of two pages and a half left behind at the server is little, and ends by itself.
    let mut stream = context_of(&config).await.get_stream(format!("KV_{}", config.bucket)).await.unwrap();
    cache.close(&cx()).await.unwrap();
    let mut consumers = usize::MAX;
    for _ in 0..1000 {
        consumers = stream.info().await.unwrap().state.consumer_count;
        if consumers <= 1 {
            break;
        }
    }
    assert!(consumers <= 1, "{consumers} consumers are left");
}

async fn a_denied_subject_is_said_so() {
    let users = "authorization { users: [ { user: ann, password: secret, permissions: { publish: { deny: [\"$JS.API.>\"] } } } ] }";
    let server = Nats::start(true, users);
    let mut config = config_for(&server);
    config.auth = NatsAuth::User { username: "ann".to_owned(), password: "secret".to_owned().into() };
    let error = open(&config).ping(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("$JS.API.>") && !error.is_transient(), "{error}");
}

async fn an_encrypted_connection_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let own_key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&own_key).unwrap();
    std::fs::write(file("server.pem"), certificate.pem()).unwrap();
    std::fs::write(file("server.key"), own_key.serialize_pem()).unwrap();
    let tls = format!("tls {{ cert_file: {:?}, key_file: {:?} }}", file("server.pem"), file("server.key"));
    let server = Nats::start(true, &tls);
    let ping = async |host: &str, tls: Tls| {
        let mut config = config_for(&server);
        config.servers = vec![NatsServer::new(host, server.port())];
        config.tls = tls;
        open(&config).ping(&cx()).await
    };
    let mut trusting = TlsFiles::default();
    trusting.ca_file = Some(file("server.pem"));
    ping("localhost", Tls::Verified(trusting.clone())).await.unwrap();
    let refused = [
        ("127.0.0.1", Tls::Verified(trusting)),
        ("localhost", Tls::Verified(TlsFiles::default())),
        ("localhost", Tls::Off),
    ];
    for (host, tls) in refused {
        let error = ping(host, tls).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && !error.is_transient(), "{error}");
        assert!(error.message().contains("certificate"), "{error}");
    }
    let plain = Nats::shared();
    let mut config = config_for(plain);
    config.tls = Tls::Verified(TlsFiles::default());
    assert_eq!(open(&config).ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

async fn a_bucket_that_was_removed_is_made_anew() {
    let (config, cache) = shared();
    for _ in 0..20 {
        set(&cache, "a", "1").await;
    }
    let before = set(&cache, "a", "1").await;
    let context = context_of(&config).await;
    context.delete_key_value(&config.bucket).await.unwrap();
    let error = cache.get(&key("a"), &GetOptions::default(), &cx()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
    assert_eq!(get(&cache, "a").await, None);
    let after = set(&cache, "a", "2").await;
    assert!(after.to_sequence() > before.to_sequence(), "a revision fits what it was given for, and nothing else");
}

async fn a_closed_cache_stays_closed() {
    let (_, cache) = shared();
    set(&cache, "a", "1").await;
    cache.close(&cx()).await.unwrap();
    cache.close(&cx()).await.unwrap();
    let closed = |error: Error| assert_eq!(error.kind(), ErrorKind::Closed);
    closed(cache.get(&key("a"), &GetOptions::default(), &cx()).await.unwrap_err());
    closed(cache.write(put("a", json("1")), &cx()).await.unwrap_err());
    closed(cache.ping(&cx()).await.unwrap_err());
    let answers = cache.write_many(vec![put("a", json("1")), put("b", json("1"))], &cx()).await;
    assert_eq!(answers.len(), 2);
    answers.into_iter().for_each(|answer| closed(answer.unwrap_err()));
}

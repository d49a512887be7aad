//! What only a PostgreSQL server can do to a database: freeze one of its processes, land statements late, die, refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::postgres::PostgresDatabase;
use agent_storage::chain::{ChainOptions, DatabaseChain};
use agent_storage::config::{DatabaseChainConfig, DatabaseFallback, PostgresConfig};
use agent_storage::contract::{
    Append, AppendAck, Attempt, ConflictOptions, Context, DatabaseBackend, GetOptions, ItemId, ListOptions, ListRange,
    ReplayOptions, ReplayOutcome, Step, Store, Write, WriteAck, WriteMode, WriteOp,
};
use agent_storage::testkit::{Direction, FaultProxy, NetworkFault, Point};
use agent_storage::{
    Clock, Error, ErrorKind, HybridClock, Key, KeyPrefix, Outage, Result, Revision, Stamp, Ttl, Value,
};
use support::process::wait_until;
use support::{Postgres, PostgresOptions, Server, Suite};

fn main() -> ExitCode {
    let mut suite = Suite::new();
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        an_upsert_that_lands_late_changes_nothing
        a_create_that_lands_late_changes_nothing
        an_update_that_lands_late_changes_nothing
        a_delete_that_lands_late_removes_nothing_newer
        an_append_that_lands_late_stays_deleted
        an_append_that_lands_late_is_found_by_its_id
        a_trim_that_lands_late_takes_nothing_newer
        a_clear_that_lands_late_removes_nothing_newer
        a_clear_that_breaks_off_in_the_middle_says_so
        a_transaction_tells_what_failed_first
        a_transaction_that_was_given_up_is_rolled_back
        a_probe_of_a_frozen_server_is_silence_though_it_has_little_time
        a_hundred_calls_to_a_frozen_server_leave_the_whole_pool
        a_server_that_was_killed_is_used_again
        a_lost_reply_to_a_commit_is_an_unknown_outcome
        a_replay_that_finds_no_answer_does_not_hold_up_a_close
        runtimes_that_rest_keep_nothing_from_each_other
        a_first_connection_that_ends_with_its_runtime_is_made_anew
        a_wrong_password_is_said_and_not_tried_again
        a_missing_database_is_said_and_used_once_it_is_there
        another_encoding_is_refused
        a_newer_schema_is_refused_unless_it_lets_older_programs_in
        many_that_start_at_once_migrate_once
        tables_of_others_in_the_schema_are_told_at_once
        keys_are_listed_in_byte_order_whatever_the_collation
        hot_keys_neither_deadlock_nor_lose_an_append
        a_repeated_write_answers_as_the_first_time
        the_sweeper_takes_what_is_old_and_nothing_else
        the_sweeper_takes_nothing_that_its_floor_does_not_cover
        a_deleted_list_takes_its_ids_along
        a_repeated_append_does_not_pass_a_delete_beside_a_newer_one
        a_corrupt_row_fails_alone
        a_replayed_step_that_meets_a_corrupt_row_fails_alone
        what_a_replay_overwrites_is_kept_without_leaving_the_server
        an_item_whose_id_is_corrupt_is_not_kept_as_a_conflict
        a_replay_that_fails_as_a_whole_blames_none_of_its_steps
        a_column_that_became_jsonb_is_not_taken_for_json
        a_list_that_lacks_an_item_is_corrupt_wherever_it_was
        no_call_reads_a_whole_table
        a_stamp_that_no_clock_gave_is_not_followed
        a_write_mends_a_stamp_that_was_corrupted
        a_row_without_a_valid_key_hides_no_other
        a_list_with_items_beyond_its_count_is_corrupt_until_it_is_deleted
        a_schema_with_an_odd_name_works
        nothing_is_kept_in_a_session_behind_a_transaction_pooler
        a_closed_database_leaves_no_connection
        a_delete_of_which_half_was_behind_is_brought_to_its_end
    }
    suite.run()
}

/// How long a call may take that should succeed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a call may take that is held up on purpose: enough for it to reach the server.
const HELD_UP: Duration = Duration::from_secs(3);

fn cx() -> Context {
    Context::with_timeout(PATIENCE)
}

fn config(server: &Postgres, database: &str) -> PostgresConfig {
    let mut config = PostgresConfig::new(server.host(), server.port());
    config.database = database.to_owned();
    config.username = server.user().to_owned();
    config.password = Some(server.password().into());
    config
}

/// A database of its own, with a clock of its own, on a server.
struct Bench {
    server: &'static Postgres,
    name: String,
    config: PostgresConfig,
    database: Arc<PostgresDatabase>,
    clock: Arc<HybridClock>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut PostgresConfig)) -> Self {
        let server = Postgres::shared();
        let name = server.create_database();
        let mut config = config(server, &name);
        // So that nothing but our guards stops a statement that is held up.
        config.lock_timeout = Duration::ZERO;
        config.statement_timeout = Duration::ZERO;
        change(&mut config);
        let clock = Arc::new(HybridClock::new(Clock::system()));
        let database = Arc::new(PostgresDatabase::with_stamps(&config, Arc::clone(&clock)).unwrap());
        Self { server, name, config, database, clock }
    }

    /// Another process on the same database.
    fn another(&self) -> PostgresDatabase {
        PostgresDatabase::with_stamps(&self.config, Arc::new(HybridClock::new(Clock::system()))).unwrap()
    }

    fn query(&self, sql: &str) -> String {
        self.server.query(&self.name, sql)
    }

    fn put_op(&self, text: &str, value: &str) -> Write {
        Write::put(key(text), json(value), self.clock.issue())
    }

    fn put_if(&self, text: &str, value: &str, mode: WriteMode) -> Write {
        Write::new(key(text), WriteOp::Put { value: json(value), mode, ttl: None }, self.clock.issue())
    }

    async fn put(&self, text: &str, value: &str) -> WriteAck {
        self.database.write(self.put_op(text, value), &cx()).await.unwrap()
    }

    async fn delete(&self, text: &str) -> WriteAck {
        self.database.write(Write::delete(key(text), self.clock.issue()), &cx()).await.unwrap()
    }

    async fn get(&self, text: &str) -> Option<String> {
        let lookup = self.database.get(&key(text), &GetOptions::default(), &cx()).await.unwrap();
        lookup.into_value().map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
    }

    fn append_op(&self, text: &str, value: &str) -> Append {
        Append::new(key(text), json(value), self.clock.issue())
    }

    async fn append(&self, text: &str, value: &str) -> AppendAck {
        only(self.database.append_many(vec![self.append_op(text, value)], &cx()).await).unwrap()
    }

    async fn items(&self, text: &str) -> Vec<String> {
        let items = self.database.range(&key(text), ListRange::ALL, &cx()).await.unwrap();
        items.iter().map(|item| String::from_utf8(item.value.as_bytes().to_vec()).unwrap()).collect()
    }

    /// Holds a call up at a row that somebody else has locked, freezes its server process, lets the row go, waits until the
    /// call was given up, does something newer, and thaws the process, so that the statement lands late.
    async fn land_late<T, C, N>(
        &self,
        table: &str,
        row: &str,
        call: impl FnOnce(Arc<PostgresDatabase>, Context) -> C,
        newer: impl FnOnce() -> N,
    ) -> Error
    where
        T: Send + 'static,
        C: Future<Output = Result<T>> + Send + 'static,
        N: Future<Output = ()>,
    {
        let lock =
            format!("BEGIN; SELECT 1 FROM agent_storage.{table} WHERE key = '{row}' FOR UPDATE; SELECT pg_sleep(3600)");
        let (server, name) = (self.server, self.name.clone());
        let holder = std::thread::spawn(move || server.try_query(&name, &lock));
        assert!(wait_until(|| !self.pids("query LIKE '%pg_sleep(3600)' AND wait_event = 'PgSleep'").is_empty()));
        let call = tokio::spawn(call(Arc::clone(&self.database), Context::with_timeout(HELD_UP)));
        assert!(wait_until(|| !self.pids("wait_event_type = 'Lock'").is_empty()), "the call is not held up");
        let held_up = self.pids("wait_event_type = 'Lock'")[0];
        self.server.freeze_backend(held_up);
        let sleeper = self.pids("wait_event = 'PgSleep'")[0];
        self.query(&format!("SELECT pg_terminate_backend({sleeper})"));
        assert!(holder.join().unwrap().is_err());
        let error = call.await.unwrap().err().expect("the call was given up");
        newer().await;
        self.server.thaw_backend(held_up);
        assert!(wait_until(|| self.pids(&format!("pid = {held_up}")).is_empty()), "the late statement never ended");
        error
    }

    fn pids(&self, condition: &str) -> Vec<u32> {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid() AND {condition}",
            self.name
        );
        self.server.query("postgres", &sql).lines().map(|line| line.parse().unwrap()).collect()
    }
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn json(text: &str) -> Value {
    Value::json(text.to_owned()).unwrap()
}

fn only<T>(answers: Vec<T>) -> T {
    let mut answers = answers.into_iter();
    let answer = answers.next().expect("one answer");
    assert!(answers.next().is_none());
    answer
}

async fn an_upsert_that_lands_late_changes_nothing() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    let late = bench.put_op("k", "2");
    let error = bench
        .land_late(
            "kv",
            "k",
            |database, cx| async move { database.write(late, &cx).await },
            || async {
                bench.put("k", "3").await;
            },
        )
        .await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(bench.get("k").await.as_deref(), Some("3"));
}

async fn a_create_that_lands_late_changes_nothing() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    bench.delete("k").await;
    let late = bench.put_if("k", "2", WriteMode::Create);
    let error = bench
        .land_late(
            "kv",
            "k",
            |database, cx| async move { database.write(late, &cx).await },
            || async {
                bench.put("k", "3").await;
                bench.delete("k").await;
            },
        )
        .await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(bench.get("k").await, None);
}

async fn an_update_that_lands_late_changes_nothing() {
    let bench = Bench::new();
    let revision = bench.put("k", "1").await.revision.unwrap();
    let late = bench.put_if("k", "2", WriteMode::Update(revision));
    let error = bench
        .land_late(
            "kv",
            "k",
            |database, cx| async move { database.write(late, &cx).await },
            || async {
                bench.put("k", "3").await;
            },
        )
        .await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(bench.get("k").await.as_deref(), Some("3"));
}

async fn a_delete_that_lands_late_removes_nothing_newer() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    bench.append("k", "1").await;
    let late = Write::delete(key("k"), bench.clock.issue());
    let error = bench
        .land_late(
            "kv",
            "k",
            |database, cx| async move { database.write(late, &cx).await },
            || async {
                bench.put("k", "3").await;
                bench.append("k", "3").await;
            },
        )
        .await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(bench.get("k").await.as_deref(), Some("3"));
    assert_eq!(bench.items("k").await, ["1", "3"]);
}

async fn an_append_that_lands_late_stays_deleted() {
    let bench = Bench::new();
    bench.append("k", "1").await;
    let late = bench.append_op("k", "2");
    let call = |database: Arc<PostgresDatabase>, cx| async move { only(database.append_many(vec![late], &cx).await) };
    let error = bench
        .land_late("list", "k", call, || async {
            assert_eq!(bench.delete("k").await.existed, Some(true));
        })
        .await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(bench.items("k").await.is_empty());
    assert!(bench.query("SELECT 1 FROM agent_storage.item").is_empty());
}

async fn an_append_that_lands_late_is_found_by_its_id() {
    let bench = Bench::new();
    bench.append("k", "1").await;
    let late = bench.append_op("k", "2");
    let repeated = late.clone();
    let call = |database: Arc<PostgresDatabase>, cx| async move { only(database.append_many(vec![late], &cx).await) };
    let error = bench.land_late("list", "k", call, || async {}).await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    let ack = only(bench.database.append_many(vec![repeated], &cx()).await).unwrap();
    assert_eq!((ack.position, ack.existed), (Some(1), Some(true)));
    assert_eq!(bench.items("k").await, ["1", "2"]);
}

async fn a_trim_that_lands_late_takes_nothing_newer() {
    let bench = Bench::new();
    for number in 0..5 {
        bench.append("k", &number.to_string()).await;
    }
    let call = |database: Arc<PostgresDatabase>, cx| async move { database.trim(&key("k"), 2, &cx).await };
    let error = bench
        .land_late("list", "k", call, || async {
            bench.append("k", "5").await;
            bench.append("k", "6").await;
        })
        .await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(bench.items("k").await, ["3", "4", "5", "6"]);
}

async fn a_clear_that_lands_late_removes_nothing_newer() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    bench.put("l", "1").await;
    let stamp = bench.clock.issue();
    let call = move |database: Arc<PostgresDatabase>, cx| async move {
        database.clear(&KeyPrefix::empty(), stamp, Attempt::First, &cx).await
    };
    let error = bench
        .land_late("kv", "k", call, || async {
            bench.put("k", "2").await;
        })
        .await;
    // Nothing was committed, and the server is told so by the end of the connection.
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(bench.get("k").await.as_deref(), Some("2"));
    assert_eq!(bench.get("l").await.as_deref(), Some("1"));
}

async fn a_clear_that_breaks_off_in_the_middle_says_so() {
    let bench = Bench::new();
    bench.put("a", "1").await;
    bench.query(
        "INSERT INTO agent_storage.kv SELECT 'k' || n, stamp, kind, NULL, json, NULL, false
             FROM agent_storage.kv, generate_series(1000, 2499) AS n;
         CREATE FUNCTION agent_storage.refuse() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE SQLSTATE '53100'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON agent_storage.kv
             FOR EACH ROW WHEN (NEW.key = 'k2400') EXECUTE FUNCTION agent_storage.refuse()",
    );
    let clear = async || bench.database.clear(&KeyPrefix::empty(), bench.clock.issue(), Attempt::First, &cx()).await;
    let error = clear().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    let left = bench.database.count(&KeyPrefix::empty(), &cx()).await.unwrap();
    assert!((1..1501).contains(&left), "{left} keys are left");
    // Now it fails before anything went.
    bench.query("UPDATE agent_storage.kv SET kind = 0 WHERE key <> 'k2400'");
    let error = clear().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    bench.query("DROP TRIGGER refuse ON agent_storage.kv");
    assert_eq!(clear().await.unwrap(), Some(1));
}

async fn a_transaction_tells_what_failed_first() {
    let bench = Bench::new();
    let revision = bench.put("a", "1").await.revision.unwrap();
    bench.query(
        "CREATE FUNCTION agent_storage.refuse() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE SQLSTATE '53100'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON agent_storage.kv
             FOR EACH ROW WHEN (NEW.key = 'b') EXECUTE FUNCTION agent_storage.refuse()",
    );
    // The condition is looked at after the put, in a transaction that is as good as over.
    let update = WriteOp::Put { value: json("2"), mode: WriteMode::Update(revision), ttl: None };
    let steps = vec![
        Step::Write(Write::new(key("a"), update, bench.clock.issue())),
        Step::Write(bench.put_op("b", "1")),
        Step::Append(bench.append_op("l", "1")),
    ];
    let error = bench.database.apply(steps, &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(bench.get("a").await.as_deref(), Some("1"));
}

async fn a_transaction_that_was_given_up_is_rolled_back() {
    let bench = Bench::new();
    bench.put("a", "1").await;
    bench.put("b", "1").await;
    let steps = vec![Step::Write(bench.put_op("a", "2")), Step::Write(bench.put_op("b", "2"))];
    let error =
        bench.land_late("kv", "b", |database, cx| async move { database.apply(steps, &cx).await }, || async {}).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(bench.get("a").await.as_deref(), Some("1"));
    assert_eq!(bench.get("b").await.as_deref(), Some("1"));
}

async fn a_probe_of_a_frozen_server_is_silence_though_it_has_little_time() {
    let server = Postgres::start(PostgresOptions::default());
    let database = PostgresDatabase::new(&config(&server, &server.create_database())).unwrap();
    database.ping(&cx()).await.unwrap();
    server.freeze();
    // The connection is there, and takes what is sent.
    let short = Context::with_timeout(Duration::from_millis(300));
    assert_eq!(database.ping(&short).await.unwrap_err().outage(), Some(Outage::Silent));
    server.thaw();
}

async fn a_hundred_calls_to_a_frozen_server_leave_the_whole_pool() {
    const POOL: u32 = 4;
    let server = Postgres::start(PostgresOptions::default());
    let name = server.create_database();
    let mut config = config(&server, &name);
    config.pool.max = POOL;
    config.lock_timeout = Duration::ZERO;
    let clock = Arc::new(HybridClock::new(Clock::system()));
    let database = Arc::new(PostgresDatabase::with_stamps(&config, Arc::clone(&clock)).unwrap());
    let put = |value: &str| Write::put(key("k"), json(value), clock.issue());
    database.write(put("1"), &cx()).await.unwrap();
    server.freeze();
    let calls = (0..100).map(|number| {
        let (database, write) = (Arc::clone(&database), put("2"));
        tokio::spawn(async move {
            let cx = Context::with_timeout(Duration::from_millis(100));
            match number % 3 {
                0 => database.get(&key("k"), &GetOptions::default(), &cx).await.map(drop).unwrap_err(),
                1 => database.write(write, &cx).await.unwrap_err(),
                _ => {
                    // A caller that goes away before its call ends.
                    let key = key("k");
                    let call = database.length(&key, &cx);
                    tokio::time::timeout(Duration::from_millis(10), call).await.unwrap_err();
                    Error::unavailable("the caller went away")
                }
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let error = call.await.unwrap();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown), "{error}");
        assert!(error.is_transient());
    }
    server.thaw();
    assert!(wait_until(|| server.try_query(&name, "SELECT 1").is_ok()));
    // As many writes as the pool has places are at the server at the same time.
    let holder = {
        let lock = "BEGIN; SELECT 1 FROM agent_storage.kv FOR UPDATE; SELECT pg_sleep(3600)";
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| server.try_query(&name, lock));
            assert!(wait_until(
                || server.query(&name, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
            ));
            let writes: Vec<_> = (0..POOL)
                .map(|_| {
                    let (database, write) = (Arc::clone(&database), put("3"));
                    tokio::spawn(async move { database.write(write, &cx()).await })
                })
                .collect();
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            assert!(
                wait_until(|| server.query(&name, waiting) == POOL.to_string()),
                "{}",
                server.query(&name, waiting)
            );
            server.query(&name, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
            assert!(holder.join().unwrap().is_err());
            writes
        })
    };
    for write in holder {
        write.await.unwrap().unwrap();
    }
    assert!(database.get(&key("k"), &GetOptions::default(), &cx()).await.unwrap().is_found());
}

async fn a_server_that_was_killed_is_used_again() {
    let server = Postgres::start(PostgresOptions { fsync: true, ..PostgresOptions::default() });
    let name = server.create_database();
    let clock = Arc::new(HybridClock::new(Clock::system()));
    let database = PostgresDatabase::with_stamps(&config(&server, &name), Arc::clone(&clock)).unwrap();
    database.write(Write::put(key("k"), json("1"), clock.issue()), &cx()).await.unwrap();
    server.kill();
    for _ in 0..3 {
        let error = database.get(&key("k"), &GetOptions::default(), &cx()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.is_transient(), "{error}");
    }
    server.restart();
    let lookup = database.get(&key("k"), &GetOptions::default(), &cx()).await.unwrap();
    assert_eq!(lookup.into_value().unwrap().as_bytes(), b"1");
    database.write(Write::put(key("k"), json("2"), clock.issue()), &cx()).await.unwrap();
    assert!(database.ping(&cx()).await.unwrap().server_version.is_some());
}

async fn a_lost_reply_to_a_commit_is_an_unknown_outcome() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    let address = tokio::net::lookup_host((bench.server.host(), bench.server.port())).await.unwrap().next().unwrap();
    let proxy = FaultProxy::start(address).await.unwrap();
    let mut through = bench.config.clone();
    through.port = proxy.address().port();
    let database = PostgresDatabase::with_stamps(&through, Arc::clone(&bench.clock)).unwrap();
    database.ping(&cx()).await.unwrap();
    proxy.set_once(NetworkFault::CutAt(Direction::ToClient, Point::postgres_commit())).await.unwrap();
    let error = database.apply(vec![Step::Write(bench.put_op("k", "2"))], &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(proxy.hits(), 1);
    assert_eq!(bench.get("k").await.as_deref(), Some("2"));
    // A read whose reply is lost is no doubt about anything.
    proxy.set_once(NetworkFault::CutAt(Direction::ToClient, Point::Bytes(3))).await.unwrap();
    let error = database.get(&key("k"), &GetOptions::default(), &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    proxy.close().await;
}

async fn a_replay_that_finds_no_answer_does_not_hold_up_a_close() {
    let bench = Bench::new();
    let address = tokio::net::lookup_host((bench.server.host(), bench.server.port())).await.unwrap().next().unwrap();
    let proxy = FaultProxy::start(address).await.unwrap();
    let mut through = bench.config.clone();
    through.port = proxy.address().port();
    let database = PostgresDatabase::with_stamps(&through, Arc::clone(&bench.clock)).unwrap();
    database.ping(&cx()).await.unwrap();
    proxy.set(NetworkFault::BlackHole).await.unwrap();
    let (steps, options) = (vec![Step::Write(bench.put_op("k", "1"))], ReplayOptions::new(Stamp::MIN));
    let patient = Context::with_timeout(Duration::from_secs(60));
    let replay = database.replay(steps, &options, &patient);
    assert!(tokio::time::timeout(Duration::from_millis(300), replay).await.is_err());
    assert!(proxy.lost() > 0, "it was under way");
    database.close(&Context::with_timeout(Duration::from_secs(1))).await.unwrap();
    proxy.close().await;
}

/// Of several threads with a runtime each, those that rest hear nothing of what comes for the others.
async fn runtimes_that_rest_keep_nothing_from_each_other() {
    let bench = Bench::new();
    let (mut config, clock) = (bench.config.clone(), Arc::clone(&bench.clock));
    config.pool.max = 2;
    let database = PostgresDatabase::with_stamps(&config, clock).unwrap();
    let turns = move || {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runtimes = [runtime(), runtime(), runtime()];
        let hurried = || Context::with_timeout(Duration::from_secs(3));
        for round in 0..4_i64 {
            for runtime in &runtimes {
                let write = Write::put(key("k"), Value::from_integer(round), bench.clock.issue());
                runtime.block_on(async { database.write(write, &hurried()).await.unwrap() });
                let read =
                    runtime.block_on(async { database.get(&key("k"), &GetOptions::default(), &hurried()).await });
                assert_eq!(read.unwrap().into_value().unwrap().decode::<i64>().unwrap(), round);
            }
        }
        let [_, _, last] = runtimes;
        let started = std::time::Instant::now();
        last.block_on(async { database.ping(&hurried()).await.unwrap() });
        assert!(started.elapsed() < Duration::from_secs(1));
    };
    tokio::task::spawn_blocking(turns).await.unwrap();
}

async fn a_first_connection_that_ends_with_its_runtime_is_made_anew() {
    let bench = Bench::new();
    let address = tokio::net::lookup_host((bench.server.host(), bench.server.port())).await.unwrap().next().unwrap();
    let proxy = FaultProxy::start(address).await.unwrap();
    proxy.set(NetworkFault::BlackHole).await.unwrap();
    let mut through = bench.config.clone();
    through.port = proxy.address().port();
    let database = Arc::new(PostgresDatabase::with_stamps(&through, Arc::clone(&bench.clock)).unwrap());
    let first = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let call = first.spawn({
        let database = Arc::clone(&database);
        async move { database.ping(&cx()).await }
    });
    assert!(wait_until(|| proxy.accepted() > 0), "nobody connected");
    // One who waits for the attempt of the runtime that ends may try again.
    let waiting = {
        let database = Arc::clone(&database);
        tokio::spawn(async move { database.ping(&cx()).await })
    };
    tokio::task::yield_now().await;
    first.shutdown_background();
    assert!(call.await.is_err());
    proxy.reset().await;
    proxy.set(NetworkFault::Pass).await.unwrap();
    if let Err(error) = waiting.await.unwrap() {
        assert!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
    }
    database.ping(&cx()).await.unwrap();
    proxy.close().await;
}

async fn a_wrong_password_is_said_and_not_tried_again() {
    let server = Postgres::start(PostgresOptions::default());
    let name = server.create_database();
    let mut config = config(&server, &name);
    config.password = Some("battery-staple".into());
    let database = PostgresDatabase::with_stamps(&config, HybridClock::process()).unwrap();
    let (key, cx) = (key("k"), cx());
    let calls = (0..20).map(|_| database.length(&key, &cx));
    for outcome in futures_util::future::join_all(calls).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.is_transient());
        assert!(error.message().contains("password"), "{error}");
        assert!(!format!("{error} {error:?} {database:?}").contains("battery-staple"));
    }
    assert_eq!(server.log().matches("password authentication failed").count(), 1, "{}", server.log());
}

async fn a_missing_database_is_said_and_used_once_it_is_there() {
    let server = Postgres::shared();
    let database = PostgresDatabase::with_stamps(&config(server, "made_later"), HybridClock::process()).unwrap();
    let error = database.ping(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.is_transient() && error.message().contains("does not exist"), "{error}");
    server.query("postgres", &format!("CREATE DATABASE made_later OWNER {}", server.user()));
    database.ping(&cx()).await.unwrap();
}

async fn another_encoding_is_refused() {
    let server = Postgres::shared();
    let make = "CREATE DATABASE latin OWNER agent ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0";
    let older = "CREATE DATABASE latin OWNER agent ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    server.try_query("postgres", make).or_else(|_| server.try_query("postgres", older)).unwrap();
    let error =
        PostgresDatabase::with_stamps(&config(server, "latin"), HybridClock::process()).unwrap().ping(&cx()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("LATIN1") && error.message().contains("UTF8"), "{error}");
    assert!(server.query("latin", "SELECT 1 FROM pg_namespace WHERE nspname = 'agent_storage'").is_empty());
}

async fn a_newer_schema_is_refused_unless_it_lets_older_programs_in() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    bench.query("UPDATE agent_storage.meta SET schema = 1000");
    let error = bench.another().ping(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("newer") && error.message().contains("1000"), "{error}");
    bench.query("UPDATE agent_storage.meta SET min_compatible = 999");
    assert_eq!(bench.another().ping(&cx()).await.unwrap_err().kind(), ErrorKind::Config);
    bench.query("UPDATE agent_storage.meta SET min_compatible = 1");
    bench.another().ping(&cx()).await.unwrap();
    assert_eq!(bench.query("SELECT schema FROM agent_storage.meta"), "1000");
}

async fn many_that_start_at_once_migrate_once() {
    let bench = Bench::new();
    let processes: Vec<_> = (0..20).map(|_| bench.another()).collect();
    let starts = processes.iter().map(|process| async { process.identity(&cx()).await.unwrap() });
    let identities = futures_util::future::join_all(starts).await;
    assert!(identities.iter().all(|identity| *identity == identities[0]));
    assert_ne!(identities[0].id, 0);
    assert_eq!(bench.query("SELECT count(*), max(schema) FROM agent_storage.meta"), "1|5");
    // Each process's sweeper takes a lock of its own for a moment; one that was left behind would stay.
    let locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'";
    assert!(wait_until(|| bench.query(locks).is_empty()), "a lock was left behind");
}

async fn tables_of_others_in_the_schema_are_told_at_once() {
    let bench = Bench::new();
    bench.query("CREATE SCHEMA agent_storage; CREATE TABLE agent_storage.kv (a integer)");
    bench.query(&format!("ALTER SCHEMA agent_storage OWNER TO {}", bench.config.username));
    for _ in 0..2 {
        let error = bench.database.ping(&cx()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("name another schema"), "{error}");
    }
}

async fn keys_are_listed_in_byte_order_whatever_the_collation() {
    let bench = Bench::new();
    assert_eq!(bench.query("SELECT 'a' < 'B'"), "t", "the database sorts by a language");
    for name in ["b", "B", "a", "ä", "_", "%", "😀", "~"] {
        bench.put(name, "1").await;
    }
    bench.append("A", "1").await;
    let options = ListOptions::default().with_limit(4);
    let mut page = bench.database.list(&KeyPrefix::empty(), &options, &cx()).await.unwrap();
    let mut names: Vec<String> = Vec::new();
    loop {
        names.extend(page.keys.iter().map(Key::to_string));
        let Some(next) = page.next else { break };
        page = bench.database.list(&KeyPrefix::empty(), &options.clone().with_cursor(next), &cx()).await.unwrap();
    }
    assert_eq!(names, ["%", "A", "B", "_", "a", "b", "~", "ä", "😀"]);
}

async fn hot_keys_neither_deadlock_nor_lose_an_append() {
    const WRITERS: usize = 64;
    const ROUNDS: usize = 10;
    let bench = Bench::new();
    let names = ["a", "b", "c", "d"];
    let writers = (0..WRITERS).map(|writer| {
        let (database, clock) = (Arc::clone(&bench.database), Arc::clone(&bench.clock));
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                // Each writer names the keys in another order.
                let order: Vec<&str> =
                    (0..names.len()).map(|n| names[(n * (1 + 2 * (writer % 2)) + writer) % 4]).collect();
                let value = json(&format!("{}", writer * ROUNDS + round));
                let write = |name: &&str| Write::put(key(name), value.clone(), clock.issue());
                let append = |name: &&str| Append::new(key(name), value.clone(), clock.issue());
                match (writer + round) % 3 {
                    0 => {
                        for ack in database.write_many(order.iter().map(write).collect(), &cx()).await {
                            ack.unwrap();
                        }
                        for ack in database.append_many(order.iter().map(append).collect(), &cx()).await {
                            ack.unwrap();
                        }
                    }
                    1 => {
                        let appends = order.iter().map(|name| Step::Append(append(name)));
                        let steps = order.iter().map(|name| Step::Write(write(name))).chain(appends);
                        database.apply(steps.collect(), &cx()).await.unwrap();
                    }
                    _ => {
                        for ack in database.append_many(order.iter().map(append).collect(), &cx()).await {
                            ack.unwrap();
                        }
                        let touch = |name: &&str| Write::new(key(name), WriteOp::Touch { ttl: None }, clock.issue());
                        for ack in database.write_many(order.iter().map(touch).collect(), &cx()).await {
                            ack.unwrap();
                        }
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut expected: Vec<String> = (0..WRITERS * ROUNDS).map(|number| number.to_string()).collect();
    expected.sort_unstable();
    for name in names {
        let mut items = bench.items(name).await;
        items.sort_unstable();
        assert_eq!(items, expected);
    }
}

async fn a_repeated_write_answers_as_the_first_time() {
    let bench = Bench::new();
    let fresh = bench.put_op("fresh", "1");
    bench.put("standing", "1").await;
    let over = bench.put_op("standing", "2");
    let delete = Write::delete(key("standing"), bench.clock.issue());
    for write in [fresh.clone(), fresh, over.clone(), over, delete.clone(), delete].chunks(2) {
        let first = bench.database.write(write[0].clone(), &cx()).await.unwrap();
        let again = bench.database.write(write[1].clone(), &cx()).await.unwrap();
        assert_eq!(first, again);
    }
    // The condition of a repeated create holds: it is what made the value.
    let create = bench.put_if("created", "1", WriteMode::Create);
    let first = bench.database.write(create.clone(), &cx()).await.unwrap();
    assert_eq!(bench.database.write(create, &cx()).await.unwrap(), first);
    let update = bench.put_if("created", "2", WriteMode::Update(first.revision.unwrap()));
    let first = bench.database.write(update.clone(), &cx()).await.unwrap();
    assert_eq!(bench.database.write(update, &cx()).await.unwrap(), first);
}

async fn the_sweeper_takes_what_is_old_and_nothing_else() {
    let bench = Bench::with(|config| config.tombstone_retention = Duration::from_millis(300));
    let ttl = agent_storage::Ttl::from_millis(1).unwrap();
    let expiring = WriteOp::Put { value: json("1"), mode: WriteMode::Upsert, ttl: Some(ttl) };
    bench.database.write(Write::new(key("expired"), expiring, bench.clock.issue()), &cx()).await.unwrap();
    bench.put("stays", "1").await;
    bench.put("deleted", "1").await;
    bench.delete("deleted").await;
    for number in 0..5 {
        bench.append("trimmed", &number.to_string()).await;
        bench.append("gone", &number.to_string()).await;
    }
    bench.database.trim(&key("trimmed"), 2, &cx()).await.unwrap();
    bench.delete("gone").await;
    let rest = "SELECT (SELECT string_agg(key, ' ' ORDER BY key) FROM agent_storage.kv),
        (SELECT string_agg(key || next_position, ' ' ORDER BY key) FROM agent_storage.list),
        (SELECT string_agg(key || position, ' ' ORDER BY position) FROM agent_storage.item)";
    let swept = "stays|gone5 trimmed5|trimmed3 trimmed4";
    assert!(wait_until(|| bench.query(rest) == swept), "{}", bench.query(rest));
    let floor = bench.query("SELECT encode(gc_floor, 'hex') FROM agent_storage.meta").parse::<Stamp>().unwrap();
    assert!(floor > Stamp::MIN && floor < bench.clock.issue());
    // A list that was deleted goes on counting.
    assert_eq!(bench.append("gone", "5").await.position, Some(5));
}

async fn the_sweeper_takes_nothing_that_its_floor_does_not_cover() {
    let bench = Bench::with(|config| config.tombstone_retention = Duration::from_millis(800));
    bench.put("first", "1").await;
    // To raise the floor takes long, so that more has grown old by then; and what is removed too early is noted.
    bench.query(
        "CREATE TABLE early (key text);
         CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE UPDATE OF gc_floor ON agent_storage.meta FOR EACH ROW EXECUTE FUNCTION dawdle();
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN
                 INSERT INTO public.early SELECT OLD.key FROM agent_storage.meta WHERE OLD.stamp >= gc_floor;
                 RETURN OLD;
             END $$;
         CREATE TRIGGER note BEFORE DELETE ON agent_storage.kv FOR EACH ROW EXECUTE FUNCTION note();",
    );
    let floor = || bench.query("SELECT encode(gc_floor, 'hex') FROM agent_storage.meta").parse::<Stamp>().unwrap();
    let (mut raised, mut number) = (0, 0);
    let mut last = floor();
    while raised < 4 {
        for _ in 0..5 {
            bench.delete(&format!("k{number}")).await;
            number += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let now = floor();
        raised += usize::from(now != last);
        last = now;
        assert!(number < 20_000, "the sweeper raises its floor");
    }
    let left = || bench.query("SELECT count(*) FROM agent_storage.kv").parse::<usize>().unwrap();
    assert!(wait_until(|| left() < number), "the sweeper removes something");
    assert_eq!(bench.query("SELECT count(*) FROM early"), "0");
}

async fn a_deleted_list_takes_its_ids_along() {
    let bench = Bench::new();
    let named = |value: &str| bench.append_op("k", value).with_item_id(ItemId::parse("same").unwrap());
    only(bench.database.append_many(vec![named("1")], &cx()).await).unwrap();
    bench.delete("k").await;
    // As a delete that was given up before it could clean up leaves it.
    bench.query(
        "INSERT INTO agent_storage.item SELECT key, 0, 'same', decode(repeat('00', 16), 'hex'), 1, '1', NULL
         FROM agent_storage.list WHERE NOT EXISTS (SELECT 1 FROM agent_storage.item)",
    );
    let again = only(bench.database.append_many(vec![named("2")], &cx()).await).unwrap();
    assert_eq!((again.position, again.existed), (Some(1), Some(false)));
    bench.delete("k").await;
    let ack = bench.database.apply(vec![Step::Append(named("3"))], &cx()).await;
    assert!(ack.is_ok(), "{ack:?}");
    assert_eq!(bench.items("k").await, ["3"]);
}

async fn a_repeated_append_does_not_pass_a_delete_beside_a_newer_one() {
    let bench = Bench::new();
    let mut repeated = bench.append_op("k", "1");
    repeated.attempt = Attempt::Repeat;
    bench.delete("k").await;
    let batch = vec![bench.append_op("k", "2"), repeated, bench.append_op("k", "3")];
    let answers = bench.database.append_many(batch, &cx()).await;
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(answers[0].as_ref().unwrap().position, Some(0));
    assert_eq!(answers[2].as_ref().unwrap().position, Some(1));
    assert_eq!(bench.items("k").await, ["2", "3"]);
}

async fn a_corrupt_row_fails_alone() {
    let bench = Bench::new();
    for name in ["a", "b", "c", "d", "e"] {
        bench.put(name, "1").await;
    }
    bench.query("UPDATE agent_storage.kv SET kind = 7 WHERE key = 'a'");
    bench.query("UPDATE agent_storage.kv SET json = NULL WHERE key = 'b'");
    bench.query("UPDATE agent_storage.kv SET stamp = '\\x00' WHERE key = 'c'");
    let keys = ["a", "b", "c", "d", "e"].map(key);
    let answers = bench.database.get_many(&keys, &GetOptions::default(), &cx()).await;
    for answer in &answers[..3] {
        assert_eq!(answer.as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert!(answers[3..].iter().all(|answer| answer.as_ref().unwrap().is_found()));
    assert_eq!(bench.database.count(&KeyPrefix::empty(), &cx()).await.unwrap(), 5);
    // Writing over it mends it.
    bench.put("c", "2").await;
    assert_eq!(bench.get("c").await.as_deref(), Some("2"));
}

/// What is overwritten is kept, so it must be read; and an item cannot go where another one stands.
async fn a_replayed_step_that_meets_a_corrupt_row_fails_alone() {
    let bench = Bench::new();
    let options = ReplayOptions::new(Stamp::MIN);
    let others = HybridClock::new(Clock::system());
    for name in ["a", "b", "c"] {
        bench.database.write(Write::put(key(name), json("1"), others.issue()), &cx()).await.unwrap();
        bench.append(&format!("list {name}"), "1").await;
    }
    bench.query("UPDATE agent_storage.kv SET json = NULL WHERE key = 'b'");
    bench.query("UPDATE agent_storage.list SET next_position = 0 WHERE key = 'list b'");
    let put = |name: &str| Step::Write(bench.put_op(name, "2"));
    let append = |name: &str| Step::Append(bench.append_op(name, "2"));
    let steps = vec![
        put("a"),
        append("list a"),
        put("b"),
        append("list b"),
        append("list b"),
        append("list a"),
        put("c"),
        append("list c"),
    ];
    for applied in [ReplayOutcome::Applied, ReplayOutcome::AlreadyApplied] {
        let answers = bench.database.replay(steps.clone(), &options, &cx()).await;
        for (index, answer) in answers.into_iter().enumerate() {
            match (index, answer) {
                (2 | 3, Err(error)) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{index}: {error}"),
                (4, Ok(outcome)) => assert_eq!(outcome, ReplayOutcome::Withheld),
                (_, Ok(outcome)) => assert_eq!(outcome, applied, "{index}"),
                (_, Err(error)) => panic!("{index}: {error}"),
            }
        }
    }
    assert_eq!((bench.get("a").await.as_deref(), bench.get("c").await.as_deref()), (Some("2"), Some("2")));
    assert_eq!(bench.items("list a").await, ["1", "2", "2"]);
    assert_eq!(bench.items("list c").await, ["1", "2"]);
    let kept = bench.database.conflicts(&ConflictOptions::default(), &cx()).await.unwrap();
    assert_eq!(kept.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(bench.query("SELECT count(*) FROM agent_storage.kv WHERE kind = 0"), "0", "no lock is left behind");
}

async fn an_item_whose_id_is_corrupt_is_not_kept_as_a_conflict() {
    let bench = Bench::new();
    let others = HybridClock::new(Clock::system());
    for name in ["good", "odd"] {
        let append = Append::new(key(name), json("1"), others.issue());
        bench.database.append_many(vec![append], &cx()).await.remove(0).unwrap();
    }
    bench.query("UPDATE agent_storage.item SET item_id = E'a\\x01' WHERE key = 'odd'");
    let delete = |name: &str| Step::Write(Write::delete(key(name), bench.clock.issue_after(others.issue())));
    let steps = vec![delete("odd"), delete("good")];
    let mut answers = bench.database.replay(steps, &ReplayOptions::new(Stamp::MIN), &cx()).await.into_iter();
    assert_eq!(answers.next().unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(answers.next().unwrap().unwrap(), ReplayOutcome::Applied);
    let kept = bench.database.conflicts(&ConflictOptions::default(), &cx()).await.unwrap();
    assert_eq!(kept.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["good"]);
}

/// Values, items and a tombstone of others are overwritten over a line that breaks before one of the values has passed.
async fn what_a_replay_overwrites_is_kept_without_leaving_the_server() {
    const LARGE: usize = 4 << 20;
    const LINE: u64 = 256 << 10;
    let bench = Bench::new();
    let others = HybridClock::new(Clock::system());
    let large = |number: u8| match number % 2 {
        0 => json(&format!("\"{}\"", number.to_string().repeat(LARGE))),
        _ => Value::binary(vec![number; LARGE]).unwrap(),
    };
    for number in 0..8 {
        let write = Write::put(key(&format!("k{number}")), large(number), others.issue());
        bench.database.write(write, &cx()).await.unwrap();
        let append = Append::new(key(if number < 4 { "k list" } else { "list" }), large(number), others.issue());
        only(bench.database.append_many(vec![append], &cx()).await).unwrap();
    }
    let ends = WriteOp::Put { value: json("1"), mode: WriteMode::Upsert, ttl: Some(Ttl::MAX) };
    bench.database.write(Write::new(key("k ends"), ends, others.issue()), &cx()).await.unwrap();
    bench.database.write(Write::delete(key("gone"), others.issue()), &cx()).await.unwrap();
    let stored = bench.query(
        "SELECT stamp, key, CASE kind WHEN 0 THEN 'delete' ELSE 'put' END, NULL, kind, expires_at, md5(json::text), md5(bin)
             FROM agent_storage.kv
         UNION ALL
         SELECT stamp, key, 'append', item_id, kind, NULL, md5(json::text), md5(bin) FROM agent_storage.item
         ORDER BY 1, 2",
    );
    // One is kept already.
    bench.query(
        "INSERT INTO agent_storage.conflict (stamp, key, operation, kind, json, bin, winner, at)
             SELECT stamp, key, 'put', kind, json, bin, stamp, 7 FROM agent_storage.kv WHERE key = 'k1'",
    );

    let address = tokio::net::lookup_host((bench.server.host(), bench.server.port())).await.unwrap().next().unwrap();
    let proxy = FaultProxy::start(address).await.unwrap();
    let mut through = bench.config.clone();
    through.port = proxy.address().port();
    let database = PostgresDatabase::with_stamps(&through, Arc::clone(&bench.clock)).unwrap();
    database.ping(&cx()).await.unwrap();
    proxy.set(NetworkFault::CutAt(Direction::ToClient, Point::Bytes(LINE))).await.unwrap();
    let steps = vec![
        Step::Clear { prefix: KeyPrefix::parse("k").unwrap(), stamp: bench.clock.issue() },
        Step::Write(bench.put_op("gone", "1")),
        Step::Write(Write::delete(key("list"), bench.clock.issue())),
    ];
    for answer in database.replay(steps, &ReplayOptions::new(Stamp::MIN), &cx()).await {
        assert_eq!(answer.unwrap(), ReplayOutcome::Applied);
    }
    assert_eq!(proxy.hits(), 0, "a value left the server");
    proxy.close().await;

    let kept = bench.query(
        "SELECT stamp, key, operation, item_id, kind, expires_at, md5(json::text), md5(bin)
             FROM agent_storage.conflict ORDER BY stamp, key",
    );
    assert_eq!(kept, stored);
    let records = bench.database.conflicts(&ConflictOptions::default(), &cx()).await.unwrap();
    assert_eq!(records.len(), 18);
    for record in records {
        let before = record.key.as_str() == "k1";
        assert_eq!((record.winner == record.stamp, record.at.as_millis() == 7), (before, before), "{}", record.key);
    }
}

/// The two look alike to a client, but for a byte before the text.
async fn a_replay_that_fails_as_a_whole_blames_none_of_its_steps() {
    let bench = Bench::new();
    bench.put("there", "1").await;
    let steps: Vec<Step> = ["a", "b"]
        .map(|name| Step::Write(Write::put(key(name), json("1"), bench.clock.issue())))
        .into_iter()
        .chain([Step::Append(bench.append_op("list", "1"))])
        .collect();
    let options = ReplayOptions::new(Stamp::MIN);
    let kinds = async || -> Vec<_> {
        let answers = bench.database.replay(steps.clone(), &options, &cx()).await;
        answers.into_iter().map(|answer| answer.map_err(|error| error.kind())).collect()
    };
    let unavailable = vec![Err(ErrorKind::Unavailable); 3];
    // The server's disk fails as it commits.
    bench.query(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'disk' USING ERRCODE = '58030'; END $$;
         CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE ON agent_storage.list
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail();",
    );
    assert_eq!(kinds().await, unavailable);
    bench.query("DROP TRIGGER fail ON agent_storage.list");
    // Or there is a quota of it, as it writes.
    bench.query(
        "CREATE FUNCTION quota() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'quota' USING ERRCODE = 'XX000'; END $$;
         CREATE TRIGGER quota BEFORE INSERT OR UPDATE ON agent_storage.kv FOR EACH ROW WHEN (NEW.kind <> 0)
             EXECUTE FUNCTION quota();
         CREATE TRIGGER quota BEFORE INSERT ON agent_storage.item FOR EACH ROW EXECUTE FUNCTION quota();",
    );
    assert_eq!(kinds().await, unavailable);
    bench.query("DROP TRIGGER quota ON agent_storage.kv; DROP TRIGGER quota ON agent_storage.item");
    // The only row of a table is missing.
    bench.query("CREATE TABLE kept AS SELECT * FROM agent_storage.meta; DELETE FROM agent_storage.meta;");
    assert_eq!(kinds().await, unavailable);
    bench.query("INSERT INTO agent_storage.meta SELECT * FROM kept");
    assert_eq!(kinds().await, vec![Ok(ReplayOutcome::Applied); 3]);
}

async fn a_column_that_became_jsonb_is_not_taken_for_json() {
    let bench = Bench::new();
    bench.put("a", "1").await;
    bench.query(
        "DROP VIEW agent_storage.live_json; ALTER TABLE agent_storage.kv ALTER json TYPE jsonb USING json::jsonb",
    );
    let error = bench.another().get(&key("a"), &GetOptions::default(), &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

async fn a_row_without_a_valid_key_hides_no_other() {
    let bench = Bench::with(|config| config.tombstone_retention = Duration::from_secs(1));
    for name in ["a", "b", "c"] {
        bench.put(name, "1").await;
        bench.append(name, "1").await;
    }
    bench.query(
        "INSERT INTO agent_storage.kv SELECT E'a\\n' || n, stamp, kind, NULL, json, NULL, false
             FROM agent_storage.kv, generate_series(1, 3) AS n WHERE key = 'a';
         INSERT INTO agent_storage.kv SELECT '', stamp, kind, NULL, json, NULL, false FROM agent_storage.kv WHERE key = 'a';
         INSERT INTO agent_storage.list SELECT E'a\\n4', floor, max_stamp, 1, 2, 0, 0, false
             FROM agent_storage.list WHERE key = 'a'",
    );
    for limit in 1..=4 {
        let mut options = ListOptions::default().with_limit(limit);
        let mut names: Vec<String> = Vec::new();
        loop {
            let page = bench.database.list(&KeyPrefix::empty(), &options, &cx()).await.unwrap();
            names.extend(page.keys.iter().map(Key::to_string));
            let Some(next) = page.next else { break };
            options = options.with_cursor(next);
        }
        assert_eq!(names, ["a", "b", "c"], "with pages of {limit}");
    }
    bench.database.trim(&key("c"), 0, &cx()).await.unwrap();
    bench.query("UPDATE agent_storage.list SET clean_position = 0 WHERE key = 'c'");
    let unclean = "SELECT 1 FROM agent_storage.list WHERE clean_position < first_position";
    assert!(wait_until(|| bench.query(unclean).is_empty()), "the sweeper did not clean up");
    let cleared = bench.database.clear(&KeyPrefix::empty(), bench.clock.issue(), Attempt::First, &cx()).await.unwrap();
    assert_eq!(cleared, Some(3));
    assert_eq!(bench.query("SELECT count(*) FROM agent_storage.kv WHERE kind <> 0"), "4");
}

async fn a_list_with_items_beyond_its_count_is_corrupt_until_it_is_deleted() {
    let bench = Bench::new();
    for harm in [
        "DELETE FROM agent_storage.list WHERE key = 'k'",
        "UPDATE agent_storage.list SET next_position = next_position - 1 WHERE key = 'k'",
    ] {
        for value in ["1", "2", "3"] {
            bench.append("k", value).await;
        }
        bench.query(harm);
        let batch = vec![bench.append_op("a", "1"), bench.append_op("k", "4"), bench.append_op("z", "1")];
        let answers = bench.database.append_many(batch, &cx()).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        let error = answers[1].as_ref().unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("delete"), "{harm}: {error}");
        let error = bench.database.apply(vec![Step::Append(bench.append_op("k", "4"))], &cx()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{harm}: {error}");
        bench.delete("k").await;
        bench.append("k", "4").await;
        bench.database.apply(vec![Step::Append(bench.append_op("k", "5"))], &cx()).await.unwrap();
        assert_eq!(bench.items("k").await, ["4", "5"], "{harm}");
        bench.delete("k").await;
    }
    // One whose first items were cleaned away collides by the id alone.
    let first = bench.append_op("l", "1");
    only(bench.database.append_many(vec![first.clone()], &cx()).await).unwrap();
    bench.query(
        "UPDATE agent_storage.item SET position = 7 WHERE key = 'l'; DELETE FROM agent_storage.list WHERE key = 'l'",
    );
    let error = only(bench.database.append_many(vec![first], &cx()).await).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

async fn a_list_that_lacks_an_item_is_corrupt_wherever_it_was() {
    let bench = Bench::new();
    for lost in ["position = 0", "position = 1", "position = 2", "true"] {
        let name = format!("without {lost}");
        for value in ["1", "2", "3"] {
            bench.append(&name, value).await;
        }
        for range in [ListRange::new(5, 9), ListRange::new(2, 1), ListRange::new(i64::MAX, i64::MIN)] {
            assert!(bench.database.range(&key(&name), range, &cx()).await.unwrap().is_empty(), "{range:?}");
        }
        let whole = ListRange::new(i64::MIN, i64::MAX);
        assert_eq!(bench.database.range(&key(&name), whole, &cx()).await.unwrap().len(), 3);
        bench.query(&format!("DELETE FROM agent_storage.item WHERE key = '{name}' AND {lost}"));
        let error = bench.database.range(&key(&name), ListRange::ALL, &cx()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{lost}: {error}");
    }
}

/// Statements that were planned while the tables were empty must not read whole tables once they have grown.
async fn no_call_reads_a_whole_table() {
    const ROWS: u64 = 3000;
    const ROUNDS: u64 = 20;
    let bench = Bench::with(|config| config.pool.max = 1);
    let calls = async |round: u64| {
        let keys = [key(&format!("k{round}")), key("absent")];
        for answer in bench.database.get_many(&keys, &GetOptions::default(), &cx()).await {
            answer.unwrap();
        }
        for answer in bench.database.exists(&keys, &cx()).await {
            answer.unwrap();
        }
        bench.put(&format!("k{round}"), "1").await;
        let revision = bench.put(&format!("c{round}"), "1").await.revision.unwrap();
        bench
            .database
            .write(bench.put_if(&format!("c{round}"), "2", WriteMode::Update(revision)), &cx())
            .await
            .unwrap();
        bench.append(&format!("l{round}"), "1").await;
        bench.append(&format!("l{round}"), "2").await;
        let both = ["l", "m"].map(|list| bench.append_op(&format!("{list}{round}"), "3")).to_vec();
        for batch in [both.clone(), both] {
            assert!(bench.database.append_many(batch, &cx()).await.iter().all(Result::is_ok));
        }
        let both = ["k", "c"].map(|name| bench.put_op(&format!("{name}{round}"), "3")).to_vec();
        assert!(bench.database.write_many(both, &cx()).await.iter().all(Result::is_ok));
        bench.items(&format!("l{round}")).await;
        bench.database.length(&key(&format!("l{round}")), &cx()).await.unwrap();
        bench.database.trim(&key(&format!("l{round}")), 1, &cx()).await.unwrap();
        bench.delete(&format!("c{round}")).await;
        let delete = |name: &str| Step::Write(Write::delete(key(&format!("{name}{round}")), bench.clock.issue()));
        let steps = vec![
            Step::Write(bench.put_op(&format!("k{round}"), "4")),
            Step::Append(bench.append_op(&format!("l{round}"), "4")),
            delete("c"),
            delete("m"),
            Step::Clear { prefix: KeyPrefix::parse(format!("c{round}")).unwrap(), stamp: bench.clock.issue() },
        ];
        let answers = bench.database.replay(steps, &ReplayOptions::new(Stamp::MIN), &cx()).await;
        assert!(answers.iter().all(Result::is_ok));
        bench
            .database
            .list(&KeyPrefix::parse("k1").unwrap(), &ListOptions::default().with_limit(5), &cx())
            .await
            .unwrap();
    };
    for round in 0..10 {
        calls(round).await;
    }
    let writes = (0..ROWS).map(|number| bench.put_op(&format!("k{number}"), "0")).collect();
    let items = (0..ROWS).map(|number| bench.append_op(&format!("l{number}"), "0")).collect();
    assert!(bench.database.write_many(writes, &cx()).await.iter().all(Result::is_ok));
    assert!(bench.database.append_many(items, &cx()).await.iter().all(Result::is_ok));
    // Statistics of the whole life of the tables: the session tells them when it ends.
    let read = || -> Vec<(String, u64)> {
        let sql = "SELECT relname || ' ' || seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname IN ('kv', 'list', 'item')";
        let row = |line: &str| {
            let (table, count) = line.split_once(' ').unwrap();
            (table.to_owned(), count.parse().unwrap())
        };
        bench.query(sql).lines().map(row).collect()
    };
    for round in 10..10 + ROUNDS {
        calls(round).await;
    }
    bench.database.close(&cx()).await.unwrap();
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agent-storage' AND datname = current_database()";
    assert!(wait_until(|| bench.query(sessions).trim() == "0"));
    for (table, rows) in read() {
        // Ten rows a call at most, of some twelve calls a round.
        assert!(rows <= (10 + ROUNDS) * 12 * 10, "{rows} rows of {table} were read");
    }
}

async fn a_stamp_that_no_clock_gave_is_not_followed() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    bench.query("UPDATE agent_storage.kv SET stamp = '\\xffffffffffffffffffffffffffffffff'");
    let error = bench.database.get(&key("k"), &GetOptions::default(), &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    for value in ["2", "3"] {
        bench.put("k", value).await;
        assert_eq!(bench.get("k").await.as_deref(), Some(value));
    }
    assert!(bench.clock.issue().is_plausible());
}

async fn a_write_mends_a_stamp_that_was_corrupted() {
    let bench = Bench::new();
    // One that sorts after every stamp, and one before.
    for stamp in ["\\xffff", "\\x00"] {
        let harm_value = format!("UPDATE agent_storage.kv SET stamp = '{stamp}'");
        let harm_list = format!("UPDATE agent_storage.list SET floor = '{stamp}', max_stamp = '{stamp}'");
        bench.put("k", "1").await;
        bench.query(&harm_value);
        let error = bench.database.get(&key("k"), &GetOptions::default(), &cx()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let create = bench.database.write(bench.put_if("k", "2", WriteMode::Create), &cx()).await;
        assert_eq!(create.unwrap_err().kind(), ErrorKind::Conflict);
        bench.put("k", "2").await;
        assert_eq!(bench.get("k").await.as_deref(), Some("2"));
        bench.query(&harm_value);
        assert_eq!(bench.delete("k").await.existed, Some(true));
        bench.query(&harm_value);
        bench.database.write(bench.put_if("k", "3", WriteMode::Create), &cx()).await.unwrap();
        assert_eq!(bench.get("k").await.as_deref(), Some("3"));
        bench.append("l", "1").await;
        bench.query(&harm_list);
        let second = bench.append_op("l", "2");
        only(bench.database.append_many(vec![second.clone()], &cx()).await).unwrap();
        bench.query(&harm_list);
        let again = only(bench.database.append_many(vec![second], &cx()).await).unwrap();
        assert_eq!(again.existed, Some(true));
        bench.database.trim(&key("l"), 1, &cx()).await.unwrap();
        assert_eq!(bench.items("l").await, ["2"]);
        bench.query(&harm_list);
        assert_eq!(bench.delete("l").await.existed, Some(true));
        assert!(bench.items("l").await.is_empty());
        bench.append("l", "3").await;
        bench.query(&format!("{harm_value}; {harm_list}"));
        assert_eq!(
            bench.database.clear(&KeyPrefix::empty(), bench.clock.issue(), Attempt::First, &cx()).await.unwrap(),
            Some(2)
        );
    }
}

async fn a_schema_with_an_odd_name_works() {
    let bench = Bench::with(|config| config.schema = "Odd \"na'me\" {now}".to_owned());
    bench.put("k", "1").await;
    bench.append("k", "1").await;
    assert_eq!(bench.get("k").await.as_deref(), Some("1"));
    assert_eq!(bench.another().count(&KeyPrefix::empty(), &cx()).await.unwrap(), 1);
}

async fn nothing_is_kept_in_a_session_behind_a_transaction_pooler() {
    let bench = Bench::with(|config| {
        config.transaction_pooler = true;
        config.pool.max = 1;
        config.statement_timeout = Duration::from_secs(7);
    });
    let revision = bench.put("k", "1").await.revision.unwrap();
    bench.append("k", "1").await;
    bench.database.apply(vec![Step::Append(bench.append_op("k", "2"))], &cx()).await.unwrap();
    let stale = bench.put_if("k", "2", WriteMode::Update(Revision::from_sequence(1)));
    assert_eq!(bench.database.write(stale, &cx()).await.unwrap_err().kind(), ErrorKind::Conflict);
    let update = bench.put_if("k", "2", WriteMode::Update(revision));
    bench.database.write(update, &cx()).await.unwrap();
    assert_eq!(bench.items("k").await, ["1", "2"]);
    // The server's own log of one session: what was prepared or set would be seen by the pooler's next client.
    let server = Postgres::start(PostgresOptions {
        settings: vec![("log_statement", "all".to_owned()), ("log_connections", "on".to_owned())],
        ..PostgresOptions::default()
    });
    let name = server.create_database();
    let mut pooled = config(&server, &name);
    pooled.transaction_pooler = true;
    let database = PostgresDatabase::with_stamps(&pooled, HybridClock::process()).unwrap();
    database.write(Write::put(key("k"), json("1"), HybridClock::process().issue()), &cx()).await.unwrap();
    database.length(&key("k"), &cx()).await.unwrap();
    let log = server.log();
    assert!(log.contains("SET LOCAL statement_timeout"), "{log}");
    assert!(!log.contains("execute sqlx_s_"), "{log}");
    assert!(!log.contains("pg_try_advisory_lock"), "{log}");
}

async fn a_closed_database_leaves_no_connection() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    assert!(!bench.pids("application_name = 'agent-storage'").is_empty());
    bench.database.close(&cx()).await.unwrap();
    bench.database.close(&cx()).await.unwrap();
    let error = bench.database.length(&key("k"), &cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(wait_until(|| bench.pids("application_name = 'agent-storage'").is_empty()));
}

/// Value and list are guarded apart: the first attempt takes the value, and finds a list that was deleted by a clock that is ahead.
async fn a_delete_of_which_half_was_behind_is_brought_to_its_end() {
    let bench = Bench::new();
    bench.put("k", "1").await;
    let hour = Clock::manual();
    hour.advance(Duration::from_secs(3600));
    let theirs = HybridClock::new(hour).issue();
    assert!(theirs > bench.clock.issue() && theirs.is_plausible());
    let floor = theirs.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bench.append("k", "1").await;
    bench.query(&format!(
        "UPDATE agent_storage.list SET floor = decode('{floor}', 'hex'), max_stamp = decode('{floor}', 'hex'), \
         first_position = next_position"
    ));
    let mut options = ChainOptions::new(PATIENCE);
    options.stamps = Arc::clone(&bench.clock);
    let config = DatabaseChainConfig::default();
    let chain = DatabaseChain::open(bench.database.clone(), DatabaseFallback::Memory, &config, options).await.unwrap();
    let delete = Write::delete(key("k"), bench.clock.issue());
    let mut half = delete.clone();
    half.attempt = Attempt::Fixed;
    let answer = chain.write(delete, &cx()).await.unwrap();
    assert_eq!(answer.existed, Some(true), "what the first attempt removed was there");
    let stamps = bench.query("SELECT count(*) FROM agent_storage.kv k JOIN agent_storage.list l ON l.floor = k.stamp");
    assert_eq!(stamps, "1", "value and list were deleted under one stamp");
    let behind = bench.database.write(half, &cx()).await.unwrap_err();
    assert!(behind.is_behind() && !behind.as_behind().unwrap().begun, "{behind}");
}

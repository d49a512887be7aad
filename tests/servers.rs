//! The test support itself: servers start, freeze, come back, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};

use support::process::{children_of, is_alive, is_still, wait_until};
use support::{Nats, PgBouncer, Postgres, PostgresOptions, Process, Redis, Server, Suite};

/// All kinds of servers.
const SERVERS: [Server; 4] = [Server::Postgres, Server::Redis, Server::Nats, Server::PgBouncer];

/// Makes this program start servers, say where, and crash.
const ABANDON: &str = "STORAGE_TEST_ABANDON";

fn main() -> ExitCode {
    if let Ok(server) = std::env::var(ABANDON) {
        abandon(&server);
    }
    let mut suite = Suite::new();
    suite.test("postgres_comes_back_with_its_data", &[Server::Postgres], postgres_comes_back_with_its_data);
    suite.test("postgres_sorts_by_a_language", &[Server::Postgres], postgres_sorts_by_a_language);
    suite.test("postgres_refuses_a_wrong_password", &[Server::Postgres], postgres_refuses_a_wrong_password);
    suite.test("postgres_is_frozen_with_its_children", &[Server::Postgres], postgres_is_frozen_with_its_children);
    suite.test("one_postgres_backend_is_frozen_alone", &[Server::Postgres], one_postgres_backend_is_frozen_alone);
    suite.test("postgres_drops_a_database_in_use", &[Server::Postgres], postgres_drops_a_database_in_use);
    suite.test("redis_takes_arguments_and_forgets", &[Server::Redis], redis_takes_arguments_and_forgets);
    suite.test("redis_is_frozen_and_thawed", &[Server::Redis], redis_is_frozen_and_thawed);
    suite.test("nats_offers_jetstream_if_asked", &[Server::Nats], nats_offers_jetstream_if_asked);
    suite.test("nats_is_killed_and_comes_back", &[Server::Nats], nats_is_killed_and_comes_back);
    for server in SERVERS {
        suite.test(format!("{}_does_not_outlive_a_crash", server.name()), &[server], move || async move {
            does_not_outlive_a_crash(server);
        });
        suite.test(format!("{}_leaves_nothing_when_dropped", server.name()), &[server], move || async move {
            leaves_nothing_when_dropped(server);
        });
    }
    suite.run()
}

async fn postgres_comes_back_with_its_data() {
    let server = Postgres::start(PostgresOptions::default());
    let database = server.create_database();
    server.query(&database, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    server.restart();
    assert_eq!(server.query(&database, "SELECT n FROM t"), "1");
    server.kill();
    assert!(server.try_query(&database, "SELECT 1").is_err());
    server.restart();
    assert_eq!(server.query(&database, "SELECT n FROM t"), "1");
}

async fn postgres_sorts_by_a_language() {
    let server = Postgres::shared();
    let database = server.create_database();
    assert_eq!(server.query(&database, "SELECT 'a' < 'B', 'a' < 'B' COLLATE \"C\""), "t|f");
    assert_eq!(server.query(&database, "SHOW server_encoding"), "UTF8");
}

async fn postgres_refuses_a_wrong_password() {
    let server = Postgres::shared();
    let log_in = |password: &str| {
        let url = server.url("postgres").replace(server.password(), password);
        let psql = Server::Postgres.locate().unwrap().join("psql");
        Command::new(psql).args(["-X", "-c", "SELECT 1", &url]).output().unwrap().status.success()
    };
    assert!(log_in(server.password()));
    assert!(!log_in("wrong"));
}

async fn postgres_is_frozen_with_its_children() {
    let server = Postgres::start(PostgresOptions::default());
    server.freeze();
    let children = children_of(server.pid());
    assert!(!children.is_empty() && children.iter().all(|child| is_still(*child)));
    server.thaw();
    assert_eq!(server.query("postgres", "SELECT 1"), "1");
}

async fn one_postgres_backend_is_frozen_alone() {
    let server = Postgres::start(PostgresOptions::default());
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| server.try_query("postgres", "SELECT pg_sleep(3600)"));
        let find = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3600)'";
        assert!(wait_until(|| !server.query("postgres", find).is_empty()));
        let pid = server.query("postgres", find).parse().unwrap();
        server.freeze_backend(pid);
        assert!(is_still(pid));
        // It is told to end and cannot hear it.
        server.query("postgres", &format!("SELECT pg_terminate_backend({pid})"));
        assert!(is_still(pid) && is_alive(pid));
        server.thaw_backend(pid);
        assert!(sleeper.join().unwrap().is_err());
    });
}

async fn postgres_drops_a_database_in_use() {
    let server = Postgres::shared();
    let database = server.create_database();
    std::thread::scope(|scope| {
        scope.spawn(|| server.try_query(&database, "SELECT pg_sleep(3601)"));
        let find = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3601)'";
        assert!(wait_until(|| !server.query("postgres", find).is_empty()));
        server.drop_database(&database);
    });
    assert!(server.try_query(&database, "SELECT 1").is_err());
}

async fn redis_takes_arguments_and_forgets() {
    let server = Redis::start(&["--requirepass", "secret"]);
    assert!(talk(&server, "PING\r\n").starts_with("-NOAUTH"));
    let answer = talk(&server, "AUTH secret\r\nSET a 1\r\nEXISTS a\r\n");
    assert!(answer.ends_with(":1\r\n"), "{answer}");
    server.restart();
    assert!(talk(&server, "AUTH secret\r\nEXISTS a\r\n").ends_with(":0\r\n"));
}

async fn redis_is_frozen_and_thawed() {
    let server = Redis::start(&[]);
    server.freeze();
    assert!(is_still(server.pid()) && is_alive(server.pid()));
    server.thaw();
    assert!(talk(&server, "PING\r\n").starts_with("+PONG"));
    server.freeze();
    server.stop();
    assert!(TcpStream::connect((server.host(), server.port())).is_err());
}

async fn nats_offers_jetstream_if_asked() {
    assert!(talk(Nats::shared(), "").contains("\"jetstream\":true"));
    let plain = Nats::start(false, "max_payload: 4242");
    let greeting = talk(&plain, "");
    assert!(!greeting.contains("\"jetstream\":true") && greeting.contains("\"max_payload\":4242"), "{greeting}");
}

async fn nats_is_killed_and_comes_back() {
    let server = Nats::start(true, "");
    let (port, pid) = (server.port(), server.pid());
    server.kill();
    assert!(!is_alive(pid) && TcpStream::connect((server.host(), port)).is_err());
    server.restart();
    assert_eq!(server.port(), port);
    assert!(talk(&server, "").starts_with("INFO "));
}

fn leaves_nothing_when_dropped(server: Server) {
    start(server, |process| {
        process.freeze();
        let mut pids = children_of(process.pid());
        pids.push(process.pid());
        (pids, process.folder().to_owned())
    })
    .assert_gone();
}

fn does_not_outlive_a_crash(server: Server) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).env(ABANDON, server.name()).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (folder, pids) = text.trim().split_once('\n').expect("the folder and the numbers of the processes");
    Left(pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect(), folder.into()).assert_gone();
}

/// Starts a server, says where its folder is and what its processes are, and crashes while they are frozen.
fn abandon(name: &str) -> ! {
    let server = SERVERS.into_iter().find(|server| server.name() == name);
    start(server.expect("a server's name"), |process| {
        process.freeze();
        let mut out = std::io::stdout();
        writeln!(out, "{}", process.folder().display()).unwrap();
        for pid in children_of(process.pid()).into_iter().chain([process.pid()]) {
            write!(out, "{pid} ").unwrap();
        }
        out.flush().unwrap();
        std::process::abort();
    });
    unreachable!("it crashed");
}

/// The processes and the folder of a server that is no more.
struct Left(Vec<u32>, std::path::PathBuf);

impl Left {
    fn assert_gone(&self) {
        let Self(pids, folder) = self;
        assert!(!pids.is_empty());
        assert!(wait_until(|| !pids.iter().any(|pid| is_alive(*pid))), "still alive: {pids:?}");
        assert!(wait_until(|| !Path::exists(folder)), "still there: {}", folder.display());
    }
}

/// Starts a server of a kind, looks at it and drops it.
fn start(server: Server, look: impl FnOnce(&Process) -> (Vec<u32>, std::path::PathBuf)) -> Left {
    let (pids, folder) = match server {
        Server::Postgres => look(&Postgres::start(PostgresOptions::default())),
        Server::Redis => look(&Redis::start(&[])),
        Server::Nats => look(&Nats::start(true, "")),
        // There need not be anything behind it.
        Server::PgBouncer => look(&PgBouncer::start(SocketAddr::from(([127, 0, 0, 1], 9)), "nobody", "")),
        Server::Mounts => unreachable!("no server"),
    };
    Left(pids, folder)
}

/// Says something to a server, tells it that this was all, and reads what it answers; without anything to say, its first line.
fn talk(process: &Process, words: &str) -> String {
    let mut stream = TcpStream::connect((process.host(), process.port())).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream.write_all(words.as_bytes()).unwrap();
    let expected_lines = words.lines().count().max(1);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.iter().filter(|byte| **byte == b'\n').count() < expected_lines {
        let length = stream.read(&mut chunk).unwrap();
        assert_ne!(length, 0, "the server hung up");
        answer.extend(chunk.iter().take(length));
    }
    String::from_utf8(answer).unwrap()
}

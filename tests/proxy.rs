//! The TCP fault proxy does what it says, before a plain server and before PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{self, ErrorKind};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use agent_storage::testkit::{Direction, FaultProxy, NetworkFault, Point};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use support::process::wait_until;
use support::{Postgres, Server, Suite};

/// How long nothing is heard before it counts as silence. A slow machine can only make the tests that use it less sharp, never fail.
const SILENCE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let mut suite = Suite::new();
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[], $name);)* };
    }
    tests! {
        everything_passes_and_is_counted
        an_end_of_one_direction_is_passed_on
        refused_connections_come_back_on_the_same_port
        open_connections_outlive_a_refusal_until_they_are_reset
        a_client_of_a_server_that_is_down_is_reset
        those_who_connect_are_led_to_another_server_and_nobody_else_is
        a_black_hole_swallows_and_then_resets
        what_was_stalled_arrives_late
        latency_holds_up_both_directions
        slices_pass_one_at_a_time
        half_close_leaves_the_other_direction_open
        a_cut_comes_after_exactly_so_many_bytes
        a_pattern_is_cut_before_it_arrives
        a_fault_set_once_hits_once
        a_lost_reply_silences_both_directions
        close_leaves_no_task_and_no_port
        drop_leaves_no_task_and_no_port
    }
    suite.test("the_reply_to_a_commit_is_cut", &[Server::Postgres], the_reply_to_a_commit_is_cut);
    suite.run()
}

async fn everything_passes_and_is_counted() {
    let (proxy, server) = proxy().await;
    let (mut client, mut peer) = connect(&proxy, &server).await;
    let sent: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
    let (mut reader, mut writer) = client.split();
    let write = async { writer.write_all(&sent).await.unwrap() };
    let echo = async {
        let mut received = vec![0; sent.len()];
        peer.read_exact(&mut received).await.unwrap();
        peer.write_all(&received).await.unwrap();
    };
    let mut back = vec![0; sent.len()];
    let (_, _, read) = tokio::join!(write, echo, reader.read_exact(&mut back));
    read.unwrap();
    assert!(sent == back);
    assert_eq!((proxy.accepted(), proxy.open(), proxy.hits(), proxy.lost()), (1, 1, 0, 0));
}

async fn an_end_of_one_direction_is_passed_on() {
    let (proxy, server) = proxy().await;
    let (mut client, mut peer) = connect(&proxy, &server).await;
    client.shutdown().await.unwrap();
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
    say(&mut peer, b"still here").await;
    hear(&mut client, b"still here").await;
}

async fn refused_connections_come_back_on_the_same_port() {
    let (proxy, server) = proxy().await;
    proxy.set(NetworkFault::Refuse).await.unwrap();
    let error = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    proxy.set(NetworkFault::Pass).await.unwrap();
    connect(&proxy, &server).await;
    assert_eq!(proxy.accepted(), 1);
}

async fn open_connections_outlive_a_refusal_until_they_are_reset() {
    let (proxy, server) = proxy().await;
    let (mut client, mut peer) = connect(&proxy, &server).await;
    proxy.set(NetworkFault::Refuse).await.unwrap();
    say(&mut client, b"a").await;
    hear(&mut peer, b"a").await;
    proxy.reset().await;
    assert_eq!(proxy.open(), 0);
    is_reset(&mut client).await;
    is_reset(&mut peer).await;
}

async fn a_client_of_a_server_that_is_down_is_reset() {
    let (proxy, server) = proxy().await;
    drop(server);
    let attempt = async {
        let mut client = TcpStream::connect(proxy.address()).await?;
        client.read(&mut [0; 8]).await
    };
    assert_eq!(attempt.await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

async fn those_who_connect_are_led_to_another_server_and_nobody_else_is() {
    let (proxy, server) = proxy().await;
    let (mut old, mut old_peer) = connect(&proxy, &server).await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.lead_to(other.local_addr().unwrap()).await;
    let (mut new, mut new_peer) = connect(&proxy, &other).await;
    say(&mut new, b"new").await;
    hear(&mut new_peer, b"new").await;
    say(&mut old, b"old").await;
    hear(&mut old_peer, b"old").await;
    proxy.lead_to(server.local_addr().unwrap()).await;
    connect(&proxy, &server).await;
}

async fn a_black_hole_swallows_and_then_resets() {
    let (proxy, server) = proxy().await;
    let (mut old, mut old_peer) = connect(&proxy, &server).await;
    proxy.set(NetworkFault::BlackHole).await.unwrap();
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    for stream in [&mut old, &mut new, &mut old_peer] {
        say(stream, b"xx").await;
    }
    assert!(wait_until(|| proxy.lost() == 6));
    is_silent(&mut old).await;
    is_silent(&mut old_peer).await;
    proxy.set(NetworkFault::Pass).await.unwrap();
    for stream in [&mut old, &mut new, &mut old_peer] {
        is_reset(stream).await;
    }
}

async fn what_was_stalled_arrives_late() {
    let (proxy, server) = proxy().await;
    let (mut client, mut peer) = connect(&proxy, &server).await;
    proxy.set(NetworkFault::Stall).await.unwrap();
    say(&mut client, b"question").await;
    client.shutdown().await.unwrap();
    say(&mut peer, b"answer").await;
    is_silent(&mut client).await;
    is_silent(&mut peer).await;
    proxy.set(NetworkFault::Pass).await.unwrap();
    hear(&mut peer, b"question").await;
    hear(&mut client, b"answer").await;
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
}

async fn latency_holds_up_both_directions() {
    let (proxy, server) = proxy().await;
    let (mut client, mut peer) = connect(&proxy, &server).await;
    proxy.set(NetworkFault::Latency(SILENCE)).await.unwrap();
    let start = Instant::now();
    say(&mut client, b"question").await;
    hear(&mut peer, b"question").await;
    say(&mut peer, b"answer").await;
    hear(&mut client, b"answer").await;
    assert!(start.elapsed() >= 2 * SILENCE);
}

async fn slices_pass_one_at_a_time() {
    let (proxy, server) = proxy().await;
    let (mut client, mut peer) = connect(&proxy, &server).await;
    proxy.set(NetworkFault::Slice { bytes: 2, pause: Duration::from_secs(3600) }).await.unwrap();
    say(&mut client, b"abcde").await;
    hear(&mut peer, b"ab").await;
    is_silent(&mut peer).await;
    proxy.set(NetworkFault::Slice { bytes: 0, pause: Duration::ZERO }).await.unwrap();
    hear(&mut peer, b"cde").await;
}

async fn half_close_leaves_the_other_direction_open() {
    let (proxy, server) = proxy().await;
    let (mut client, mut peer) = connect(&proxy, &server).await;
    proxy.set(NetworkFault::HalfClose(Direction::ToServer)).await.unwrap();
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
    say(&mut client, b"not heard").await;
    say(&mut peer, b"answer").await;
    hear(&mut client, b"answer").await;
}

async fn a_cut_comes_after_exactly_so_many_bytes() {
    let (proxy, server) = proxy().await;
    let (mut client, mut peer) = connect(&proxy, &server).await;
    say(&mut peer, b"before").await;
    hear(&mut client, b"before").await;
    proxy.set(NetworkFault::CutAt(Direction::ToClient, Point::Bytes(5))).await.unwrap();
    say(&mut client, b"the other direction is not counted").await;
    hear(&mut peer, b"the other direction is not counted").await;
    say(&mut peer, b"abc").await;
    hear(&mut client, b"abc").await;
    say(&mut peer, b"defg").await;
    hear(&mut client, b"de").await;
    is_reset(&mut client).await;
    is_reset(&mut peer).await;
    assert_eq!(proxy.hits(), 1);
}

async fn a_pattern_is_cut_before_it_arrives() {
    let (proxy, server) = proxy().await;
    proxy.set(NetworkFault::CutAt(Direction::ToClient, Point::Pattern(b"OK".to_vec()))).await.unwrap();
    for round in 1..=2 {
        let (mut client, mut peer) = connect(&proxy, &server).await;
        say(&mut client, b"OK").await;
        hear(&mut peer, b"OK").await;
        say(&mut peer, b"NO OK").await;
        hear(&mut client, b"NO ").await;
        is_reset(&mut client).await;
        assert_eq!(proxy.hits(), round);
    }
}

async fn a_fault_set_once_hits_once() {
    let (proxy, server) = proxy().await;
    proxy.set_once(NetworkFault::CutAt(Direction::ToServer, Point::Bytes(1))).await.unwrap();
    let (mut first, mut first_peer) = connect(&proxy, &server).await;
    let (mut second, mut second_peer) = connect(&proxy, &server).await;
    say(&mut first, b"x").await;
    is_reset(&mut first).await;
    hear(&mut first_peer, b"x").await;
    say(&mut second, b"y").await;
    hear(&mut second_peer, b"y").await;
    assert_eq!(proxy.hits(), 1);
}

async fn a_lost_reply_silences_both_directions() {
    let (proxy, server) = proxy().await;
    proxy.set_once(NetworkFault::LoseFrom(Direction::ToClient, Point::Bytes(0))).await.unwrap();
    let (mut client, mut peer) = connect(&proxy, &server).await;
    say(&mut client, b"write").await;
    hear(&mut peer, b"write").await;
    say(&mut peer, b"done").await;
    assert!(wait_until(|| proxy.lost() == 4));
    say(&mut client, b"are you there").await;
    assert!(wait_until(|| proxy.lost() == 17));
    is_silent(&mut client).await;
    // Others pass; it stays silent until the next fault is set.
    let (mut other, mut other_peer) = connect(&proxy, &server).await;
    say(&mut other, b"x").await;
    hear(&mut other_peer, b"x").await;
    is_silent(&mut client).await;
    proxy.set(NetworkFault::Pass).await.unwrap();
    is_reset(&mut client).await;
    is_reset(&mut peer).await;
}

async fn close_leaves_no_task_and_no_port() {
    let tasks = alive_tasks();
    let (proxy, server) = proxy().await;
    let (address, (mut client, _peer)) = (proxy.address(), connect(&proxy, &server).await);
    proxy.set(NetworkFault::BlackHole).await.unwrap();
    proxy.close().await;
    // The runtime takes a task off its books a moment after it ended.
    assert!(wait_until(|| alive_tasks() == tasks));
    is_reset(&mut client).await;
    TcpListener::bind(address).await.expect("the port is free");
}

async fn drop_leaves_no_task_and_no_port() {
    let tasks = alive_tasks();
    let (proxy, server) = proxy().await;
    let (address, _streams) = (proxy.address(), connect(&proxy, &server).await);
    drop(proxy);
    assert!(wait_until(|| alive_tasks() == tasks));
    TcpListener::bind(address).await.expect("the port is free");
}

async fn the_reply_to_a_commit_is_cut() {
    let server = Postgres::shared();
    let database = server.create_database();
    server.query(&database, "CREATE TABLE t (n int); GRANT ALL ON t TO PUBLIC");
    let address = (server.host(), server.port());
    let proxy = FaultProxy::start(tokio::net::lookup_host(address).await.unwrap().next().unwrap()).await.unwrap();
    let psql = Server::Postgres.locate().unwrap().join("psql");
    let url = server.url(&database).replace(&server.port().to_string(), &proxy.address().port().to_string());
    let commit = |number: u8| {
        let sql = format!("BEGIN; INSERT INTO t VALUES ({number}); COMMIT");
        Command::new(&psql).args(["-X", "-c", &sql, &url]).output().unwrap().status.success()
    };
    assert!(commit(1));
    proxy.set(NetworkFault::CutAt(Direction::ToClient, Point::postgres_commit())).await.unwrap();
    assert!(!commit(2));
    assert_eq!(proxy.hits(), 1);
    assert_eq!(server.query(&database, "SELECT n FROM t ORDER BY n"), "1\n2");
}

/// A server and a proxy before it.
async fn proxy() -> (FaultProxy, TcpListener) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (FaultProxy::start(server.local_addr().unwrap()).await.unwrap(), server)
}

/// Both ends of a connection through the proxy.
async fn connect(proxy: &FaultProxy, server: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    let (peer, _) = server.accept().await.unwrap();
    (client, peer)
}

async fn say(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}

/// Reads exactly these bytes.
async fn hear(stream: &mut TcpStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, bytes);
}

async fn is_silent(stream: &mut TcpStream) {
    let heard = tokio::time::timeout(SILENCE, stream.read(&mut [0; 64])).await;
    assert!(heard.is_err(), "not silent: {heard:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let outcome: io::Result<usize> = stream.read(&mut [0; 64]).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

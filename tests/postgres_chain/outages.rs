//! The server dies, freezes, or cannot be reached.

use std::time::{Duration, Instant};

use agent_storage::chain::ChainState;
use agent_storage::contract::{Durability, LostOperation};
use agent_storage::testkit::{Direction, NetworkFault, Point};
use agent_storage::{ErrorKind, Value};

use crate::rig::Rig;
use crate::support::{Server, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        what_is_written_while_the_server_is_dead_is_there_when_it_lives_again
        what_is_written_while_the_server_is_frozen_is_not_undone_when_it_thaws
        a_line_that_refuses_resets_or_swallows_costs_nothing
        what_is_owed_comes_home_over_a_line_that_is_too_slow_for_the_pace
        a_write_whose_reply_is_lost_has_effect_once
        a_transaction_whose_commit_is_not_heard_of_is_looked_up
        a_replay_whose_commit_is_not_heard_of_is_repeated_without_effect
        a_line_with_long_round_trips_comes_back
        a_connection_that_falls_silent_for_good_keeps_neither_a_replay_nor_a_start_waiting
        what_others_write_meanwhile_is_in_conflict_and_kept
        what_is_owed_outlives_the_process
    }
}

async fn what_is_written_while_the_server_is_dead_is_there_when_it_lives_again() {
    Rig::new().await.outlive_the_server().await;
}

async fn what_is_written_while_the_server_is_frozen_is_not_undone_when_it_thaws() {
    let rig = Rig::new().await;
    rig.prepare().await;
    rig.server.freeze();
    // The first one is sent, and lies with the frozen server; the next ones are newer.
    assert_eq!(rig.database.set_json("k", &1).await.unwrap().durability, Durability::Local);
    assert_eq!(rig.database.set_json("k", &2).await.unwrap().durability, Durability::Local);
    rig.owe().await;
    rig.until(|status| status.state == ChainState::Degraded).await;
    rig.assert_owed().await;
    rig.server.thaw();
    rig.until_normal().await;
    rig.assert_paid().await;
    assert_eq!(rig.others.get_json("k").await.unwrap(), Some(2));
    // What was sent and given up has come to its end by now.
    let busy = "state = 'active' AND backend_type = 'client backend'";
    assert!(crate::support::process::wait_until(|| rig.pids(busy).is_empty()));
    assert_eq!(rig.others.get_json("k").await.unwrap(), Some(2));
}

async fn a_line_that_refuses_resets_or_swallows_costs_nothing() {
    let rig = Rig::new().await;
    rig.prepare().await;
    let mut items = vec![1];
    let faults = [NetworkFault::Refuse, NetworkFault::BlackHole, NetworkFault::Stall, NetworkFault::Refuse];
    for (number, fault) in (2..).zip(faults) {
        let resets = fault == NetworkFault::Refuse;
        rig.proxy.set(fault).await.unwrap();
        if resets {
            rig.proxy.reset().await;
        }
        assert_eq!(rig.database.set_json("k", &number).await.unwrap().durability, Durability::Local);
        assert_eq!(rig.database.append_json("list", &number).await.unwrap().durability, Durability::Local);
        items.push(number);
        assert!(matches!(rig.database.get("other").await.map_err(|error| error.kind()), Err(ErrorKind::Unavailable)));
        rig.connect().await;
        rig.until_normal().await;
        assert_eq!(rig.others.get_json("k").await.unwrap(), Some(number));
        assert_eq!(rig.others.range_json::<i64>("list", 0, -1).await.unwrap(), items);
    }
}

async fn what_is_owed_comes_home_over_a_line_that_is_too_slow_for_the_pace() {
    // The server sees a transaction that is idle for longer than it may be while a large value is on its way.
    let rig = Rig::with("idleInTransactionTimeout: 2s").await;
    rig.prepare().await;
    rig.proxy.set(NetworkFault::Refuse).await.unwrap();
    rig.proxy.reset().await;
    // More than comes through in the time that a replay has at first.
    let large = "x".repeat(1_500_000);
    assert_eq!(rig.database.set_json("large", &large).await.unwrap().durability, Durability::Local);
    assert_eq!(rig.database.set_json("k", &2).await.unwrap().durability, Durability::Local);
    rig.proxy.set(NetworkFault::Slice { bytes: 16 << 10, pause: Duration::from_millis(70) }).await.unwrap();
    rig.until_normal().await;
    assert_eq!(rig.others.get_json("k").await.unwrap(), Some(2));
    assert!(rig.others.get_json::<String>("large").await.unwrap().is_some_and(|stored| stored == large));
}

async fn a_write_whose_reply_is_lost_has_effect_once() {
    let rig = Rig::new().await;
    rig.prepare().await;
    for number in 2..6_i64 {
        rig.proxy.set_once(NetworkFault::CutAt(Direction::ToClient, Point::Bytes(0))).await.unwrap();
        assert!(rig.database.append_json("list", &number).await.is_ok());
        rig.until_normal().await;
        rig.proxy.set_once(NetworkFault::CutAt(Direction::ToClient, Point::Bytes(0))).await.unwrap();
        assert!(rig.database.set_json("k", &number).await.is_ok());
        rig.until_normal().await;
        rig.connect().await;
        assert_eq!(rig.others.get_json("k").await.unwrap(), Some(number));
    }
    assert_eq!(rig.others.range_json::<i64>("list", 0, -1).await.unwrap(), [1, 2, 3, 4, 5]);
    assert!(rig.proxy.hits() >= 4, "{}", rig.proxy.hits());
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

async fn a_transaction_whose_commit_is_not_heard_of_is_looked_up() {
    let rig = Rig::new().await;
    rig.prepare().await;
    rig.proxy.set_once(NetworkFault::CutAt(Direction::ToClient, Point::postgres_commit())).await.unwrap();
    let transaction = rig.database.transaction().set_json("k", &1).unwrap().append_json("list", &2).unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(rig.proxy.hits(), 1);
    rig.connect().await;
    rig.until_normal().await;
    assert_eq!(rig.database.get_json("k").await.unwrap(), Some(1));
    assert_eq!(rig.database.range_json::<i64>("list", 0, -1).await.unwrap(), [1, 2]);
}

async fn a_replay_whose_commit_is_not_heard_of_is_repeated_without_effect() {
    let rig = Rig::new().await;
    rig.prepare().await;
    rig.cut_off().await;
    rig.owe().await;
    for number in 4..40 {
        rig.database.append_json("list", &number).await.unwrap();
    }
    rig.proxy.set_once(NetworkFault::CutAt(Direction::ToClient, Point::postgres_commit())).await.unwrap();
    rig.until_normal().await;
    assert!(rig.proxy.hits() >= 1, "no commit was lost");
    let expected: Vec<i64> = (1..40).collect();
    assert_eq!(rig.others.range_json::<i64>("list", 0, -1).await.unwrap(), expected);
    assert_eq!(rig.others.get_json("owed").await.unwrap(), Some(2));
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

async fn a_line_with_long_round_trips_comes_back() {
    let rig = Rig::new().await;
    rig.prepare().await;
    rig.cut_off().await;
    rig.owe().await;
    // To connect takes longer than a probe may.
    rig.proxy.set(NetworkFault::Latency(Duration::from_millis(100))).await.unwrap();
    let began = Instant::now();
    rig.until_normal().await;
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    rig.assert_paid().await;
}

async fn a_connection_that_falls_silent_for_good_keeps_neither_a_replay_nor_a_start_waiting() {
    let mut rig = Rig::new().await;
    rig.prepare().await;
    rig.cut_off().await;
    rig.owe().await;
    // All other connections work, and this one is never closed.
    let lost = || NetworkFault::LoseFrom(Direction::ToClient, Point::postgres_commit());
    let hits = rig.proxy.hits();
    rig.proxy.set_once(lost()).await.unwrap();
    let began = Instant::now();
    rig.until_normal().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    rig.assert_paid().await;
    assert_eq!(rig.proxy.hits(), hits + 1);
    rig.proxy.set_once(lost()).await.unwrap();
    let began = Instant::now();
    rig.start_anew().await;
    rig.until_normal().await;
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    assert_eq!(rig.proxy.hits(), hits + 2);
}

async fn what_others_write_meanwhile_is_in_conflict_and_kept() {
    let rig = Rig::new().await;
    rig.prepare().await;
    rig.cut_off().await;
    rig.database.set_json("ours loses", &1).await.unwrap();
    rig.others.set_json("theirs loses", &2).await.unwrap();
    rig.others.append_json("list", &2).await.unwrap();
    rig.others.set_json("ours loses", &2).await.unwrap();
    rig.database.set_json("theirs loses", &1).await.unwrap();
    rig.database.append_json("list", &3).await.unwrap();
    rig.connect().await;
    rig.until_normal().await;
    assert_eq!(rig.database.get_json("ours loses").await.unwrap(), Some(2));
    assert_eq!(rig.database.get_json("theirs loses").await.unwrap(), Some(1));
    assert_eq!(rig.database.range_json::<i64>("list", 0, -1).await.unwrap(), [1, 2, 3]);
    let lost = rig.database.conflicts().collect().await.unwrap();
    let mut kept: Vec<_> = lost.iter().map(|record| (record.key.as_str(), record.operation.clone())).collect();
    kept.sort_by_key(|(key, _)| *key);
    let put = |number| LostOperation::Put { value: Value::from_integer(number), expires_at: None };
    assert_eq!(kept, [("ours loses", put(1)), ("theirs loses", put(2))]);
    for record in &lost {
        assert!(rig.database.forget_conflict(record.key.clone(), record.stamp).await.unwrap());
    }
    assert!(rig.database.conflicts().collect().await.unwrap().is_empty());
}

async fn what_is_owed_outlives_the_process() {
    let mut rig = Rig::new().await;
    rig.prepare().await;
    rig.server.kill();
    rig.owe().await;
    rig.start_anew().await;
    rig.assert_owed().await;
    rig.server.restart();
    rig.until_normal().await;
    rig.assert_paid().await;
}

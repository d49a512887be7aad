//! Processes that die while the primary is owed something, and those that come after them.

use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::contract::{
    Append, Context, DatabaseBackend, Durability, ReplayOptions, Step, Store, Write, WriteMode, WriteOp,
};
use agent_storage::testkit::Fault;
use agent_storage::{Clock, HybridClock, Key, KeyPrefix, Ttl, Value};

use crate::machine::{Machine, Process};
use crate::rig::soon;

#[tokio::test]
async fn a_replay_that_a_crash_broke_off_knows_when_the_outage_began() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    // A clear is replayed alone, so that the crash comes between the two.
    let clear = process.stamps.issue();
    process.chain.clear(&KeyPrefix::parse("x:").unwrap(), clear, Default::default(), &soon()).await.unwrap();
    machine.clock.advance(Duration::from_secs(1));
    let theirs = HybridClock::new(machine.clock.clone());
    let write = Write::put(Key::parse("k").unwrap(), Value::from_integer(3), theirs.issue());
    machine.picky.write(write, &soon()).await.unwrap();
    machine.clock.advance(ReplayOptions::CLOCK_SKEW * 3);
    process.owe("k", 2).await;
    machine.picky.take_replays(1);
    machine.faults.heal();
    process.until(|status| status.pending == 1).await;
    assert_eq!(machine.picky.replays_left(), 0);
    machine.kill([process]).await;
    machine.picky.take_replays(u64::MAX);
    let heir = machine.start().await;
    heir.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(machine.primary.get_json("k").await.unwrap(), Some(2));
    assert_eq!(machine.lost().await, [("k".to_owned(), 3)]);
}

#[tokio::test]
async fn of_two_processes_that_died_degraded_the_newer_write_wins_and_the_other_is_kept() {
    let machine = Machine::new();
    let (one, other) = (machine.start().await, machine.start().await);
    machine.fall();
    one.owe("a", 1).await;
    other.stamps.observe(one.owe("b", 1).await);
    let newer = other.owe("a", 2).await;
    other.owe("b", 2).await;
    one.stamps.observe(newer);
    one.owe("c", 1).await;
    one.owe("a", 3).await;
    machine.kill([one, other]).await;
    let heir = machine.start().await;
    assert_eq!((heir.chain.status().pending, heir.number("a").await), (6, Some(3)), "all are known at once");
    machine.faults.heal();
    heir.until(|status| status.state == ChainState::Normal).await;
    let stored = async |key: &str| machine.primary.get_json::<i64>(key).await.unwrap();
    assert_eq!((stored("a").await, stored("b").await, stored("c").await), (Some(3), Some(2), Some(1)));
    assert_eq!(machine.lost().await, [("b".to_owned(), 1), ("a".to_owned(), 2)]);
}

#[tokio::test]
async fn what_a_process_takes_over_it_replaces_without_a_conflict() {
    for machine in [Machine::new(), Machine::new().where_the_primary_wins()] {
        let first = machine.start().await;
        machine.fall();
        first.owe("k", 0).await;
        machine.kill([first]).await;
        for life in 1..4 {
            let heir = machine.start().await;
            assert_eq!(heir.number("k").await, Some(life - 1));
            heir.owe("k", life).await;
            machine.kill([heir]).await;
        }
        machine.faults.heal();
        let last = machine.start().await;
        last.until(|status| status.state == ChainState::Normal).await;
        assert_eq!(machine.primary.get_json("k").await.unwrap(), Some(3));
        assert_eq!(machine.lost().await, []);
    }
}

#[tokio::test]
async fn what_processes_knew_of_each_other_takes_a_row_a_start() {
    const LIVES: i64 = 12;
    let machine = Machine::new();
    machine.fall();
    let mut process = machine.start().await;
    // Whatever becomes of the others, this one stays: it is not taken.
    process.owe("stays", 13).await;
    for life in 0..LIVES {
        machine.kill([process]).await;
        process = machine.start().await;
        process.owe("k", life).await;
    }
    let [journal] = &machine.journals()[..] else { panic!("{:?}", machine.journals()) };
    let count = "SELECT count(*) FROM succession";
    let connection = rusqlite::Connection::open(journal).unwrap();
    assert_eq!(connection.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), LIVES);
    machine.faults.heal();
    process.until(|status| status.state == ChainState::Normal && status.parked == 1).await;
    assert_eq!((machine.primary.get_json("k").await.unwrap(), machine.lost().await), (Some(LIVES - 1), vec![]));
}

#[tokio::test]
async fn what_the_process_before_wrote_is_replaced_without_a_conflict_though_it_owed_nothing() {
    const OUTAGES: [&str; 2] = ["first", "second"];
    for machine in [Machine::new(), Machine::new().where_the_primary_wins()] {
        let mut process = machine.start().await;
        for life in 1..4 {
            for key in OUTAGES {
                let write = Write::put(Key::parse(key).unwrap(), Value::from_integer(life), process.stamps.issue());
                assert_eq!(process.chain.write(write, &soon()).await.unwrap().durability, Durability::Primary);
            }
            // In order, and by a crash.
            if life % 2 == 0 {
                process.chain.close(&soon()).await.unwrap();
            }
            machine.kill([process]).await;
            machine.fall();
            process = machine.start().await;
            for key in OUTAGES {
                machine.fall();
                process.owe(key, -life).await;
                machine.faults.heal();
                process.until(|status| status.state == ChainState::Normal).await;
                assert_eq!(machine.primary.get_json(key).await.unwrap(), Some(-life));
            }
        }
        assert_eq!(machine.lost().await, []);
    }
}

#[tokio::test]
async fn a_clock_that_went_back_while_nothing_ran_gives_no_older_stamps() {
    let machine = Machine::new();
    let first = machine.start().await;
    machine.fall();
    let before = first.owe("k", 1).await;
    machine.kill([first]).await;
    machine.clock.rewind(Duration::from_secs(30));
    let heir = machine.start().await;
    assert!(heir.owe("k", 2).await > before);
    assert_eq!(heir.number("k").await, Some(2));
    machine.faults.heal();
    heir.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(machine.primary.get_json("k").await.unwrap(), Some(2));
    // It went back while nothing was owed, too: what was written normally counts as much.
    let normal = heir.stamps.issue();
    machine.kill([heir]).await;
    machine.clock.rewind(Duration::from_secs(30));
    let heir = machine.start().await;
    assert!(heir.stamps.issue() > normal);
}

/// How far ahead of the wall clock a process gives its stamps.
fn runs_ahead(machine: &Machine, process: &Process) -> Duration {
    process.stamps.issue().timestamp().since(machine.clock.now())
}

#[tokio::test]
async fn one_start_after_the_other_brings_the_stamps_hardly_further_ahead() {
    const LIVES: u32 = 20;
    let machine = Machine::new();
    let mut process = machine.start().await;
    for _ in 0..LIVES {
        process.chain.close(&soon()).await.unwrap();
        process = machine.start().await;
    }
    assert!(runs_ahead(&machine, &process) < Duration::from_secs(1), "{:?}", runs_ahead(&machine, &process));
    // What was closed in order gives no older ones either.
    let last = process.stamps.issue();
    process.chain.close(&soon()).await.unwrap();
    machine.clock.rewind(Duration::from_secs(30));
    process = machine.start().await;
    assert!(process.stamps.issue() > last);
    machine.clock.advance(Duration::from_secs(30));
    for _ in 0..LIVES {
        machine.kill([process]).await;
        process = machine.start().await;
    }
    let most = Duration::from_secs(60) + LIVES * Duration::from_secs(1);
    assert!(runs_ahead(&machine, &process) < most, "{:?}", runs_ahead(&machine, &process));
}

#[tokio::test]
async fn what_others_wrote_is_kept_also_where_stamps_run_ahead_of_the_wall_clock() {
    let mut machine = Machine::new();
    // Nobody but the test calls the primary.
    machine.config.breaker.probe_interval = Duration::from_secs(3600);
    let process = machine.start().await;
    process.stamps.observe(ahead(1).issue());
    machine.picky.take_replays(0);
    machine.faults.set_for_next(Fault::Hang, 1);
    let write = Write::put(Key::parse("k").unwrap(), Value::from_integer(1), process.stamps.issue());
    let ack = process.chain.write(write, &Context::with_timeout(Duration::from_millis(400))).await.unwrap();
    assert_eq!((ack.durability, process.chain.status().state), (Durability::Local, ChainState::Reconciling));
    machine.clock.advance(Duration::from_secs(1));
    let theirs = HybridClock::new(machine.clock.clone()).issue();
    machine.picky.write(Write::put(Key::parse("k").unwrap(), Value::from_integer(2), theirs), &soon()).await.unwrap();
    machine.picky.take_replays(u64::MAX);
    process.until(|status| status.state == ChainState::Normal && status.pending == 0).await;
    assert_eq!(machine.primary.get_json("k").await.unwrap(), Some(1));
    assert_eq!(machine.lost().await, [("k".to_owned(), 2)]);
}

/// Somebody else's clock, ahead of all that was given so far.
fn ahead(hours: u64) -> HybridClock {
    let wall = Clock::manual();
    wall.advance(Duration::from_secs(hours * 3600));
    HybridClock::new(wall)
}

#[tokio::test]
async fn a_clock_that_is_behind_learns_from_what_stands_in_its_way() {
    let machine = Machine::new();
    let process = machine.start().await;
    let key = |name: &str| Key::parse(name).unwrap();
    let put = |name: &str, number, stamp| Write::put(key(name), Value::from_integer(number), stamp);
    let append = |name: &str, number, stamp| Append::new(key(name), Value::from_integer(number), stamp);
    let theirs = async |hours: u64| {
        let stamps = ahead(hours);
        machine.picky.write(put("k", 1, stamps.issue()), &soon()).await.unwrap();
        machine.picky.append_many(vec![append("list", 1, stamps.issue())], &soon()).await.remove(0).unwrap();
        machine.picky.write(Write::delete(key("list"), stamps.issue()), &soon()).await.unwrap();
    };
    theirs(1).await;
    let ack = process.chain.write(put("k", 2, process.stamps.issue()), &soon()).await.unwrap();
    assert_eq!((ack.durability, process.number("k").await), (Durability::Primary, Some(2)));
    theirs(2).await;
    let items = vec![append("list", 2, process.stamps.issue())];
    assert_eq!(process.chain.append_many(items, &soon()).await.remove(0).unwrap().durability, Durability::Primary);
    assert_eq!(machine.primary.length("list").await.unwrap(), 1);
    theirs(3).await;
    let steps = vec![Step::Write(put("k", 3, process.stamps.issue()))];
    process.chain.apply(steps, &soon()).await.unwrap();
    assert_eq!(process.number("k").await, Some(3));
    theirs(4).await;
    let (all, stamp) = (KeyPrefix::empty(), process.stamps.issue());
    assert_eq!(process.chain.clear(&all, stamp, Default::default(), &soon()).await.unwrap(), Some(1));
    assert_eq!(process.number("k").await, None);
}

#[tokio::test]
async fn a_write_in_an_outage_is_newer_than_what_its_writer_had_read() {
    let machine = Machine::new();
    let process = machine.start().await;
    let write = Write::put(Key::parse("k").unwrap(), Value::from_integer(1), ahead(1).issue());
    machine.picky.write(write, &soon()).await.unwrap();
    assert_eq!(process.number("k").await, Some(1));
    machine.fall();
    process.owe("k", 2).await;
    machine.faults.heal();
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(machine.primary.get_json("k").await.unwrap(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_start_at_once_one_takes_a_journal_over_and_replays_it_once() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    process.owe("k", 1).await;
    for item in 100..120 {
        process.owe_item("list", item).await;
    }
    machine.kill([process]).await;
    machine.faults.heal();
    let heirs = futures_util::future::join_all((0..8).map(|_| machine.start())).await;
    for heir in &heirs {
        heir.until(|status| status.state == ChainState::Normal).await;
    }
    let replayed: Vec<u64> = heirs.iter().map(|heir| heir.chain.status().replayed).filter(|count| *count > 0).collect();
    assert_eq!(replayed, [21]);
    assert_eq!(machine.primary.range_json::<i64>("list", 0, -1).await.unwrap(), (100..120).collect::<Vec<_>>());
    assert_eq!(machine.journals().len(), heirs.len(), "each has one of its own");
}

#[tokio::test]
async fn a_copy_of_a_journal_that_is_replayed_as_well_has_no_effect_any_more() {
    let mut machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    process.owe("k", 1).await;
    for item in 0..3 {
        process.owe_item("list", item).await;
    }
    machine.kill([process]).await;
    // As a backup of the folder that is put back, or a file system whose locks are none.
    let copy = tempfile::tempdir().unwrap();
    for journal in machine.journals() {
        for file in [journal.clone(), journal.with_extension("db-wal")].iter().filter(|file| file.exists()) {
            std::fs::copy(file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    machine.faults.heal();
    let heir = machine.start().await;
    heir.until(|status| status.state == ChainState::Normal && status.replayed == 4).await;
    let write = Write::put(Key::parse("k").unwrap(), Value::from_integer(2), heir.stamps.issue());
    heir.chain.write(write, &soon()).await.unwrap();
    machine.config.journal.path = copy.path().to_owned();
    let other = machine.start().await;
    other.until(|status| status.state == ChainState::Normal && status.replayed == 4).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(2));
    assert_eq!(machine.primary.range_json::<i64>("list", 0, -1).await.unwrap(), [0, 1, 2]);
}

#[tokio::test]
async fn what_was_put_aside_and_replaced_does_not_come_back_with_a_restart() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    process.owe("k", 13).await;
    process.owe("alone", 13).await;
    machine.faults.heal();
    process.until(|status| status.parked == 2 && status.state == ChainState::Normal).await;
    process.owe("k", 2).await;
    process.until(|status| status.pending == 0).await;
    machine.kill([process]).await;
    let heir = machine.start().await;
    heir.until(|status| status.state == ChainState::Normal).await;
    assert_eq!((heir.number("k").await, heir.number("alone").await), (Some(2), Some(13)));
    assert_eq!((heir.chain.status().parked, machine.lost().await), (1, vec![]));
}

#[tokio::test]
async fn what_was_put_aside_and_replaced_unawares_stays_until_it_is_kept_as_a_conflict() {
    let machine = Machine::new();
    let (one, other) = (machine.start().await, machine.start().await);
    machine.fall();
    other.stamps.observe(one.owe("k", 13).await);
    other.owe("k", 2).await;
    machine.kill([one, other]).await;
    let mut heir = machine.start().await;
    machine.faults.heal();
    heir.until(|status| status.state == ChainState::Normal).await;
    // Also where it is tried again, and not taken.
    for _ in 0..3 {
        assert_eq!((heir.chain.status().parked, heir.number("k").await), (1, Some(2)));
        machine.kill([heir]).await;
        heir = machine.start().await;
        heir.until(|status| status.state == ChainState::Normal).await;
        assert_eq!((heir.chain.status().parked, heir.number("k").await), (1, Some(2)));
        assert_eq!(heir.chain.retry_parked(None).await.unwrap(), 1);
        heir.until(|status| status.pending == 0 && status.state == ChainState::Normal).await;
    }
    machine.picky.take_all();
    assert_eq!(heir.chain.retry_parked(None).await.unwrap(), 1);
    heir.until(|status| status.pending == 0 && status.parked == 0).await;
    assert_eq!((heir.number("k").await, machine.lost().await), (Some(2), vec![("k".to_owned(), 13)]));
}

#[tokio::test]
async fn a_clock_that_steps_back_ends_no_entry_of_the_longest_ttl() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    let put = WriteOp::Put { value: Value::from_integer(4), mode: WriteMode::Upsert, ttl: Some(Ttl::MAX) };
    let write = Write::new(Key::parse("k").unwrap(), put, process.stamps.issue());
    process.chain.write(write, &soon()).await.unwrap();
    machine.clock.rewind(Duration::from_millis(1));
    machine.faults.heal();
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(machine.primary.get_json("k").await.unwrap(), Some(4));
}

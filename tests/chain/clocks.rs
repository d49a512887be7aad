//! A wall clock that jumps by hours and back, while a process runs and between two.

use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::contract::{Durability, Store, Write};
use agent_storage::{Key, Stamp, Value};

use crate::machine::{Machine, Process};
use crate::rig::soon;

const HOURS: Duration = Duration::from_secs(5 * 3600);

impl Process {
    /// Writes a number, which must be taken by the primary.
    async fn set(&self, key: &str, number: i64) {
        let write = Write::put(Key::parse(key).unwrap(), Value::from_integer(number), self.stamps.issue());
        assert_eq!(self.chain.write(write, &soon()).await.unwrap().durability, Durability::Primary);
    }
}

#[tokio::test]
async fn writes_keep_their_order_though_the_clock_jumps_while_they_are_made() {
    let machine = Machine::new();
    let process = machine.start().await;
    process.set("k", 0).await;
    machine.clock.advance(HOURS);
    process.set("k", 1).await;
    machine.fall();
    process.owe("k", 2).await;
    machine.clock.rewind(HOURS * 2);
    process.owe("k", 3).await;
    process.owe("other", 3).await;
    assert_eq!(process.number("k").await, Some(3));
    machine.faults.heal();
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(3));
    process.set("k", 4).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(4));
    assert_eq!(machine.lost().await, []);
}

/// A stamp of somebody whose clock is ahead.
fn ahead(machine: &Machine) -> Stamp {
    let clock = machine.clock.clone();
    clock.advance(HOURS);
    let ahead = Stamp::earliest(clock.now());
    clock.rewind(HOURS);
    ahead
}

/// The next process begins in an outage, and writes the key too.
async fn write_over_it(machine: &Machine) {
    machine.fall();
    let heir = machine.start().await;
    heir.owe("k", 2).await;
    machine.faults.heal();
    heir.until(|status| status.state == ChainState::Normal).await;
}

/// The same when the clock is set right.
async fn write_over_it_with_an_earlier_clock(machine: &Machine) {
    machine.clock.rewind(HOURS);
    write_over_it(machine).await;
}

#[tokio::test]
async fn a_process_that_begins_after_the_clock_jumped_back_gives_no_older_stamps() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.clock.advance(HOURS);
    process.set("k", 1).await;
    // It ends in order, or has run on for a while: then it has written down how far its clock was.
    process.chain.close(&soon()).await.unwrap();
    machine.kill([process]).await;
    write_over_it_with_an_earlier_clock(&machine).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(2));
    // By its stamp it was written after the outage had begun, but by the process before.
    assert_eq!(machine.lost().await, []);
}

#[tokio::test]
async fn a_process_that_begins_after_a_crash_gives_no_older_stamps_though_the_clock_had_just_jumped() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.clock.advance(HOURS);
    process.set("k", 1).await;
    machine.kill([process]).await;
    write_over_it_with_an_earlier_clock(&machine).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(2));
    assert_eq!(machine.lost().await, []);
}

#[tokio::test]
async fn a_process_that_begins_after_a_crash_gives_no_older_stamps_though_another_ones_clock_was_ahead() {
    let machine = Machine::new();
    let process = machine.start().await;
    // It reads what somebody wrote whose clock is ahead.
    process.stamps.observe(ahead(&machine));
    process.set("k", 1).await;
    machine.kill([process]).await;
    write_over_it(&machine).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(2));
}

#[tokio::test]
async fn what_another_process_took_over_does_not_land_over_what_is_written_since() {
    let machine = Machine::new();
    let first = machine.start().await;
    first.stamps.observe(ahead(&machine));
    machine.fall();
    first.owe("k", 1).await;
    machine.kill([first]).await;
    let other = machine.start().await;
    // Its file is new: that of the dead one is the other one's now.
    let heir = machine.start().await;
    assert_eq!(machine.owned_journals(), 2);
    heir.owe("k", 2).await;
    machine.faults.heal();
    for process in [&heir, &other] {
        process.until(|status| status.state == ChainState::Normal).await;
    }
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_reserve_that_was_promised_is_not_taken_back_when_the_clock_goes_back() {
    let machine = Machine::new();
    let process = machine.start().await;
    let ahead = {
        machine.clock.advance(Duration::from_secs(5));
        let ahead = Stamp::earliest(machine.clock.now());
        machine.clock.rewind(Duration::from_secs(65));
        ahead
    };
    // It writes down what it knows, by a clock that is behind now.
    process.chain.accept_primary().await.unwrap();
    process.stamps.observe(ahead);
    process.set("k", 1).await;
    machine.kill([process]).await;
    write_over_it(&machine).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(2));
}

#[tokio::test]
async fn the_reserve_of_a_dead_process_holds_for_its_successor_though_another_one_took_its_journal_over() {
    let machine = Machine::new();
    let first = machine.start().await;
    first.stamps.observe(ahead(&machine));
    // Nothing is left in its journal.
    first.set("k", 1).await;
    machine.kill([first]).await;
    machine.fall();
    let _other = machine.start().await;
    write_over_it(&machine).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(2));
}

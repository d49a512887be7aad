//! Others write to the same primary.

use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::config::Conflicts;
use agent_storage::contract::{ConflictRecord, LostOperation, ReplayOptions};
use agent_storage::testkit::Fault;
use agent_storage::{Clock, HybridClock, Stamp};

use crate::rig::Rig;

/// The key, number and stamp of each value that lost.
async fn lost(rig: &Rig) -> Vec<(String, i64, Stamp)> {
    let records = rig.primary.conflicts().collect().await.unwrap();
    let name = |record: ConflictRecord| match record.operation {
        LostOperation::Put { value, .. } => (record.key.to_string(), value.decode().unwrap(), record.stamp),
        other => panic!("{other:?}"),
    };
    records.into_iter().map(name).collect()
}

#[tokio::test]
async fn their_newer_write_wins_and_ours_is_kept_and_counted() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.fall().await;
    rig.set("k", 2).await;
    let stamp = rig.other.newer();
    rig.other.set("k", 3, stamp).await;
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(3));
    assert_eq!(rig.chain.status().conflicts, 1);
    let lost = lost(&rig).await;
    assert!(matches!(&lost[..], [(key, 2, ours)] if key == "k" && *ours < stamp), "{lost:?}");
    // Through the chain as well.
    assert_eq!(rig.database.conflicts().collect().await.unwrap().len(), 1);
}

#[tokio::test]
async fn our_newer_write_wins_and_theirs_is_kept() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.fall().await;
    rig.set("other", 1).await;
    let stamp = rig.other.newer();
    rig.other.set("k", 3, stamp).await;
    rig.set("k", 2).await;
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(2));
    assert_eq!(lost(&rig).await, [("k".to_owned(), 3, stamp)]);
    assert_eq!(rig.chain.status().conflicts, 0, "none of ours lost");
}

#[tokio::test]
async fn where_the_primary_wins_ours_is_kept_though_it_is_newer() {
    let rig = Rig::with(|config| config.conflicts = Conflicts::PrimaryWins).await;
    rig.fall().await;
    rig.set("k", 1).await;
    let stamp = rig.other.newer();
    rig.other.set("k", 3, stamp).await;
    rig.set("k", 2).await;
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(3));
    let numbers: Vec<i64> = lost(&rig).await.into_iter().map(|(_, number, _)| number).collect();
    assert_eq!((numbers, rig.chain.status().conflicts), (vec![1, 2], 2));
}

#[tokio::test]
async fn what_a_slow_clock_wrote_meanwhile_is_kept_and_what_is_older_than_clocks_differ_is_not() {
    let rig = Rig::new().await;
    let behind = |by: Duration| {
        let wall = Clock::manual();
        wall.rewind(by);
        HybridClock::new(wall).issue()
    };
    let long_before = behind(ReplayOptions::CLOCK_SKEW * 2);
    rig.other.set("old", 3, long_before).await;
    rig.fall().await;
    let slow = behind(ReplayOptions::CLOCK_SKEW / 2);
    rig.other.set("slow", 3, slow).await;
    rig.set("old", 2).await;
    rig.set("slow", 2).await;
    rig.recover().await;
    assert_eq!((rig.stored("old").await, rig.stored("slow").await), (Some(2), Some(2)));
    assert_eq!(lost(&rig).await, [("slow".to_owned(), 3, slow)]);
}

#[tokio::test]
async fn what_was_written_before_the_first_of_ours_in_an_outage_is_kept() {
    let rig = Rig::timeless().await;
    rig.fall().await;
    rig.clock.advance(Duration::from_secs(1));
    let stamp = HybridClock::new(rig.clock.clone()).issue();
    rig.other.set("k", 3, stamp).await;
    // Longer than clocks differ.
    rig.clock.advance(ReplayOptions::CLOCK_SKEW * 3);
    rig.set("k", 2).await;
    rig.recover().await;
    assert_eq!(lost(&rig).await, [("k".to_owned(), 3, stamp)]);
}

#[tokio::test]
async fn items_of_several_writers_are_all_there_once_and_in_their_order() {
    let rig = Rig::new().await;
    for number in 0..10 {
        match number {
            3 => rig.fall().await,
            // Both write while what is owed is replayed.
            7 => {
                rig.faults.heal();
                rig.faults.set_for_some(Fault::FailAfter, 30);
                rig.until(|status| status.state != ChainState::Degraded).await;
            }
            _ => {}
        }
        rig.database.append_json("list", &number).await.unwrap();
        rig.other.append("list", 100 + number).await;
    }
    rig.recover().await;
    let items = rig.items("list").await;
    let of = |theirs: bool| items.iter().copied().filter(move |item| (*item >= 100) == theirs).collect::<Vec<_>>();
    assert_eq!(of(false), (0..10).collect::<Vec<_>>());
    assert_eq!(of(true), (100..110).collect::<Vec<_>>());
    assert!(rig.primary.conflicts().collect().await.unwrap().is_empty(), "items are in no conflict");
}

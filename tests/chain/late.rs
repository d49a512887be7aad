//! Writes that land when nobody waits for them any more, and stamps that are not in the order of the writes.

use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::config::DatabaseChainConfig;
use agent_storage::contract::{Append, Attempt, Context, DatabaseBackend, Durability, Store, Write};
use agent_storage::testkit::Fault;
use agent_storage::{Clock, ErrorKind, HybridClock, Key, KeyPrefix, SetOptions, Stamp, Value};

use crate::rig::{Rig, read};

/// A rig whose primary is asked by nobody but the calls of the test.
async fn quiet() -> Rig {
    Rig::with(|config: &mut DatabaseChainConfig| config.breaker.probe_interval = Duration::from_secs(3600)).await
}

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

fn cx() -> Context {
    Context::with_timeout(Duration::from_secs(20))
}

/// A stamp of another process, whose clock is so far ahead.
fn ahead(hours: u64) -> Stamp {
    let wall = Clock::manual();
    wall.advance(Duration::from_secs(hours * 3600));
    HybridClock::new(wall).issue()
}

#[tokio::test]
async fn a_put_that_was_given_up_changes_nothing_newer() {
    let rig = quiet().await;
    rig.set("k", 1).await;
    rig.faults.set_for_next(Fault::Late, 1);
    assert_eq!(rig.set("k", 2).await, Durability::Volatile);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(2));
    assert_eq!(rig.set("k", 3).await, Durability::Primary);
    rig.deliver().await;
    assert_eq!(rig.stored("k").await, Some(3));
}

#[tokio::test]
async fn a_delete_that_was_given_up_changes_nothing_newer() {
    let rig = quiet().await;
    rig.set("k", 1).await;
    rig.database.append_json("list", &1).await.unwrap();
    for key in ["k", "list"] {
        rig.faults.set_for_next(Fault::Late, 1);
        assert_eq!(rig.database.delete(key).await.unwrap().durability, Durability::Volatile);
        rig.recover().await;
        assert_eq!(rig.set("k", 2).await, Durability::Primary);
        assert_eq!(rig.database.append_json("list", &2).await.unwrap().durability, Durability::Primary);
        rig.deliver().await;
        assert_eq!((rig.stored("k").await, rig.items("list").await.last()), (Some(2), Some(&2)), "{key}");
    }
}

#[tokio::test]
async fn an_append_that_was_given_up_does_not_outlive_a_delete() {
    let rig = quiet().await;
    rig.database.append_json("list", &1).await.unwrap();
    rig.faults.set_for_next(Fault::Late, 1);
    assert_eq!(rig.database.append_json("list", &2).await.unwrap().durability, Durability::Volatile);
    rig.recover().await;
    assert_eq!(rig.items("list").await, [1, 2]);
    rig.database.delete("list").await.unwrap();
    rig.database.append_json("list", &3).await.unwrap();
    rig.deliver().await;
    assert_eq!(rig.items("list").await, [3]);
}

#[tokio::test]
async fn a_clear_that_was_given_up_removes_nothing_newer() {
    let rig = quiet().await;
    rig.set("a:1", 1).await;
    rig.faults.set_for_next(Fault::Late, 1);
    assert_eq!(rig.database.clear("a:").await.unwrap(), None);
    rig.recover().await;
    assert_eq!(rig.stored("a:1").await, None);
    assert_eq!(rig.set("a:1", 2).await, Durability::Primary);
    rig.database.append_json("a:list", &1).await.unwrap();
    rig.deliver().await;
    assert_eq!((rig.stored("a:1").await, rig.items("a:list").await), (Some(2), vec![1]));
}

#[tokio::test]
async fn a_create_that_was_given_up_does_not_bring_back_what_was_deleted() {
    let rig = quiet().await;
    rig.faults.set_for_next(Fault::Late, 1);
    let create = rig.database.set_with("k", Value::from_integer(1), SetOptions::new().if_absent()).await;
    assert_eq!(create.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    rig.recover().await;
    rig.set("k", 2).await;
    rig.database.delete("k").await.unwrap();
    rig.deliver().await;
    assert_eq!(rig.stored("k").await, None);
}

#[tokio::test]
async fn an_update_that_was_given_up_changes_nothing_newer() {
    let rig = quiet().await;
    rig.set("k", 1).await;
    let revision = rig.database.lookup("k").await.unwrap().into_entry().unwrap().revision;
    rig.faults.set_for_next(Fault::Late, 1);
    let update = rig.database.set_with("k", Value::from_integer(2), SetOptions::new().if_revision(revision)).await;
    assert_eq!(update.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    rig.recover().await;
    rig.set("k", 3).await;
    rig.deliver().await;
    assert_eq!(rig.stored("k").await, Some(3));
}

#[tokio::test]
async fn a_transaction_that_was_given_up_is_not_applied_in_part() {
    let rig = quiet().await;
    rig.set("k", 1).await;
    rig.faults.set_for_next(Fault::Late, 1);
    let transaction = rig.database.transaction().set("k", Value::from_integer(2)).unwrap();
    let committed = transaction.append_json("list", &1).unwrap().commit().await;
    assert_eq!(committed.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    rig.recover().await;
    rig.set("k", 3).await;
    rig.deliver().await;
    assert_eq!((rig.stored("k").await, rig.items("list").await), (Some(3), vec![]));
}

#[tokio::test]
async fn a_write_whose_caller_went_away_changes_nothing_newer() {
    let rig = quiet().await;
    rig.set("k", 1).await;
    rig.faults.set_for_next(Fault::Late, 1);
    let before = rig.faults.counts().faults;
    let database = rig.database.clone();
    let call = tokio::spawn(async move { database.delete("k").await });
    while rig.faults.counts().faults == before {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(rig.set("k", 2).await, Durability::Primary);
    rig.deliver().await;
    assert_eq!(rig.stored("k").await, Some(2));
}

#[tokio::test]
async fn what_is_behind_is_stamped_anew_while_its_caller_waits() {
    let rig = quiet().await;
    let primary = rig.primary.backend();
    for (name, hours) in [("k", 1), ("gone", 2), ("a:1", 3), ("t", 4)] {
        primary.write(Write::put(key(name), Value::from_integer(1), ahead(hours)), &cx()).await.unwrap();
    }
    let ack = rig.database.set("k", Value::from_integer(2)).await.unwrap();
    assert_eq!((ack.durability, ack.existed), (Durability::Primary, Some(true)));
    let entry = rig.primary.lookup("k").await.unwrap().into_entry().unwrap();
    assert_eq!(ack.revision, Some(entry.revision));
    assert_eq!(rig.database.delete("gone").await.unwrap().existed, Some(true));
    assert_eq!(rig.database.clear("a:").await.unwrap(), Some(1));
    rig.database.transaction().set("t", Value::from_integer(2)).unwrap().commit().await.unwrap();
    let stored = (rig.stored("k").await, rig.stored("gone").await, rig.stored("a:1").await, rig.stored("t").await);
    assert_eq!(stored, (Some(2), None, None, Some(2)));
    assert_eq!(rig.chain.status().state, ChainState::Normal);
}

#[tokio::test]
async fn a_batch_that_is_behind_keeps_its_order() {
    let rig = quiet().await;
    let primary = rig.primary.backend();
    let (put, delete) = (ahead(5), ahead(6));
    primary.write(Write::put(key("k"), Value::from_integer(0), put), &cx()).await.unwrap();
    primary.write(Write::delete(key("list"), delete), &cx()).await.unwrap();
    let batch = [("k", 1), ("other", 1), ("k", 2), ("k", 3)].map(|(key, number)| (key, Value::from_integer(number)));
    let answers = rig.database.set_many(batch).await;
    let revisions: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().revision.unwrap()).collect();
    assert_eq!(rig.primary.lookup("k").await.unwrap().into_entry().unwrap().revision, revisions[3]);
    assert_eq!((rig.stored("k").await, rig.stored("other").await), (Some(3), Some(1)));
    let items =
        (1..=5).map(|number| Append::new(key("list"), Value::from_integer(number), HybridClock::process().issue()));
    let acks = rig.chain.append_many(items.collect(), &cx()).await;
    let positions: Vec<_> = acks.into_iter().map(|ack| ack.unwrap().position.unwrap()).collect();
    assert_eq!((positions, rig.items("list").await), (vec![0, 1, 2, 3, 4], vec![1, 2, 3, 4, 5]));
}

#[tokio::test]
async fn what_was_stamped_anew_is_journaled_under_its_last_stamp() {
    let rig = quiet().await;
    let newer = ahead(7);
    rig.primary.backend().write(Write::put(key("k"), Value::from_integer(1), newer), &cx()).await.unwrap();
    // The first attempt is behind, the reply to the second is lost.
    rig.faults.set_after(1, Fault::Hang, 1);
    assert_eq!(rig.set("k", 2).await, Durability::Volatile);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(2));
    assert_eq!(rig.chain.status().conflicts, 0);
}

#[tokio::test]
async fn writes_are_ordered_by_their_turns_and_not_by_when_they_were_stamped() {
    for falls in [false, true] {
        let rig = Rig::new().await;
        if falls {
            rig.fall().await;
        }
        let (early, late) = (HybridClock::process().issue(), HybridClock::process().issue());
        for (number, stamp) in [(1, late), (2, early)] {
            rig.chain.write(Write::put(key("k"), Value::from_integer(number), stamp), &cx()).await.unwrap();
            let append = Append::new(key("list"), Value::from_integer(number), stamp);
            assert!(rig.chain.append_many(vec![append], &cx()).await.remove(0).is_ok());
        }
        assert_eq!(read(rig.database.lookup("k").await).0, Some(2));
        rig.recover().await;
        assert_eq!((rig.stored("k").await, rig.items("list").await), (Some(2), vec![1, 2]), "{falls}");
    }
}

#[tokio::test]
async fn whoever_keeps_a_stamp_is_told_that_it_is_behind() {
    let rig = quiet().await;
    let stamp = HybridClock::process().issue();
    rig.set("k", 1).await;
    let mut fixed = Write::put(key("k"), Value::from_integer(2), stamp);
    fixed.attempt = Attempt::Fixed;
    assert!(rig.chain.write(fixed, &cx()).await.unwrap_err().is_behind());
    let cleared = rig.chain.clear(&KeyPrefix::empty(), stamp, Attempt::Fixed, &cx()).await;
    assert!(cleared.unwrap_err().is_behind());
    assert_eq!(rig.stored("k").await, Some(1));
}

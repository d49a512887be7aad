//! Replies that are lost.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::ChainState;
use agent_storage::config::MemoryDatabaseConfig;
use agent_storage::contract::{DatabaseBackend, Durability, Freshness, Store, Write, WriteMode, WriteOp};
use agent_storage::testkit::Fault;
use agent_storage::{Error, ErrorKind, HybridClock, Key, Outage, Revision, SetOptions, Stamp, Value};

use crate::picky::Picky;
use crate::rig::{Rig, read, soon, unavailable};

#[tokio::test]
async fn a_write_whose_reply_was_lost_is_kept_and_has_effect_once() {
    for fault in [Fault::FailAfter, Fault::HangAfter, Fault::Hang] {
        let rig = Rig::new().await;
        rig.database.append_json("list", &1).await.unwrap();
        rig.faults.set_for_next(fault, 1);
        let ack = rig.database.append_json("list", &2).await.unwrap();
        assert_eq!((ack.durability, ack.position), (Durability::Volatile, None), "{fault:?}");
        rig.database.append_json("list", &3).await.unwrap();
        rig.recover().await;
        assert_eq!(rig.items("list").await, [1, 2, 3], "{fault:?}");
    }
}

/// A rig whose primary takes writes, and no replays: what is owed stays so.
async fn owing() -> (Rig, Arc<Picky>) {
    let memory = MemoryDatabase::new(&MemoryDatabaseConfig::default());
    let picky = Arc::new(Picky::new(Arc::new(memory), Value::from_integer(-1)));
    picky.take_replays(0);
    (Rig::over(picky.clone(), |_| ()).await, picky)
}

#[tokio::test]
async fn a_newer_write_of_the_key_follows_into_the_journal() {
    let (rig, picky) = owing().await;
    rig.faults.set_for_next(Fault::FailAfter, 1);
    assert_eq!(rig.set("k", 1).await, Durability::Volatile);
    assert_eq!(read(rig.database.lookup("k").await).0, Some(1));
    assert_eq!(rig.set("k", 2).await, Durability::Volatile);
    assert_eq!(read(rig.database.lookup("k").await).0, Some(2));
    rig.faults.set_for_next(Fault::Hang, 1);
    for number in [1, 2] {
        assert_eq!(rig.database.append_json("list", &number).await.unwrap().durability, Durability::Volatile);
    }
    rig.until(|status| status.state == ChainState::Reconciling).await;
    assert_eq!(rig.chain.status().pending, 4);
    assert_eq!(rig.set("other", 1).await, Durability::Primary);
    picky.take_replays(u64::MAX);
    rig.recover().await;
    assert_eq!((rig.stored("k").await, rig.items("list").await), (Some(2), vec![1, 2]));
    assert_eq!(read(rig.database.lookup("k").await), (Some(2), Freshness::Primary));
}

#[tokio::test]
async fn a_later_write_of_a_batch_follows_one_of_its_key_that_is_in_doubt() {
    let (rig, picky) = owing().await;
    picky.fail_the_first(Error::outcome_unknown("the reply was lost"));
    let writes = [("k", 1), ("other", 2), ("k", 3)].map(|(key, number)| (key, Value::from_integer(number)));
    let answers = rig.database.set_many(writes).await;
    let told: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().durability).collect();
    assert_eq!(
        told,
        [Durability::Volatile, Durability::Primary, Durability::Primary],
        "what the primary took stands there"
    );
    assert_eq!(read(rig.database.lookup("k").await).0, Some(3), "and nothing older");
    picky.take_replays(u64::MAX);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(3));
}

#[tokio::test]
async fn what_only_the_primary_can_judge_is_unavailable_for_a_key_that_is_owed_something() {
    let (rig, picky) = owing().await;
    rig.faults.set_for_next(Fault::Hang, 1);
    assert_eq!(rig.set("k", 1).await, Durability::Volatile);
    let one = || Value::from_integer(1);
    unavailable(rig.database.set_with("k", one(), SetOptions::new().if_absent()).await);
    unavailable(rig.database.delete_if("k", Revision::from_stamp(Stamp::MIN)).await);
    unavailable(rig.database.trim("k", 1).await);
    unavailable(rig.database.transaction().set("k", one()).unwrap().commit().await);
    let apart = rig.database.transaction().set("other", one()).unwrap().append("k", one()).unwrap();
    unavailable(apart.commit().await);
    assert_eq!(rig.stored("k").await, None, "nothing was sent to the primary");
    rig.database.transaction().set("other", one()).unwrap().commit().await.unwrap();
    assert_eq!((rig.chain.status().pending, rig.chain.status().state), (1, ChainState::Reconciling));
    picky.take_replays(u64::MAX);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(1));
}

#[tokio::test]
async fn an_item_that_a_later_one_of_its_list_overtook_is_not_kept() {
    let memory = MemoryDatabase::new(&MemoryDatabaseConfig::default());
    let picky = Arc::new(Picky::new(Arc::new(memory), Value::from_integer(-1)));
    let rig = Rig::over(picky.clone(), |_| ()).await;
    let down = Error::unavailable("there is no room for this one").with_outage(Outage::Down);
    for (list, failure) in [("down", down), ("lost", Error::outcome_unknown("the reply was lost"))] {
        picky.fail_the_first(failure.clone());
        let items = [(list, 1), ("other", 2), (list, 3)].map(|(list, number)| (list, Value::from_integer(number)));
        let answers = rig.database.append_many(items).await;
        let told: Vec<_> = answers.into_iter().map(|answer| answer.map(|ack| ack.durability)).collect();
        assert_eq!(told[0].as_ref().unwrap_err().kind(), failure.kind());
        assert!(matches!(told[1..], [Ok(Durability::Primary), Ok(Durability::Primary)]), "{told:?}");
        rig.recover().await;
        assert_eq!(rig.items(list).await, [3], "an item that is told to be lost does not come behind");
    }
}

#[tokio::test]
async fn a_torn_batch_ends_as_if_it_had_been_whole() {
    for seed in 0..10 {
        let rig = Rig::new().await;
        rig.faults.set_for_next(Fault::Slow(std::time::Duration::ZERO), seed);
        rig.faults.set_for_next(Fault::TornBatch, 1);
        let batch = (0..10).map(|number| (format!("k:{}", number % 7), Value::from_integer(number)));
        for answer in rig.database.set_many(batch).await {
            assert_eq!(answer.unwrap().durability, Durability::Volatile);
        }
        for key in 0..7 {
            let newest = if key < 3 { key + 7 } else { key };
            assert_eq!(read(rig.database.lookup(format!("k:{key}")).await).0, Some(newest));
        }
        rig.recover().await;
        for key in 0..7 {
            let newest = if key < 3 { key + 7 } else { key };
            assert_eq!(rig.stored(&format!("k:{key}")).await, Some(newest));
        }
    }
}

#[tokio::test]
async fn a_condition_whose_reply_was_lost_is_looked_up_or_unknown_and_never_journaled() {
    let rig = Rig::new().await;
    // It never came there, or may yet come; or nobody can look.
    for (fault, calls) in [(Fault::Hang, 1), (Fault::Late, 1), (Fault::FailAfter, 2)] {
        rig.faults.set_for_next(fault, calls);
        let key = format!("{fault:?}");
        let create = rig.database.set_with(&key, Value::from_integer(1), SetOptions::new().if_absent()).await;
        assert_eq!(create.unwrap_err().kind(), ErrorKind::OutcomeUnknown, "{fault:?}");
    }
    for fault in [Fault::FailAfter, Fault::HangAfter] {
        let key = format!("applied {fault:?}");
        rig.faults.set_for_next(fault, 1);
        let create = rig.database.set_with(&key, Value::from_integer(1), SetOptions::new().if_absent()).await.unwrap();
        assert_eq!((create.durability, create.existed), (Durability::Primary, Some(false)), "{fault:?}");
        rig.faults.set_for_next(fault, 1);
        let only = SetOptions::new().if_revision(create.revision.unwrap());
        let update = rig.database.set_with(&key, Value::from_integer(2), only).await.unwrap();
        assert_eq!((update.durability, update.existed), (Durability::Primary, Some(true)), "{fault:?}");
        assert_eq!(rig.stored(&key).await, Some(2));
    }
    assert_eq!(rig.chain.status().pending, 0);
    rig.faults.set_for_next(Fault::FailAfter, 1);
    assert_eq!(rig.database.trim("list", 1).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
}

#[tokio::test]
async fn a_transaction_whose_reply_was_lost_is_looked_up() {
    let rig = Rig::new().await;
    let transaction = || rig.database.transaction().set("k", Value::from_integer(1)).unwrap();
    rig.faults.set_for_next(Fault::FailAfter, 1);
    transaction().append_json("list", &1).unwrap().commit().await.unwrap();
    assert_eq!((rig.stored("k").await, rig.items("list").await), (Some(1), vec![1]));
    // What was written and deleted again leaves no value that says so; of a trim nobody knows how much it took.
    let (deleted, trimmed) = (transaction().delete("k").unwrap(), transaction().trim("list", 1).unwrap());
    for unknown in [deleted, trimmed] {
        rig.faults.set_for_next(Fault::FailAfter, 1);
        assert_eq!(unknown.commit().await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }
}

#[tokio::test]
async fn a_clear_whose_reply_was_lost_is_kept() {
    let rig = Rig::new().await;
    rig.set("a:1", 1).await;
    rig.faults.set_for_next(Fault::FailAfter, 1);
    assert_eq!(rig.database.clear("a:").await.unwrap(), None);
    assert_eq!(read(rig.database.lookup("a:1").await).0, None);
    rig.set("a:2", 2).await;
    rig.recover().await;
    assert_eq!((rig.stored("a:1").await, rig.stored("a:2").await), (None, Some(2)));
}

#[tokio::test]
async fn a_caller_that_goes_away_in_the_middle_leaves_nothing_behind() {
    let rig = Rig::new().await;
    rig.fall().await;
    for number in 0..50 {
        let database = rig.database.clone();
        let call = tokio::spawn(async move { database.set_json("k", &number).await });
        tokio::task::yield_now().await;
        call.abort();
    }
    rig.set("k", 100).await;
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(100));
    assert_eq!(rig.set("k", 101).await, Durability::Primary);
}

#[tokio::test]
async fn what_was_sent_is_unknown_where_the_journal_takes_nothing() {
    let rig = Rig::with(|config| config.journal.max_bytes = 1).await;
    rig.set("a:1", 1).await;
    for fault in [Fault::FailAfter, Fault::HangAfter] {
        rig.faults.set_for_next(fault, 1);
        assert_eq!(rig.database.clear("a:").await.unwrap_err().kind(), ErrorKind::OutcomeUnknown, "{fault:?}");
        rig.faults.set_for_next(fault, 1);
        let set = rig.database.set("a:2", Value::from_integer(2)).await;
        assert_eq!(set.unwrap_err().kind(), ErrorKind::OutcomeUnknown, "{fault:?}");
        rig.faults.set_for_next(fault, 1);
        let append = rig.database.append("list", Value::from_integer(2)).await;
        assert_eq!(append.unwrap_err().kind(), ErrorKind::OutcomeUnknown, "{fault:?}");
    }
    rig.faults.set_for_next(Fault::FailBefore, 1);
    assert_eq!(rig.database.clear("a:").await.unwrap_err().kind(), ErrorKind::Unavailable);
    rig.faults.set_for_next(Fault::FailBefore, 1);
    unavailable(rig.database.set("a:2", Value::from_integer(2)).await);
}

#[tokio::test]
async fn whether_a_conflict_was_forgotten_is_unknown_where_the_primary_went_away_meanwhile() {
    let rig = Rig::new().await;
    rig.faults.set(Fault::Hang);
    let forgotten = rig.chain.forget_conflict(&Key::parse("k").unwrap(), Stamp::MIN, &soon()).await;
    assert_eq!(forgotten.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Normal).await;
}

#[tokio::test]
async fn a_value_that_was_found_is_not_hidden_by_an_older_delete_of_its_batch() {
    let (rig, _picky) = owing().await;
    let key = Key::parse("k").unwrap();
    let stamps = HybridClock::process();
    let mut create = Write::put(key.clone(), Value::from_integer(1), stamps.issue());
    if let WriteOp::Put { mode, .. } = &mut create.op {
        *mode = WriteMode::Create;
    }
    let delete = Write::delete(key, stamps.issue());
    rig.faults.set_for_next(Fault::FailAfter, 1);
    let acks = rig.chain.write_many(vec![delete, create], &soon()).await;
    let kept: Vec<Durability> = acks.into_iter().map(|ack| ack.unwrap().durability).collect();
    assert_eq!(kept, [Durability::Volatile, Durability::Primary]);
    rig.fall().await;
    unavailable(rig.database.get("k").await);
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Reconciling).await;
    assert_eq!(read(rig.database.lookup("k").await), (Some(1), Freshness::Primary));
}

#[tokio::test]
async fn a_probe_whose_answer_comes_after_that_of_a_later_ping_says_nothing_bad() {
    let memory = MemoryDatabase::new(&MemoryDatabaseConfig::default());
    let picky = Arc::new(Picky::new(Arc::new(memory), Value::from_integer(-1)));
    let rig = Rig::over(picky.clone(), |_| ()).await;
    let mut watch = rig.chain.watch();
    watch.mark_unchanged();
    let release = picky.hold_the_next_ping();
    while !picky.holds_a_ping() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.chain.ping(&soon()).await.unwrap();
    assert!(!release.is_closed(), "the probe did not wait for its answer");
    drop(release);
    rig.until_called(3).await;
    assert!(!watch.has_changed().unwrap(), "{:?}", rig.chain.status());
    assert_eq!(rig.chain.status().state, ChainState::Normal);
}

//! What the primary never takes is put aside.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::Value;
use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::ChainState;
use agent_storage::config::MemoryDatabaseConfig;
use agent_storage::contract::{DatabaseBackend, Durability, Freshness};

use crate::picky::Picky;
use crate::rig::{Rig, guessing, read, unavailable};

/// A rig whose primary does not take the number 13, until it is told to.
async fn rig() -> (Rig, Arc<Picky>) {
    let memory = MemoryDatabase::new(&MemoryDatabaseConfig::default());
    let picky = Arc::new(Picky::new(Arc::new(memory), Value::from_integer(13)));
    let primary: Arc<dyn DatabaseBackend> = picky.clone();
    (Rig::over(primary, |_| ()).await, picky)
}

/// Journals items of which the fourth is not taken, and replays them.
async fn stuck() -> (Rig, Arc<Picky>) {
    let (rig, picky) = rig().await;
    rig.fall().await;
    for number in [1, 2, 3, 13, 4, 5] {
        rig.database.append_json("list", &number).await.unwrap();
        rig.database.append_json("free", &(number % 10)).await.unwrap();
    }
    rig.set("list", 7).await;
    rig.recover().await;
    (rig, picky)
}

#[tokio::test]
async fn items_wait_behind_one_that_is_not_taken_and_nothing_else_does() {
    let (rig, _) = stuck().await;
    assert_eq!(rig.items("list").await, [1, 2, 3]);
    assert_eq!(rig.items("free").await, [1, 2, 3, 3, 4, 5]);
    assert_eq!(rig.stored("list").await, Some(7), "a value is none of the list's matter");
    let status = rig.chain.status();
    assert_eq!((status.state, status.pending, status.parked), (ChainState::Normal, 0, 3));
    // Those to come wait as well.
    let ack = rig.database.append_json("list", &6).await.unwrap();
    assert_eq!(ack.position, None);
    rig.set("list", 8).await;
    rig.until(|status| status.pending == 0).await;
    rig.until_called(3).await;
    assert_eq!((rig.items("list").await, rig.stored("list").await), (vec![1, 2, 3], Some(8)));
    assert_eq!(rig.chain.status().parked, 4);
}

#[tokio::test]
async fn a_reader_is_told_what_stands_in_the_way() {
    let (rig, _) = stuck().await;
    let journaled = rig.chain.journaled(0).await.unwrap();
    let stuck = journaled[0].seq;
    assert!(journaled[0].parked.as_ref().unwrap().contains("thirteen") && journaled[0].waits_behind.is_none());
    for waiting in &journaled[1..] {
        assert_eq!((&waiting.parked, waiting.waits_behind), (&None, Some(stuck)));
    }
    let stuck = format!("operation {stuck}");
    let error = rig.database.range("list", 0, -1).await.unwrap_err();
    assert!(error.message().contains(&stuck) && error.message().contains("thirteen"), "{error}");
    unavailable(rig.database.length("list").await);
    let error = rig.database.trim("list", 1).await.unwrap_err();
    assert!(error.message().contains("thirteen"), "{error}");
    assert_eq!(rig.database.length("free").await.unwrap(), 6);
}

#[tokio::test]
async fn what_is_tried_again_comes_in_its_order() {
    let (rig, picky) = stuck().await;
    assert_eq!(rig.chain.retry_parked(None).await.unwrap(), 1);
    rig.until(|status| status.state == ChainState::Normal).await;
    rig.until_settled().await;
    assert_eq!((rig.items("list").await, rig.chain.status().parked), (vec![1, 2, 3], 3), "it is still not taken");
    picky.take_all();
    let stuck = rig.chain.journaled(0).await.unwrap()[0].seq;
    assert_eq!(rig.chain.retry_parked(Some(stuck + 1)).await.unwrap(), 0, "that one only waits");
    assert_eq!(rig.chain.retry_parked(Some(stuck)).await.unwrap(), 1);
    rig.until_settled().await;
    assert_eq!(rig.items("list").await, [1, 2, 3, 13, 4, 5]);
    assert_eq!(rig.database.length("list").await.unwrap(), 6);
    assert_eq!(rig.chain.status().parked, 0);
}

#[tokio::test]
async fn what_was_put_aside_is_not_read_over_what_others_wrote_or_deleted_since() {
    let (rig, _) = rig().await;
    rig.fall().await;
    for key in ["kept", "written", "deleted"] {
        rig.set(key, 13).await;
    }
    rig.recover().await;
    assert_eq!((rig.chain.status().state, rig.chain.status().parked), (ChainState::Normal, 3));
    rig.other.set("written", 2, rig.other.newer()).await;
    rig.other.delete("deleted", rig.other.newer()).await;
    assert_eq!(read(rig.database.lookup("kept").await), (Some(13), Freshness::LocalPending));
    assert_eq!(read(rig.database.lookup("written").await), (Some(2), Freshness::Primary));
    assert_eq!(read(rig.database.lookup("deleted").await), (None, Freshness::Primary));
}

#[tokio::test]
async fn what_is_given_up_lets_the_rest_through() {
    let (rig, _) = stuck().await;
    let stuck = rig.chain.journaled(0).await.unwrap()[0].seq;
    assert!(!rig.chain.drop_parked(stuck + 2).await.unwrap(), "that one is not to blame");
    assert!(rig.chain.drop_parked(stuck).await.unwrap());
    assert!(!rig.chain.drop_parked(stuck).await.unwrap());
    rig.until_settled().await;
    assert_eq!(rig.items("list").await, [1, 2, 3, 4, 5]);
    assert!(rig.chain.journaled(0).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_value_that_is_not_taken_blocks_its_key_alone() {
    let (rig, _) = rig().await;
    rig.fall().await;
    rig.set("k", 13).await;
    rig.set("other", 1).await;
    rig.recover().await;
    assert_eq!(rig.stored("other").await, Some(1));
    assert_eq!(read(rig.database.lookup("k").await), (Some(13), Freshness::LocalPending), "it was acknowledged");
    // A newer one replaces it: what would come back with it is gone for good, and the key is owed nothing any more.
    rig.set("k", 2).await;
    rig.until_settled().await;
    assert_eq!((rig.stored("k").await, rig.chain.status().parked), (Some(2), 0));
    assert_eq!(read(rig.database.lookup("k").await), (Some(2), Freshness::Primary));
    assert!(rig.chain.journaled(0).await.unwrap().is_empty());
    assert_eq!(rig.set("k", 3).await, Durability::Primary);
}

#[tokio::test]
async fn what_was_put_aside_does_not_come_back_after_a_clear_or_a_delete() {
    let (rig, picky) = rig().await;
    rig.fall().await;
    for key in ["a:1", "b"] {
        rig.set(key, 13).await;
        rig.database.append_json(key, &13).await.unwrap();
        rig.database.append_json(key, &1).await.unwrap();
    }
    rig.set("c", 13).await;
    rig.recover().await;
    assert_eq!(rig.chain.status().parked, 7);
    rig.database.clear("a:").await.unwrap();
    rig.database.delete("b").await.unwrap();
    rig.until_settled().await;
    assert_eq!(rig.chain.status().parked, 1, "only what nothing replaced");
    picky.take_all();
    assert_eq!(rig.chain.retry_parked(None).await.unwrap(), 1);
    rig.until_settled().await;
    for key in ["a:1", "b"] {
        assert_eq!(read(rig.database.lookup(key).await), (None, Freshness::Primary));
        assert_eq!((rig.stored(key).await, rig.items(key).await), (None, vec![]));
    }
    assert_eq!(rig.stored("c").await, Some(13));
}

#[tokio::test]
async fn a_delete_that_was_put_aside_hides_nothing_newer() {
    let (rig, picky) = rig().await;
    rig.set("stuck", 0).await;
    rig.fall().await;
    rig.database.clear("stuck:").await.unwrap();
    rig.database.delete("stuck").await.unwrap();
    assert_eq!(read(rig.database.lookup("stuck:1").await), (None, Freshness::LocalPending), "it is cleared");
    rig.recover().await;
    assert_eq!(rig.chain.status().parked, 2);
    for key in ["stuck", "stuck:1"] {
        rig.set(key, 5).await;
        rig.database.append_json(key, &7).await.unwrap();
        rig.until_settled().await;
        assert_eq!((rig.stored(key).await, rig.items(key).await), (Some(5), vec![7]));
        // What is newer may be there, or not.
        let told = rig.database.range(key, 0, -1).await.unwrap_err();
        assert!(told.message().contains("put aside"), "{told}");
    }
    assert_eq!(read(rig.database.lookup("stuck").await), (Some(5), Freshness::Primary), "the newer value is known");
    unavailable(rig.database.exists("stuck").await);
    for key in ["stuck:1", "stuck:2"] {
        unavailable(rig.database.lookup(key).await);
        unavailable(rig.database.exists(key).await);
    }
    picky.take_all();
    assert_eq!(rig.chain.retry_parked(None).await.unwrap(), 2);
    rig.until_settled().await;
    for key in ["stuck", "stuck:1"] {
        assert_eq!((read(rig.database.lookup(key).await).0, rig.items(key).await), (Some(5), vec![7]), "{key}");
    }
}

#[tokio::test]
async fn who_wants_guesses_gets_none_of_what_is_owed() {
    let memory = MemoryDatabase::new(&MemoryDatabaseConfig::default());
    let picky = Arc::new(Picky::new(Arc::new(memory), Value::from_integer(13)));
    let rig = Rig::over(picky, guessing).await;
    rig.set("stuck", 0).await;
    rig.fall().await;
    rig.database.delete("stuck").await.unwrap();
    rig.recover().await;
    assert_eq!(rig.chain.status().parked, 1);
    rig.fall().await;
    unavailable(rig.database.get("stuck").await);
    unavailable(rig.database.exists("stuck").await);
    let mut answers = rig.database.get_many(["stuck", "any"]).await;
    assert_eq!(answers.pop().unwrap().unwrap(), None, "a guess");
    unavailable(answers.pop().unwrap());
}

#[tokio::test]
async fn what_waited_for_longer_than_deletes_are_remembered_is_put_aside() {
    let rig = Rig::timeless().await;
    rig.fall().await;
    rig.set("k", 1).await;
    rig.clock.advance(Duration::from_secs(1));
    // Wherever the primary keeps the key, it forgets a delete there that is newer.
    for number in 0..1000 {
        rig.primary.delete(format!("gone:{number}")).await.unwrap();
    }
    rig.clock.advance(Duration::from_secs(3600));
    rig.recover().await;
    assert_eq!((rig.chain.status().parked, rig.stored("k").await), (1, None));
    let reason = rig.chain.journaled(0).await.unwrap().remove(0).parked.unwrap();
    assert!(reason.contains("longer than the primary remembers deletes"), "{reason}");
    assert_eq!(read(rig.database.lookup("k").await).0, Some(1), "it was acknowledged, and is there for its writer");
}

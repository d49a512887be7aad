//! The primary is away.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::chain::ChainState;
use agent_storage::config::{DatabaseChainConfig, MemoryDatabaseConfig, MinDurability};
use agent_storage::contract::{Durability, Freshness};
use agent_storage::testkit::{Fault, Faults};
use agent_storage::{Clock, ErrorKind, SetOptions, Ttl, Value};

use crate::rig::{Rig, guessing, read, unavailable};

#[tokio::test]
async fn while_all_is_well_calls_go_to_the_primary() {
    let rig = Rig::new().await;
    assert_eq!(rig.set("k", 1).await, Durability::Primary);
    assert_eq!(read(rig.database.lookup("k").await), (Some(1), Freshness::Primary));
    assert_eq!(read(rig.database.lookup("none").await), (None, Freshness::Primary));
    assert_eq!(rig.chain.status().state, ChainState::Normal);
    assert_eq!(rig.stored("k").await, Some(1));
}

#[tokio::test]
async fn a_write_is_kept_and_read_back_and_what_the_primary_holds_is_never_called_missing() {
    let rig = Rig::new().await;
    rig.set("before", 1).await;
    rig.fall().await;
    assert_eq!(rig.set("k", 2).await, Durability::Volatile);
    assert_eq!(read(rig.database.lookup("k").await), (Some(2), Freshness::LocalPending));
    unavailable(rig.database.get("before").await);
    unavailable(rig.database.get("none").await);
    rig.database.delete("before").await.unwrap();
    assert_eq!(read(rig.database.lookup("before").await), (None, Freshness::LocalPending));
    rig.recover().await;
    assert_eq!((rig.stored("k").await, rig.stored("before").await), (Some(2), None));
}

#[tokio::test]
async fn a_batch_is_answered_key_by_key() {
    let rig = Rig::new().await;
    rig.set("before", 1).await;
    rig.fall().await;
    rig.set("k", 2).await;
    let answers = rig.database.get_many(["k", "before", "k"]).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(rig.database.exists("k").await.unwrap());
    unavailable(rig.database.exists("before").await);
}

#[tokio::test]
async fn what_needs_the_primary_is_unavailable() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.fall().await;
    let value = || Value::from_integer(2);
    unavailable(rig.database.set_with("k", value(), SetOptions::new().if_absent()).await);
    unavailable(rig.database.trim("list", 1).await);
    unavailable(rig.database.transaction().set("k", value()).unwrap().commit().await);
    unavailable(rig.database.list_page("", Default::default()).await);
    unavailable(rig.database.count("").await);
    unavailable(rig.database.range("list", 0, -1).await);
    unavailable(rig.database.length("list").await);
    assert_eq!(rig.chain.status().pending, 0);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(1));
}

#[tokio::test]
async fn lists_are_appended_to_and_known_only_after_a_delete() {
    let rig = Rig::new().await;
    rig.database.append_json("list", &1).await.unwrap();
    rig.fall().await;
    let ack = rig.database.append_json("list", &2).await.unwrap();
    assert_eq!((ack.position, ack.durability), (None, Durability::Volatile));
    unavailable(rig.database.range("list", 0, -1).await);
    assert!(rig.database.exists("list").await.unwrap());
    rig.database.delete("list").await.unwrap();
    assert_eq!(rig.database.range("list", 0, -1).await.unwrap(), []);
    assert_eq!(rig.database.length("list").await.unwrap(), 0);
    assert!(!rig.database.exists("list").await.unwrap());
    rig.database.append_json("list", &3).await.unwrap();
    unavailable(rig.database.length("list").await);
    rig.recover().await;
    assert_eq!(rig.items("list").await, [3]);
}

#[tokio::test]
async fn a_clear_covers_its_prefix() {
    let rig = Rig::new().await;
    rig.set("a:1", 1).await;
    rig.set("b", 1).await;
    rig.fall().await;
    assert_eq!(rig.database.clear("a:").await.unwrap(), None);
    rig.set("a:2", 2).await;
    assert_eq!(read(rig.database.lookup("a:1").await), (None, Freshness::LocalPending));
    assert_eq!(read(rig.database.lookup("a:2").await), (Some(2), Freshness::LocalPending));
    unavailable(rig.database.get("b").await);
    rig.recover().await;
    assert_eq!((rig.stored("a:1").await, rig.stored("a:2").await, rig.stored("b").await), (None, Some(2), Some(1)));
}

#[tokio::test]
async fn an_entry_that_expires_while_it_is_owed_revives_nothing_older() {
    let rig = Rig::timeless().await;
    rig.set("k", 1).await;
    rig.set("lives", 1).await;
    rig.fall().await;
    for (key, secs) in [("k", 20), ("lives", 60)] {
        let options = SetOptions::new().with_ttl(Ttl::from_secs(secs).unwrap());
        rig.database.set_with(key, Value::from_integer(2), options).await.unwrap();
        assert_eq!(read(rig.database.lookup(key).await), (Some(2), Freshness::LocalPending));
    }
    rig.clock.advance(Duration::from_secs(20));
    assert_eq!(read(rig.database.lookup("k").await), (None, Freshness::LocalPending));
    rig.recover().await;
    assert_eq!((rig.stored("k").await, rig.stored("lives").await), (None, Some(2)));
    rig.clock.advance(Duration::from_secs(40));
    assert_eq!(rig.stored("lives").await, None, "it ends when it was to end");
}

#[tokio::test]
async fn nothing_below_the_least_durability_is_acknowledged() {
    let strict = |config: &mut DatabaseChainConfig| config.min_durability = MinDurability::Local;
    let rig = Rig::with(strict).await;
    rig.set("k", 1).await;
    rig.fall().await;
    unavailable(rig.database.set_json("k", &2).await);
    unavailable(rig.database.append_json("list", &2).await);
    unavailable(rig.database.clear("").await);
    unavailable(rig.database.get("k").await);
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(1));
}

#[tokio::test]
async fn whoever_asks_for_guesses_is_given_them() {
    let rig = Rig::with(guessing).await;
    rig.set("before", 1).await;
    rig.fall().await;
    assert_eq!(read(rig.database.lookup("before").await), (None, Freshness::Fallback));
    assert_eq!(rig.database.length("list").await.unwrap(), 0);
    unavailable(rig.database.count("").await);
}

#[tokio::test]
async fn a_primary_that_is_down_at_the_start_is_a_degraded_start() {
    let faults = Faults::seeded(1);
    faults.set(Fault::FailBefore);
    let primary = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
    // No probe comes in between.
    let patient = |config: &mut DatabaseChainConfig| config.breaker.probe_interval = Duration::from_secs(3600);
    let rig = Rig::start(primary, Clock::system(), faults.clone(), patient).await;
    assert_eq!(rig.chain.status().state, ChainState::Degraded);
    let called = faults.counts().calls;
    for _ in 0..100 {
        unavailable(rig.database.get("other").await);
        rig.set("k", 1).await;
    }
    let after = faults.counts().calls;
    assert!(after <= called + 2, "nobody asks a primary that is away: {called}, then {after}");
}

#[tokio::test]
async fn a_frozen_primary_costs_no_caller_its_deadline() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.faults.set(Fault::Hang);
    let calls = (0..20).map(|number| {
        let database = rig.database.clone();
        tokio::spawn(async move { database.set_json(format!("k:{number}"), &number).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap().durability, Durability::Volatile);
    }
    rig.until(|status| status.state == ChainState::Degraded).await;
    unavailable(rig.database.get("k").await);
    rig.recover().await;
    for number in 0..20 {
        assert_eq!(rig.stored(&format!("k:{number}")).await, Some(number));
    }
}

#[tokio::test]
async fn no_caller_waits_for_a_frozen_primary_twice() {
    let rig = Rig::new().await;
    rig.faults.set(Fault::Hang);
    let callers = (0..16).map(|caller| {
        let database = rig.database.clone();
        tokio::spawn(async move {
            for number in 0..50 {
                let key = format!("{caller}:{number}");
                assert_eq!(database.set_json(&key, &number).await.unwrap().durability, Durability::Volatile);
                assert_eq!(database.lookup(&key).await.unwrap().freshness(), Freshness::LocalPending);
                unavailable(database.get("never written").await);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let asked = rig.faults.counts().calls;
    assert!(asked < 16 + 50, "a call of each and a few probes, not {asked} of 2400");
}

#[tokio::test]
async fn a_full_journal_takes_nothing_and_empties_itself() {
    let rig = Rig::with(|config| config.journal.max_bytes = 1 << 20).await;
    rig.fall().await;
    let mut kept = 0_usize;
    let refused = loop {
        match rig.database.set_bytes(format!("k:{kept}"), vec![7; 50_000]).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(kept >= 10 && rig.chain.status().journal_full, "{kept}");
    assert!(rig.database.get("k:0").await.unwrap().is_some());
    rig.recover().await;
    for number in 0..kept {
        assert!(rig.primary.exists(format!("k:{number}")).await.unwrap());
    }
    assert_eq!(rig.set("k:0", 1).await, Durability::Primary);
    assert!(!rig.chain.status().journal_full);
}

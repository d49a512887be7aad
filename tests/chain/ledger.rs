//! A ledger of what was acknowledged, against what is there in the end: random calls, random faults, and somebody else who writes too.
//!
//! A failing seed is printed, and replays with `CHAIN_SEED=<seed>`.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_storage::contract::Freshness;
use agent_storage::testkit::Fault;
use agent_storage::{ErrorKind, Revision, SetOptions, Stamp, Value};

use crate::random::Random;
use crate::rig::Rig;

const SCHEDULES: u64 = 40;
const STEPS: usize = 150;
const KEYS: u64 = 4;

/// What is known of a key after the calls so far.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The value that the last acknowledged write left; `None` was a delete, or nothing ever.
    value: Option<i64>,
    /// What writes of unknown outcome may have left instead.
    maybe: Vec<Option<i64>>,
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Ledger {
    keys: BTreeMap<String, Known>,
    /// The items of our writer in the order of their acknowledgement, and those that may be there too.
    items: Vec<i64>,
    maybe_items: Vec<i64>,
    theirs: Vec<i64>,
}

impl Ledger {
    fn settle(&mut self, key: &str, value: Option<i64>, outcome: Result<(), ErrorKind>) {
        let known = self.keys.entry(key.to_owned()).or_default();
        match outcome {
            Ok(()) => *known = Known { value, maybe: Vec::new() },
            Err(ErrorKind::OutcomeUnknown) => known.maybe.push(value),
            Err(ErrorKind::Unavailable | ErrorKind::Conflict) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn check(&self, key: &str, found: Option<i64>) {
        let known = self.keys.get(key).cloned().unwrap_or_default();
        assert!(known.value == found || known.maybe.contains(&found), "{key}: {found:?}, but {known:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_nothing_that_was_acknowledged_is_lost() {
    let chosen = std::env::var("CHAIN_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = chosen.map_or(0..SCHEDULES, |seed| seed..seed + 1);
    let mut seen = BTreeMap::new();
    let schedules: Vec<_> = seeds.map(|seed| (seed, tokio::spawn(schedule(seed)))).collect();
    for (seed, schedule) in schedules {
        let situations = schedule.await.unwrap_or_else(|error| panic!("CHAIN_SEED={seed}: {error}"));
        for situation in situations {
            *seen.entry(situation).or_insert(0) += 1;
        }
    }
    if chosen.is_none() {
        for situation in ["local", "pending read", "unavailable read", "unknown", "primary", "conflict"] {
            assert!(seen.get(situation).is_some_and(|times| *times > 0), "never reached: {situation}; {seen:?}");
        }
    }
}

/// One schedule; answers which situations it reached.
async fn schedule(seed: u64) -> Vec<&'static str> {
    let rig = Rig::new().await;
    let (mut random, mut ledger, mut seen) = (Random::seeded(seed), Ledger::default(), Vec::new());
    for step in 0..STEPS {
        match random.below(12) {
            0 => rig.faults.set(Fault::FailBefore),
            1 => rig.faults.set_for_some(Fault::FailAfter, 50),
            2 => rig.faults.set_for_some(Fault::TornBatch, 70),
            3 => rig.faults.set(Fault::ReadOnly),
            4..=6 => rig.faults.heal(),
            7 => tokio::time::sleep(Duration::from_millis(random.below(120))).await,
            _ => {}
        }
        call(&rig, &mut random, &mut ledger, &mut seen, i64::try_from(step).unwrap()).await;
    }
    rig.recover().await;
    for key in 0..KEYS {
        let key = format!("k:{key}");
        ledger.check(&key, rig.stored(&key).await);
    }
    check_items(&rig, &ledger).await;
    seen
}

async fn call(rig: &Rig, random: &mut Random, ledger: &mut Ledger, seen: &mut Vec<&'static str>, number: i64) {
    let key = format!("k:{}", random.below(KEYS));
    let value = || Value::from_integer(number);
    match random.below(8) {
        0 | 1 => {
            let ack = rig.database.set(key.as_str(), value()).await;
            seen.push(if ack.as_ref().is_ok_and(|ack| ack.durability.as_str() == "primary") {
                "primary"
            } else {
                "local"
            });
            ledger.settle(&key, Some(number), ack.map(drop).map_err(|error| error.kind()));
        }
        2 => {
            let outcome = rig.database.delete(key.as_str()).await;
            ledger.settle(&key, None, outcome.map(drop).map_err(|error| error.kind()));
        }
        3 => {
            let options = SetOptions::new().if_absent();
            let outcome =
                rig.database.set_with(key.as_str(), value(), options).await.map(drop).map_err(|error| error.kind());
            if outcome == Err(ErrorKind::OutcomeUnknown) {
                seen.push("unknown");
            }
            ledger.settle(&key, Some(number), outcome);
        }
        4 => match rig.database.append_json("list", &number).await {
            Ok(_) => ledger.items.push(number),
            Err(_) => ledger.maybe_items.push(number),
        },
        5 => {
            rig.primary.append_json("list", &(-1 - number)).await.unwrap();
            ledger.theirs.push(-1 - number);
        }
        6 => match rig.database.lookup(key.as_str()).await {
            Ok(lookup) => {
                if lookup.freshness() == Freshness::LocalPending {
                    seen.push("pending read");
                }
                ledger.check(&key, lookup.into_value().map(|value| value.decode().unwrap()));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                seen.push("unavailable read");
            }
        },
        _ => lost_condition(rig, seen, &key).await,
    }
}

/// A condition on a revision that nobody gave is lost, or cannot be judged.
async fn lost_condition(rig: &Rig, seen: &mut Vec<&'static str>, key: &str) {
    let options =
        SetOptions::new().if_revision(Revision::from_stamp(Stamp::earliest(agent_storage::Timestamp::from_millis(1))));
    let error = rig.database.set_with(key, Value::from_integer(0), options).await.unwrap_err();
    if error.kind() == ErrorKind::Conflict {
        seen.push("conflict");
    }
}

/// Every acknowledged item is there once, those of each writer in their order.
async fn check_items(rig: &Rig, ledger: &Ledger) {
    let items = rig.items("list").await;
    let ours: Vec<i64> = items.iter().copied().filter(|item| *item >= 0).collect();
    let theirs: Vec<i64> = items.iter().copied().filter(|item| *item < 0).collect();
    assert_eq!(theirs, ledger.theirs);
    let acknowledged: Vec<i64> = ours.iter().copied().filter(|item| !ledger.maybe_items.contains(item)).collect();
    assert_eq!(acknowledged, ledger.items, "lost, doubled or out of order");
}

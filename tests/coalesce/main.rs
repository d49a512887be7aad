//! How calls share round trips, and what that must not change.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod deadlines;
mod lanes;
mod recorder;
mod runtimes;

use std::sync::Arc;
use std::time::Duration;

use agent_storage::config::BatchingConfig;
use agent_storage::contract::DatabaseBackend;
use agent_storage::layer::Coalesce;
use agent_storage::{Database, ErrorKind, SetOptions, Value};
use recorder::{PANIC, POISON, Recorder};
use tokio::task::{JoinHandle, yield_now};

pub(crate) fn coalesced(recorder: &Arc<Recorder>, max_batch: u32) -> Database {
    with_lanes(recorder, 1, max_batch)
}

pub(crate) fn with_lanes(recorder: &Arc<Recorder>, lanes: u32, max_batch: u32) -> Database {
    let mut config = BatchingConfig::default();
    config.lanes = Some(lanes);
    config.max_batch = max_batch;
    let inner: Arc<dyn DatabaseBackend> = recorder.clone();
    Database::new(Arc::new(Coalesce::database(&config, inner)))
}

pub(crate) fn subject() -> (Database, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::closed());
    (coalesced(&recorder, 512), recorder)
}

/// Starts a set, and lets it come as far as it can.
pub(crate) async fn set(database: &Database, key: &str, number: i64) -> JoinHandle<agent_storage::Result<()>> {
    let (database, key) = (database.clone(), key.to_owned());
    let call = tokio::spawn(async move { database.set(key, Value::from_integer(number)).await.map(drop) });
    settle().await;
    call
}

pub(crate) async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_call_goes_out_at_once_while_the_lane_is_free() {
    let (database, recorder) = subject();
    let call = set(&database, "a", 1).await;
    assert_eq!(recorder.batches(), [["a"]]);
    recorder.let_through(1);
    call.await.unwrap().unwrap();
    recorder.let_through(1);
    set(&database, "b", 1).await.await.unwrap().unwrap();
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
}

#[tokio::test]
async fn what_waits_goes_as_one_batch() {
    let (database, recorder) = subject();
    let mut calls = Vec::new();
    for key in ["a", "b", "c", "d"] {
        calls.push(set(&database, key, 1).await);
    }
    recorder.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "c", "d"]]);
}

#[tokio::test]
async fn those_who_call_again_are_one_batch_again() {
    let (database, recorder) = subject();
    let first = set(&database, "a", 1).await;
    let callers = ["b", "c", "d"].map(|key| {
        let database = database.clone();
        tokio::spawn(async move {
            database.set(key, Value::from_integer(1)).await.unwrap();
            database.set(key, Value::from_integer(2)).await.unwrap();
        })
    });
    settle().await;
    recorder.open();
    first.await.unwrap().unwrap();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "c", "d"], vec!["b", "c", "d"]]);
}

#[tokio::test]
async fn a_batch_has_a_limit() {
    let recorder = Arc::new(Recorder::closed());
    let database = coalesced(&recorder, 2);
    let mut calls = Vec::new();
    for key in ["a", "b", "c", "d"] {
        calls.push(set(&database, key, 1).await);
    }
    recorder.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "c"], vec!["d"]]);
}

#[tokio::test]
async fn reads_are_bounded_by_the_bytes_that_others_were_answered_lately() {
    let recorder = Arc::new(Recorder::closed());
    let mut config = BatchingConfig::default();
    (config.lanes, config.max_batch_bytes) = (Some(1), 1000);
    let database = Database::new(Arc::new(Coalesce::database(&config, recorder.clone())));
    recorder.open();
    for (key, bytes) in [("large", 400), ("small", 1)] {
        database.set(key, Value::binary(vec![0; bytes]).unwrap()).await.unwrap();
    }
    let sizes_of = async |key: &'static str| {
        recorder.close();
        let before = recorder.batches().len();
        let mut reads = Vec::new();
        for _ in 0..7 {
            let database = database.clone();
            reads.push(tokio::spawn(async move { database.get(key).await.unwrap().unwrap().len() }));
            settle().await;
        }
        recorder.open();
        for read in reads {
            read.await.unwrap();
        }
        recorder.batches()[before..].iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(sizes_of("large").await, [1, 2, 2, 2]);
    // It grows again as the answers get smaller.
    let small = sizes_of("small").await;
    assert!(small.iter().sum::<usize>() == 7 && small.iter().max() > Some(&2), "{small:?}");
}

#[tokio::test]
async fn writes_of_a_key_keep_their_order_and_let_others_pass() {
    let (database, recorder) = subject();
    let mut calls = Vec::new();
    for (key, number) in [("a", 1), ("b", 1), ("b", 2), ("c", 1), ("b", 3)] {
        calls.push(set(&database, key, number).await);
    }
    recorder.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "c"], vec!["b"], vec!["b"]]);
    assert_eq!(database.get_json::<i64>("b").await.unwrap(), Some(3));
}

#[tokio::test]
async fn conditional_writes_go_apart_and_have_their_own_answers() {
    let (database, recorder) = subject();
    let first = set(&database, "a", 1).await;
    let create = |key: &'static str| {
        let database = database.clone();
        tokio::spawn(async move { database.set_with(key, Value::from_integer(7), SetOptions::new().if_absent()).await })
    };
    let (lost, won) = (create("a"), create("c"));
    settle().await;
    let plain = set(&database, "b", 1).await;
    recorder.open();
    first.await.unwrap().unwrap();
    plain.await.unwrap().unwrap();
    assert_eq!(lost.await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    won.await.unwrap().unwrap();
    assert_eq!(recorder.batches(), [vec!["a"], vec!["a", "c"], vec!["b"]]);
}

#[tokio::test]
async fn a_call_that_times_out_in_the_queue_was_not_sent() {
    let (database, recorder) = subject();
    let first = set(&database, "a", 1).await;
    let hurried = database.clone().with_timeout(Duration::from_millis(20));
    let error = hurried.set("b", Value::from_integer(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    recorder.open();
    first.await.unwrap().unwrap();
    settle().await;
    assert_eq!(recorder.batches(), [["a"]]);
}

#[tokio::test]
async fn a_write_that_times_out_on_its_way_is_unknown_and_a_read_unavailable() {
    let (database, recorder) = subject();
    let hurried = database.clone().with_timeout(Duration::from_millis(20));
    let error = hurried.set("a", Value::from_integer(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    let error = hurried.get("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    recorder.open();
    settle().await;
    assert!(database.get("a").await.unwrap().is_some(), "the write was on its way, so it came to its end");
}

#[tokio::test]
async fn a_lane_opens_only_when_its_write_has_ended() {
    let (database, recorder) = subject();
    let first = set(&database, "a", 1).await;
    first.abort();
    settle().await;
    let second = set(&database, "a", 2).await;
    assert_eq!(recorder.batches(), [["a"]], "the second write of the key waits for the first");
    recorder.open();
    second.await.unwrap().unwrap();
    assert_eq!(database.get_json::<i64>("a").await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_only_its_own_call_along() {
    let (database, recorder) = subject();
    let first = set(&database, "a", 1).await;
    let gone = set(&database, "b", 1).await;
    let stays = set(&database, "c", 1).await;
    gone.abort();
    settle().await;
    recorder.open();
    first.await.unwrap().unwrap();
    stays.await.unwrap().unwrap();
    assert_eq!(recorder.batches(), [["a"], ["c"]]);
}

#[tokio::test]
async fn a_bad_item_fails_alone() {
    let (database, recorder) = subject();
    let first = set(&database, "a", 1).await;
    let mut calls = Vec::new();
    for key in ["b", "c", POISON, "d", "e"] {
        calls.push((key, set(&database, key, 1).await));
    }
    recorder.open();
    first.await.unwrap().unwrap();
    for (key, call) in calls {
        assert_eq!(call.await.unwrap().is_err(), key == POISON, "{key}");
    }
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_the_layer_goes_on() {
    let (database, recorder) = subject();
    recorder.open();
    let error = set(&database, PANIC, 1).await.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    set(&database, "a", 1).await.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_in_a_batch_fails_every_caller_of_it() {
    let (database, recorder) = subject();
    let first = set(&database, "a", 1).await;
    let (with, panics) = (set(&database, "b", 1).await, set(&database, PANIC, 1).await);
    recorder.open();
    first.await.unwrap().unwrap();
    assert_eq!(with.await.unwrap().unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(panics.await.unwrap().unwrap_err().kind(), ErrorKind::Internal);
    set(&database, "b", 2).await.await.unwrap().unwrap();
}

#[tokio::test]
async fn appends_of_a_list_go_together_and_keep_their_order() {
    let (database, recorder) = subject();
    let mut calls = Vec::new();
    for number in 0..5 {
        let database = database.clone();
        calls.push(tokio::spawn(async move { database.append("list", Value::from_integer(number)).await }));
        settle().await;
    }
    recorder.open();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap().position, Some(number));
    }
    assert_eq!(recorder.batches(), [vec!["list"], vec!["list"; 4]]);
    assert_eq!(database.range_json::<i64>("list", 0, -1).await.unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn reads_share_a_round_trip_and_each_gets_what_it_asked_for() {
    let (database, recorder) = subject();
    recorder.let_through(1);
    set(&database, "a", 1).await.await.unwrap().unwrap();
    let read = |key: &'static str| {
        let database = database.clone();
        tokio::spawn(async move { database.get_json::<i64>(key).await })
    };
    let (first, second, third) = (read("a"), read("a"), read("b"));
    let looking = database.clone();
    let revised = tokio::spawn(async move { looking.lookup("a").await.unwrap().into_entry().unwrap() });
    settle().await;
    recorder.open();
    assert!(revised.await.unwrap().revision.to_stamp().is_some(), "the others did without");
    assert_eq!(first.await.unwrap().unwrap(), Some(1));
    assert_eq!(second.await.unwrap().unwrap(), Some(1));
    assert_eq!(third.await.unwrap().unwrap(), None);
    assert_eq!(recorder.batches(), [vec!["a"], vec!["a"], vec!["a", "b", "a"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_come_and_go_lose_nothing_that_was_acknowledged() {
    let (database, recorder) = subject();
    recorder.open();
    let writers = (0..50).map(|writer: i64| {
        let database = database.clone();
        tokio::spawn(async move {
            for round in 0..100 {
                let call = database.set(format!("{writer}"), Value::from_integer(round));
                if (writer + round) % 3 == 0 {
                    // Polled once at least, then dropped at some point.
                    let _ = tokio::time::timeout(Duration::from_micros(20), call).await;
                    database.set(format!("{writer}"), Value::from_integer(round)).await.unwrap();
                } else {
                    call.await.unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for writer in 0..50 {
        assert_eq!(database.get_json::<i64>(format!("{writer}")).await.unwrap(), Some(99));
    }
}

//! Several lanes: they share what waits, and the calls of a key keep their order all the same.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::{Database, Value};
use tokio::task::JoinHandle;

use crate::recorder::Recorder;
use crate::{set, settle, with_lanes};

fn subject() -> (Database, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::closed());
    (with_lanes(&recorder, 2, 512), recorder)
}

async fn append(database: &Database, key: &'static str, number: i64) -> JoinHandle<agent_storage::Result<()>> {
    let database = database.clone();
    let call = tokio::spawn(async move { database.append(key, Value::from_integer(number)).await.map(drop) });
    settle().await;
    call
}

#[tokio::test]
async fn whichever_lane_is_free_takes_all_that_waits() {
    let (database, recorder) = subject();
    let mut calls = Vec::new();
    for key in ["a", "b", "c", "d", "e"] {
        calls.push(set(&database, key, 1).await);
    }
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
    recorder.let_through(1);
    settle().await;
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b"], vec!["c", "d", "e"]]);
    recorder.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_write_follows_one_of_its_key_in_another_lane_and_lets_others_pass() {
    let (database, recorder) = subject();
    let mut calls = vec![set(&database, "a", 1).await, set(&database, "a", 2).await];
    assert_eq!(recorder.batches(), [["a"]], "the second lane is free, and not for this key");
    calls.push(set(&database, "b", 1).await);
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
    calls.push(set(&database, "c", 1).await);
    calls.push(set(&database, "a", 3).await);
    recorder.let_through(1);
    settle().await;
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b"], vec!["a", "c"]]);
    recorder.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(recorder.batches()[3..], [["a"]]);
    assert_eq!(database.get_json::<i64>("a").await.unwrap(), Some(3));
}

#[tokio::test]
async fn a_write_follows_one_of_its_key_whose_caller_is_gone() {
    let (database, recorder) = subject();
    set(&database, "a", 1).await.abort();
    settle().await;
    let second = set(&database, "a", 2).await;
    let other = set(&database, "b", 1).await;
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
    recorder.open();
    second.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    assert_eq!(database.get_json::<i64>("a").await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_write_follows_one_of_its_key_whose_caller_was_told_that_it_is_late() {
    let (database, recorder) = subject();
    let hurried = database.clone().with_timeout(Duration::from_millis(20));
    hurried.set("a", Value::from_integer(1)).await.unwrap_err();
    let second = set(&database, "a", 2).await;
    assert_eq!(recorder.batches(), [["a"]]);
    recorder.open();
    second.await.unwrap().unwrap();
    assert_eq!(database.get_json::<i64>("a").await.unwrap(), Some(2));
}

#[tokio::test]
async fn appends_of_a_list_follow_those_on_their_way_together() {
    let (database, recorder) = subject();
    let mut calls = Vec::new();
    for (key, number) in [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("c", 1)] {
        calls.push(append(&database, key, number).await);
    }
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
    recorder.let_through(1);
    settle().await;
    assert_eq!(recorder.batches()[2..], [["a", "a", "c"]]);
    recorder.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(database.range_json::<i64>("a", 0, -1).await.unwrap(), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_writes_of_a_key_are_on_their_way_at_once() {
    let recorder = Arc::new(Recorder::closed());
    let database = with_lanes(&recorder, 3, 4);
    recorder.open();
    let writers = (0..40).map(|writer: usize| {
        let database = database.clone();
        tokio::spawn(async move {
            for round in 0..100 {
                let key = format!("{}", (writer + round * 7) % 9);
                let call = database.set(key, Value::from_integer(1));
                if (writer + round).is_multiple_of(5) {
                    let _ = tokio::time::timeout(Duration::from_micros(20), call).await;
                } else {
                    call.await.unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(recorder.overlaps(), 0);
}

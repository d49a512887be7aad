//! Callers of several runtimes share a store, and runtimes come and go.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use agent_storage::{Database, ErrorKind, SetOptions, Value};
use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::recorder::Recorder;
use super::{set, settle, subject};

/// A runtime that runs only while it is told to.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

type Call = JoinHandle<agent_storage::Result<()>>;

/// How a call ends. One that is left alone would wait for ever.
async fn end(call: Call) -> agent_storage::Result<()> {
    tokio::time::timeout(Duration::from_secs(60), call).await.unwrap().unwrap()
}

#[test]
fn what_waits_behind_a_call_whose_runtime_ends_goes_on_in_its_order() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let _gone: Call = other.block_on(set(&database, "a", 1));
    let waiting: Vec<Call> = ours.block_on(async { vec![set(&database, "a", 2).await, set(&database, "b", 1).await] });
    assert_eq!(recorder.batches(), [["a"]]);
    drop(other);
    ours.block_on(async {
        // A newcomer does not overtake what waits.
        let last = set(&database, "a", 3).await;
        recorder.open();
        for call in waiting.into_iter().chain([last]) {
            end(call).await.unwrap();
        }
        assert_eq!(recorder.batches(), [vec!["a"], vec!["a", "b"], vec!["a"]]);
        assert_eq!(database.get_json::<i64>("a").await.unwrap(), Some(3));
    });
}

#[test]
fn a_call_in_a_batch_whose_runtime_ends_is_told_so_at_once() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let first: Call = ours.block_on(set(&database, "a", 1));
    let sent: Call = ours.block_on(set(&database, "b", 1));
    let _gone: Call = other.block_on(set(&database, "c", 1));
    recorder.let_through(1);
    // The batch is sent by the runtime of the call that came last.
    ours.block_on(async { end(first).await.unwrap() });
    other.block_on(settle());
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "c"]]);
    let waiting: Call = ours.block_on(set(&database, "d", 1));
    drop(other);
    let error = ours.block_on(end(sent)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    recorder.open();
    ours.block_on(end(waiting)).unwrap();
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "c"], vec!["d"]]);
}

#[test]
fn a_deadline_does_not_depend_on_a_runtime_that_rests() {
    let (database, _recorder) = subject();
    let (resting, ours) = (runtime(), runtime());
    let _first: Call = resting.block_on(set(&database, "a", 1));
    let hurried = database.with_timeout(Duration::from_millis(20));
    let call = async move { hurried.set("b", Value::from_integer(1)).await.map(drop) };
    let error = ours.block_on(async { end(tokio::spawn(call)).await }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn a_call_that_moves_to_another_task_is_woken_there() {
    let (database, recorder) = subject();
    let ours = runtime();
    ours.block_on(async {
        let first = set(&database, "a", 1).await;
        let mut moved = Box::pin({
            let database = database.clone();
            async move { database.set("b", Value::from_integer(1)).await.map(drop) }
        });
        let nobody = &mut TaskContext::from_waker(Waker::noop());
        assert!(pin!(&mut moved).poll(nobody).is_pending());
        let moved = tokio::spawn(moved);
        settle().await;
        recorder.open();
        end(first).await.unwrap();
        end(moved).await.unwrap();
    });
}

#[test]
fn what_waits_is_not_sent_where_the_runtime_of_the_last_call_has_ended() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let first: Call = ours.block_on(set(&database, "a", 1));
    let waiting: Call = ours.block_on(set(&database, "b", 1));
    let _gone: Call = other.block_on(set(&database, "c", 1));
    drop(other);
    recorder.open();
    ours.block_on(async {
        end(first).await.unwrap();
        end(waiting).await.unwrap();
    });
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
}

#[test]
fn a_batch_that_was_given_to_a_runtime_which_ends_was_not_sent() {
    for _ in 0..20 {
        let (database, recorder) = subject();
        let (other, ours) = (runtime(), runtime());
        let first: Call = ours.block_on(set(&database, "a", 1));
        let waiting: Call = ours.block_on(set(&database, "b", 1));
        let _gone: Call = other.block_on(set(&database, "c", 1));
        recorder.let_through(1);
        // It sends what waits where the last call came from, which rests, and ends.
        ours.block_on(async { end(first).await.unwrap() });
        drop(other);
        recorder.open();
        // On a slow machine the first call may have been taken over before, and what waits is sent here.
        if let Err(error) = ours.block_on(end(waiting)) {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            return assert_eq!(recorder.batches(), [["a"]]);
        }
    }
    panic!("it was never given to the other runtime");
}

#[test]
fn what_waits_behind_a_runtime_that_rests_is_sent_by_another() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let first: Call = other.block_on(set(&database, "a", 1));
    let waiting: Call = ours.block_on(set(&database, "b", 1));
    recorder.let_through(1);
    // The first call ends, and its runtime rests before it has sent what waits.
    other.block_on(first).unwrap().unwrap();
    recorder.open();
    ours.block_on(end(waiting)).unwrap();
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
    ours.block_on(async { end(set(&database, "c", 1).await).await.unwrap() });
}

/// Sends `a`, and then `b`, which waited for it, by a task of this runtime; answers the call of `b`.
fn with_a_batch_on_its_way(database: &Database, recorder: &Recorder, runtime: &Runtime) -> Call {
    let first: Call = runtime.block_on(set(database, "a", 1));
    let second: Call = runtime.block_on(set(database, "b", 1));
    recorder.let_through(1);
    runtime.block_on(async { end(first).await.unwrap() });
    runtime.block_on(settle());
    second
}

#[test]
fn a_batch_after_the_next_is_sent_where_a_caller_waits_too() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let second = with_a_batch_on_its_way(&database, &recorder, &other);
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
    let waiting: Call = ours.block_on(set(&database, "b", 2));
    recorder.let_through(1);
    // It rests once its own call has ended.
    other.block_on(async { end(second).await.unwrap() });
    recorder.open();
    for _ in 0..2 {
        other.block_on(settle());
    }
    ours.block_on(end(waiting)).unwrap();
    assert_eq!(recorder.batches(), [["a"], ["b"], ["b"]]);
    ours.block_on(async { end(set(&database, "c", 1).await).await.unwrap() });
}

#[test]
fn a_runtime_that_rests_after_its_batch_was_answered_keeps_no_lane() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let second = with_a_batch_on_its_way(&database, &recorder, &other);
    recorder.open();
    other.block_on(second).unwrap().unwrap();
    // It has nothing more to do, and is not run again before others have called.
    for number in 0..3 {
        ours.block_on(async { end(set(&database, "c", number).await).await.unwrap() });
    }
    other.block_on(async { end(set(&database, "d", 1).await).await.unwrap() });
    assert_eq!(recorder.batches(), [["a"], ["b"], ["c"], ["c"], ["c"], ["d"]]);
}

#[test]
fn what_waited_before_a_batch_was_answered_is_sent_though_its_runtime_rests() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let second = with_a_batch_on_its_way(&database, &recorder, &other);
    // It knows of nothing but its deadline: the lane is in good hands.
    let waiting: Call = ours.block_on(set(&database, "c", 1));
    recorder.open();
    other.block_on(second).unwrap().unwrap();
    ours.block_on(async { end(waiting).await.unwrap() });
    assert_eq!(recorder.batches(), [["a"], ["b"], ["c"]]);
}

#[test]
fn a_runtime_without_timers_takes_no_lane_along() {
    let (database, recorder) = subject();
    recorder.open();
    let bad = Builder::new_current_thread().build().unwrap();
    for _ in 0..10 {
        let write = std::panic::AssertUnwindSafe(|| bad.block_on(database.set("a", Value::from_integer(1))));
        assert!(std::panic::catch_unwind(write).is_err(), "there are no timers");
    }
    runtime().block_on(async { end(set(&database, "a", 2).await).await.unwrap() });
}

/// Polls a call once, and holds on to it.
async fn begun<F: Future>(call: F) -> Pin<Box<F>> {
    let mut call = Box::pin(call);
    assert!(call.as_mut().now_or_never().is_none());
    call
}

#[tokio::test]
async fn a_call_that_is_held_and_not_polled_keeps_nobody_waiting() {
    let (database, recorder) = subject();
    let held = begun(database.get("a")).await;
    assert_eq!(recorder.batches(), [["a"]]);
    let reader = database.clone();
    let waiting = tokio::spawn(async move { reader.get("b").await });
    settle().await;
    assert_eq!(recorder.batches(), [["a"]]);
    recorder.open();
    assert_eq!(tokio::time::timeout(Duration::from_secs(4), waiting).await.unwrap().unwrap().unwrap(), None);
    assert_eq!(held.await.unwrap(), None, "its answer has waited for it");
}

#[tokio::test]
async fn a_write_that_is_held_and_not_polled_is_in_its_keys_order_and_in_nobodys_way() {
    let (database, recorder) = subject();
    let held = begun(database.set("a", Value::from_integer(1))).await;
    let waiting = [set(&database, "a", 2).await, set(&database, "b", 2).await];
    recorder.open();
    for call in waiting {
        end(call).await.unwrap();
    }
    assert_eq!(recorder.batches(), [vec!["a"], vec!["a", "b"]]);
    assert_eq!(database.get_json::<i64>("a").await.unwrap(), Some(2));
    held.await.unwrap();
}

#[tokio::test]
async fn a_change_that_is_held_and_not_polled_goes_to_its_end_though_nobody_waits_for_its_lane() {
    let (database, recorder) = subject();
    let lone = begun(database.set("a", Value::from_integer(1))).await;
    let many = begun(database.set_many([("b", Value::from_integer(1)), ("c", Value::from_integer(1))])).await;
    recorder.open();
    let applied = async || database.exists("a").await.unwrap() && database.exists("c").await.unwrap();
    let all = async {
        while !applied().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(4), all).await.expect("nobody had to poll them");
    lone.await.unwrap();
    assert_eq!(many.await.len(), 2);
}

#[tokio::test]
async fn a_write_that_is_held_beyond_its_deadline_goes_to_its_end() {
    let (database, recorder) = subject();
    let hurried = database.clone().with_timeout(Duration::from_millis(50));
    let held = begun(async move { hurried.set("a", Value::from_integer(1)).await }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    recorder.open();
    assert_eq!(held.await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    settle().await;
    assert_eq!(database.get_json::<i64>("a").await.unwrap(), Some(1), "it was taken over");
    assert_eq!(recorder.overlaps(), 0);
}

#[tokio::test]
async fn a_call_that_is_taken_over_and_then_given_up_leaves_nothing_behind() {
    let (database, recorder) = subject();
    let held = begun(database.set("a", Value::from_integer(1))).await;
    let waiting = set(&database, "b", 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(held);
    recorder.open();
    end(waiting).await.unwrap();
    drop(database);
    settle().await;
    assert_eq!(Arc::strong_count(&recorder), 1, "no task holds the store");
}

#[test]
fn a_batch_that_was_given_to_a_runtime_that_rests_is_sent_by_another() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let first: Call = ours.block_on(set(&database, "a", 1));
    let waiting: Vec<Call> = ours.block_on(async { vec![set(&database, "b", 1).await, set(&database, "c", 1).await] });
    // The last one that waits goes away again, as at a time-out of its caller's, and its runtime rests.
    other.block_on(async {
        let gone: Call = set(&database, "d", 1).await;
        gone.abort();
        settle().await;
    });
    recorder.open();
    ours.block_on(async {
        end(first).await.unwrap();
        for call in waiting {
            end(call).await.unwrap();
        }
        // The lane is not lost either.
        end(set(&database, "e", 1).await).await.unwrap();
    });
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "c"], vec!["e"]]);
    // What comes too late there changes nothing.
    other.block_on(settle());
    ours.block_on(async { end(set(&database, "f", 1).await).await.unwrap() });
    assert_eq!(recorder.batches().len(), 4);
}

async fn create(database: &Database, key: &'static str) -> Call {
    let (database, options) = (database.clone(), SetOptions::new().if_absent());
    let call = tokio::spawn(async move { database.set_with(key, Value::from_integer(1), options).await.map(drop) });
    settle().await;
    call
}

#[test]
fn what_is_left_over_by_a_batch_is_not_sent_where_its_runtime_rests() {
    let (database, recorder) = subject();
    let (other, ours) = (runtime(), runtime());
    let first: Call = ours.block_on(set(&database, "a", 1));
    let waiting: Call = ours.block_on(set(&database, "b", 1));
    // What has a condition goes along with no other.
    let conditional: Call = ours.block_on(create(&database, "c"));
    let last: Call = other.block_on(set(&database, "d", 1));
    recorder.let_through(1);
    ours.block_on(async { end(first).await.unwrap() });
    other.block_on(settle());
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "d"]]);
    recorder.open();
    other.block_on(last).unwrap().unwrap();
    ours.block_on(async {
        end(waiting).await.unwrap();
        end(conditional).await.unwrap();
    });
    assert_eq!(recorder.batches(), [vec!["a"], vec!["b", "d"], vec!["c"]]);
}

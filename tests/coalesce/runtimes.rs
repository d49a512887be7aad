//! Callers of several runtimes share a store, and runtimes come and go.

use std::future::Future;
use std::pin::pin;
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use agent_storage::{ErrorKind, Value};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

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
    let first: Call = other.block_on(set(&database, "a", 1));
    let sent: Call = ours.block_on(set(&database, "b", 1));
    recorder.let_through(1);
    // The batch is sent by the runtime in which the lane became free.
    other.block_on(async { end(first).await.unwrap() });
    other.block_on(settle());
    assert_eq!(recorder.batches(), [["a"], ["b"]]);
    let waiting: Call = ours.block_on(set(&database, "c", 1));
    drop(other);
    let error = ours.block_on(end(sent)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    recorder.open();
    ours.block_on(end(waiting)).unwrap();
    assert_eq!(recorder.batches(), [["a"], ["b"], ["c"]]);
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

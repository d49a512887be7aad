//! Each call ends by its own deadline, whatever the store and the others do.

use std::sync::Arc;
use std::time::Duration;

use agent_storage::config::BatchingConfig;
use agent_storage::contract::{Context, DatabaseBackend, GetOptions, Write};
use agent_storage::layer::Coalesce;
use agent_storage::{ErrorKind, Key, Stamp, Value};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::recorder::Recorder;
use super::{settle, subject};

/// The clock stands still but for the waits, so how late a call ends is not a matter of the machine. Deadlines are far enough
/// away that the machine's own clock does not reach them.
const TOLERANCE: Duration = Duration::from_millis(2);

/// A store whose clock is ours, so that a call can be made with any deadline.
fn store() -> (Arc<dyn DatabaseBackend>, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::closed());
    let mut config = BatchingConfig::default();
    config.lanes = Some(1);
    let inner: Arc<dyn DatabaseBackend> = recorder.clone();
    (Arc::new(Coalesce::database(&config, inner)), recorder)
}

fn within(timeout: Duration) -> Context {
    let mut cx = Context::with_timeout(timeout);
    cx.deadline = (Instant::now() + timeout).into_std();
    cx
}

/// Whether a call ended at its deadline, neither before nor long after.
fn is_on_time(late: Option<Duration>) -> bool {
    late.is_some_and(|late| late <= TOLERANCE)
}

/// Starts a write; it answers how it ended and how long after its deadline.
fn write(
    store: &Arc<dyn DatabaseBackend>,
    key: &str,
    cx: Context,
) -> JoinHandle<(Option<ErrorKind>, Option<Duration>)> {
    let (store, key) = (store.clone(), Key::parse(key).unwrap());
    tokio::spawn(async move {
        let ended = store.write(Write::put(key, Value::from_integer(1), Stamp::MIN), &cx).await;
        let late = Instant::now().checked_duration_since(cx.deadline.into());
        (ended.err().map(|error| error.kind()), late)
    })
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_before_a_store_that_hangs_end_by_their_own_deadlines() {
    let (store, recorder) = store();
    let first = write(&store, "first", within(Duration::from_secs(63)));
    settle().await;
    let calls: Vec<_> = (0..1000_u64)
        .map(|index| write(&store, &format!("{index}"), within(Duration::from_millis(60_000 + index * 7919 % 2000))))
        .collect();
    for call in calls {
        let (ended, late) = call.await.unwrap();
        assert_eq!(ended, Some(ErrorKind::Unavailable), "it was not sent");
        assert!(is_on_time(late), "{late:?}");
    }
    let (ended, late) = first.await.unwrap();
    assert_eq!(ended, Some(ErrorKind::OutcomeUnknown), "it was on its way");
    assert!(is_on_time(late), "{late:?}");
    assert_eq!(recorder.batches(), [["first"]]);
}

#[tokio::test(start_paused = true)]
async fn a_hurried_call_ends_in_time_behind_patient_ones() {
    let (store, _recorder) = store();
    let first = write(&store, "first", within(Context::MAX_TIMEOUT));
    settle().await;
    let patient = write(&store, "patient", within(Context::MAX_TIMEOUT));
    settle().await;
    let (ended, late) = write(&store, "hurried", within(Duration::from_secs(30))).await.unwrap();
    assert_eq!(ended, Some(ErrorKind::Unavailable));
    assert!(is_on_time(late), "{late:?}");
    assert!(!first.is_finished() && !patient.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_a_batch_that_hangs_end_by_their_own_deadlines() {
    let (store, recorder) = store();
    let first = write(&store, "first", within(Duration::from_secs(60)));
    settle().await;
    let calls: Vec<_> = (1..=50)
        .map(|index| write(&store, &format!("{index}"), within(Duration::from_millis(60_000 + index * 20))))
        .collect();
    settle().await;
    recorder.let_through(1);
    for call in calls {
        let (ended, late) = call.await.unwrap();
        assert_eq!(ended, Some(ErrorKind::OutcomeUnknown), "it was on its way");
        assert!(is_on_time(late), "{late:?}");
    }
    assert_eq!(recorder.batches().len(), 2, "one batch took all that waited");
    assert_eq!(first.await.unwrap().0, None, "it had its answer");
}

#[tokio::test(start_paused = true)]
async fn a_read_on_its_way_ends_by_its_deadline() {
    let (store, _recorder) = store();
    let cx = within(Duration::from_secs(40));
    let error = store.get(&Key::parse("a").unwrap(), &GetOptions::default(), &cx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(is_on_time(Instant::now().checked_duration_since(cx.deadline.into())));
}

#[tokio::test(start_paused = true)]
async fn deadlines_are_kept_again_after_nothing_waited_for_long() {
    let (store, recorder) = store();
    for _ in 0..3 {
        let (first, second) = (within(Duration::from_secs(50)), within(Duration::from_secs(20)));
        let (first, second) = (write(&store, "first", first), write(&store, "second", second));
        assert_eq!(second.await.unwrap().0, Some(ErrorKind::Unavailable));
        assert_eq!(first.await.unwrap().0, Some(ErrorKind::OutcomeUnknown));
        recorder.let_through(1);
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    assert_eq!(recorder.batches(), [["first"], ["first"], ["first"]]);
}

#[tokio::test]
async fn a_store_that_is_dropped_leaves_no_timer_behind() {
    let (database, recorder) = subject();
    recorder.open();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    database.clone().with_timeout(Context::MAX_TIMEOUT).set("a", Value::from_integer(1)).await.unwrap();
    settle().await;
    assert_eq!(tasks(), 1, "the timer looks after the next call, too");
    drop(database);
    settle().await;
    assert_eq!(tasks(), 0);
}

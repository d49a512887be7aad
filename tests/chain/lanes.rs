//! Four writes in flight at once, each answered, lost, applied without a reply, or late, in every combination; and what happens then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::testkit::{Fault, Faults};
use agent_storage::{Database, Result, Value};
use futures_util::{StreamExt, stream};
use tokio::task::JoinHandle;

use crate::rig::Rig;

/// What becomes of a write at the primary; `None` is an answer.
const FATES: [Option<Fault>; 4] = [None, Some(Fault::Hang), Some(Fault::HangAfter), Some(Fault::Late)];

/// How long a call may take, so that what is left of it for the journal is enough on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How many combinations are tried at once.
const AT_ONCE: usize = 32;

pub(crate) type Fates = [Option<Fault>; 4];
pub(crate) type InFlight = [JoinHandle<Result<()>>; 4];

fn combinations() -> impl Iterator<Item = Fates> {
    let pairs = || FATES.into_iter().flat_map(|first| FATES.map(|second| (first, second)));
    pairs().flat_map(move |(first, second)| pairs().map(move |(third, fourth)| [first, second, third, fourth]))
}

/// Tries every combination. Each says whether its four writes were in flight as they should be: a probe may come between.
pub(crate) async fn for_each<F: Future<Output = bool> + Send>(attempt: impl Fn(Fates) -> F + Send + Sync) {
    let reached = AtomicUsize::new(0);
    let count = |fates| {
        let attempt = attempt(fates);
        async {
            reached.fetch_add(usize::from(attempt.await), Ordering::Relaxed);
        }
    };
    stream::iter(combinations()).for_each_concurrent(AT_ONCE, count).await;
    assert!(reached.into_inner() > combinations().count() / 2, "too few combinations were reached");
}

/// Whether what is in flight is just what has no answer yet.
pub(crate) fn are_in_flight(writes: &InFlight, fates: Fates) -> bool {
    writes.iter().zip(fates).all(|(write, fate)| write.is_finished() == fate.is_none())
}

/// What there is before: a value under `set`, one value and one item under `delete`, one item under `append`.
pub(crate) async fn prepare(database: &Database) {
    for key in ["set", "delete"] {
        database.set_json(key, &0).await.unwrap();
    }
    for list in ["delete", "append"] {
        database.append_json(list, &0).await.unwrap();
    }
}

/// Calls a write in a task of its own, and waits until the primary has it.
async fn call<F>(faults: &Faults, fate: Option<Fault>, call: F) -> JoinHandle<Result<()>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    if let Some(fault) = fate {
        faults.set_for_next(fault, 1);
    }
    let before = faults.counts().calls;
    let task = tokio::spawn(call);
    while faults.counts().calls == before {
        tokio::task::yield_now().await;
    }
    // What is answered is answered now.
    tokio::task::yield_now().await;
    task
}

/// Four writes of different keys, one of them of two, none of which waits for another.
pub(crate) async fn four_in_flight(faults: &Faults, database: &Database, fates: Fates) -> InFlight {
    let copies: [Database; 4] = std::array::from_fn(|_| database.clone());
    let [set, append, delete, batch] = copies;
    let both = || ["batch:1", "batch:2"].map(|key| (key, Value::from_integer(1)));
    [
        call(faults, fates[0], async move { set.set("set", Value::from_integer(1)).await.map(drop) }).await,
        call(faults, fates[1], async move { append.append_json("append", &1).await.map(drop) }).await,
        call(faults, fates[2], async move { delete.delete("delete").await.map(drop) }).await,
        call(
            faults,
            fates[3],
            async move { batch.set_many(both()).await.into_iter().try_for_each(|ack| ack.map(drop)) },
        )
        .await,
    ]
}

/// All four are acknowledged, whatever became of them.
async fn all_acknowledged(writes: InFlight, fates: Fates) {
    for write in writes {
        write.await.unwrap().unwrap_or_else(|error| panic!("{fates:?}: {error}"));
    }
}

/// What is there of the four keys and two lists.
async fn found(rig: &Rig) -> ([Option<i64>; 4], [Vec<i64>; 2]) {
    let values =
        [rig.stored("set").await, rig.stored("delete").await, rig.stored("batch:1").await, rig.stored("batch:2").await];
    (values, [rig.items("append").await, rig.items("delete").await])
}

/// Newer writes of all of them but one key of the batch.
pub(crate) async fn write_on(database: &Database) {
    for key in ["set", "delete", "batch:1"] {
        database.set_json(key, &2).await.unwrap();
    }
    for list in ["append", "delete"] {
        database.append_json(list, &2).await.unwrap();
    }
}

const WRITTEN_ON: ([Option<i64>; 4], [&[i64]; 2]) = ([Some(2), Some(2), Some(2), Some(1)], [&[0, 1, 2], &[2]]);

/// What was acknowledged is there, also when the late ones have landed; and what was deleted then stays so.
async fn settle_and_check(rig: &Rig, fates: Fates) {
    rig.recover().await;
    let (values, [append, delete]) = found(rig).await;
    assert_eq!((values, [&*append, &*delete]), WRITTEN_ON, "{fates:?}");
    for key in ["set", "append"] {
        rig.database.delete(key).await.unwrap();
    }
    rig.deliver_all().await;
    let (values, lists) = found(rig).await;
    assert_eq!((values, lists), ([None, Some(2), Some(2), Some(1)], [vec![], vec![2]]), "{fates:?}, late");
}

#[tokio::test]
async fn in_every_combination_a_trip_loses_nothing_and_repeats_nothing() {
    for_each(|fates| async move {
        let rig = Rig::new().await;
        prepare(&rig.database).await;
        let writes = four_in_flight(&rig.faults, &rig.database.clone().with_timeout(TIMEOUT), fates).await;
        let is_reached = are_in_flight(&writes, fates);
        rig.fall().await;
        all_acknowledged(writes, fates).await;
        write_on(&rig.database).await;
        assert_eq!(rig.chain.status().state, ChainState::Degraded);
        settle_and_check(&rig, fates).await;
        is_reached
    })
    .await;
}

#[tokio::test]
async fn in_every_combination_a_time_out_loses_nothing_and_repeats_nothing() {
    for_each(|fates| async move {
        let rig = Rig::new().await;
        prepare(&rig.database).await;
        let writes = four_in_flight(&rig.faults, &rig.database.clone().with_timeout(TIMEOUT), fates).await;
        let is_reached = are_in_flight(&writes, fates);
        all_acknowledged(writes, fates).await;
        write_on(&rig.database).await;
        settle_and_check(&rig, fates).await;
        is_reached
    })
    .await;
}

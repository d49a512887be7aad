//! Writes that want much at once, among writes that want little all the time: everybody has a turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agent_storage::testkit::Fault;
use agent_storage::{Database, Value};
use tokio::task::JoinSet;

use crate::rig::Rig;

const WRITERS: usize = 8;

/// Writes without a pause, each to its keys; counts what each has written.
struct Load {
    tasks: JoinSet<()>,
    is_over: Arc<AtomicBool>,
    written: Vec<Arc<AtomicUsize>>,
}

impl Load {
    fn start(database: &Database, key: impl Fn(usize) -> String) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let written: Vec<Arc<AtomicUsize>> = (0..WRITERS).map(|_| Arc::default()).collect();
        let mut tasks = JoinSet::new();
        for (writer, written) in written.iter().enumerate() {
            let (database, is_over, written, key) =
                (database.clone(), is_over.clone(), Arc::clone(written), key(writer));
            tasks.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    database.set(&key, Value::from_integer(1)).await.unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { tasks, is_over, written }
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

/// A rig whose primary takes its time.
async fn slow() -> Rig {
    let rig = Rig::new().await;
    rig.faults.set(Fault::Slow(Duration::from_millis(2)));
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_and_a_batch_have_their_turns_however_much_is_written() {
    let rig = slow().await;
    let load = Load::start(&rig.database, |writer| format!("a:{writer}"));
    for _ in 0..10 {
        rig.database.clear("a:").await.unwrap();
        let batch = (0..WRITERS).map(|writer| (format!("a:{writer}"), Value::from_integer(2)));
        for answer in rig.database.set_many(batch).await {
            answer.unwrap();
        }
    }
    load.end().await;
}

#[tokio::test]
async fn of_those_who_write_one_key_each_has_its_turn() {
    let rig = slow().await;
    let load = Load::start(&rig.database, |_| "k".to_owned());
    while load.written.iter().map(|written| written.load(Ordering::Relaxed)).sum::<usize>() < 20 * WRITERS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let written: Vec<usize> = load.written.iter().map(|written| written.load(Ordering::Relaxed)).collect();
    assert!(written.iter().all(|written| *written >= 15), "{written:?}");
    load.end().await;
}

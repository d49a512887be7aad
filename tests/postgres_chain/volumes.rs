//! Much is owed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_storage::contract::{Durability, Freshness};
use agent_storage::{Database, Value};

use crate::rig::Rig;
use crate::support::{Server, Suite};

/// How many keys are written in one call.
const AT_ONCE: i64 = 500;

/// How long a start may take that finds much owed, on a busy machine and without optimisation.
const START: Duration = Duration::from_secs(15);

pub(crate) fn tests(suite: &mut Suite) {
    macro_rules! tests {
        ($($name:ident)*) => { $(suite.test(stringify!($name), &[Server::Postgres], $name);)* };
    }
    tests! {
        ten_thousand_operations_are_brought_back_while_writers_go_on
        a_start_with_much_that_is_owed_answers_soon
    }
}

/// Has so many keys written while the server is away, each with its number.
async fn owe(rig: &Rig, count: i64) {
    for from in (0..count).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let items = (from..from + AT_ONCE).map(|number| (format!("owed:{number}"), Value::from_integer(number)));
        for answer in rig.database.set_many(items).await {
            assert_eq!(answer.unwrap().durability, Durability::Local);
        }
    }
}

async fn ten_thousand_operations_are_brought_back_while_writers_go_on() {
    let rig = Rig::new().await;
    rig.prepare().await;
    rig.cut_off().await;
    owe(&rig, 10_000).await;
    let ended = Arc::new(AtomicBool::new(false));
    // Some write what is owed already, and some what is not.
    let keys: Vec<String> = (0..8).map(|key| format!("{}:{key}", if key < 4 { "owed" } else { "new" })).collect();
    let write = |key: &String| tokio::spawn(write_on(rig.database.clone(), key.clone(), Arc::clone(&ended)));
    let writers: Vec<_> = keys.iter().map(write).collect();
    rig.connect().await;
    rig.until_normal().await;
    ended.store(true, Ordering::Relaxed);
    for (key, writer) in keys.iter().zip(writers) {
        let last = writer.await.unwrap();
        assert_eq!(rig.others.get_json(key).await.unwrap(), Some(last), "{key}");
    }
    assert_eq!(rig.others.count("owed:").await.unwrap(), 10_000);
    assert_eq!(rig.others.get_json("owed:9999").await.unwrap(), Some(9999));
    assert!(rig.others.conflicts().collect().await.unwrap().is_empty());
}

/// Writes at a moderate rate until the end, and says what was written last.
async fn write_on(database: Database, key: String, ended: Arc<AtomicBool>) -> i64 {
    let mut last = 0;
    while !ended.load(Ordering::Relaxed) {
        last += 1;
        database.set_json(&key, &last).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    last
}

async fn a_start_with_much_that_is_owed_answers_soon() {
    let mut rig = Rig::new().await;
    rig.server.kill();
    owe(&rig, 50_000).await;
    let began = Instant::now();
    rig.start_anew().await;
    assert_eq!(rig.read("owed:7").await, (Some(7), Freshness::LocalPending));
    let took = began.elapsed();
    assert!(took < START, "{took:?}");
    assert_eq!(rig.chain.status().pending, 50_000);
}

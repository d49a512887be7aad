//! Runs schedules, several at a time, and gathers what was reached.

use std::io::Write as _;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::reached::Reached;
use crate::schedule::Schedule;

/// How many schedules run at a time.
const LANES: usize = 3;

/// How many times as many schedules run at most until everything was met.
const MOST_ROUNDS: u64 = 3;

/// Runs the schedules of these seeds. With `all`, so many more follow until everything was met: what comes in the way of what is a
/// matter of moments.
pub(crate) async fn run_all(seeds: Range<u64>, all: bool) {
    let mut reached = Reached::default();
    let count = seeds.end - seeds.start;
    for round in 0..MOST_ROUNDS {
        let begin = seeds.start + round * count;
        reached.join(run_some(begin..begin + count).await);
        if !all || reached.missing().is_empty() {
            break;
        }
    }
    std::io::stdout().write_all(reached.to_string().as_bytes()).unwrap();
    let missing = reached.missing();
    assert!(!all || missing.is_empty(), "never reached: {missing:?}");
}

async fn run_some(seeds: Range<u64>) -> Reached {
    let next = Arc::new(AtomicU64::new(seeds.start));
    let lanes = (0..LANES).map(|_| {
        let next = Arc::clone(&next);
        tokio::task::spawn_blocking(move || lane(&next, seeds.end))
    });
    let (mut reached, mut failures) = (Reached::default(), Vec::new());
    for lane in lanes.collect::<Vec<_>>() {
        let (met, failed) = lane.await.unwrap();
        reached.join(met);
        failures.extend(failed);
    }
    assert!(failures.is_empty(), "{} schedules failed\n{}", failures.len(), failures.join("\n\n"));
    reached
}

/// Runs schedules one after the other, until none is left. One that fails does not keep the others from running.
fn lane(next: &AtomicU64, end: u64) -> (Reached, Vec<String>) {
    let (mut reached, mut failures) = (Reached::default(), Vec::new());
    loop {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        if seed >= end {
            return (reached, failures);
        }
        match std::panic::catch_unwind(AssertUnwindSafe(|| Schedule::run(seed))) {
            Ok(met) => reached.join(met),
            Err(panic) => {
                let why = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
                failures.push(format!("MOVES_SEED={seed}\n{why}"));
            }
        }
    }
}

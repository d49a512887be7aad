//! Runs schedules, several at a time.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::reached::SITUATIONS;
use crate::schedule::Schedule;
use crate::support::schedules::{self, Reached};

/// Runs the schedules of these seeds, as [`schedules::run_all`] says.
pub(crate) async fn run_all(seeds: Range<u64>, all: bool) {
    let lane = |next: Arc<AtomicU64>, end| tokio::task::spawn_blocking(move || lane(&next, end));
    schedules::run_all(seeds, all, &SITUATIONS, lane).await;
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

//! Random schedules: which of them run, and what they met, for a schedule that meets nothing proves nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::task::JoinHandle;

/// How many schedules run at a time.
const LANES: usize = 3;

/// How many times as many schedules run at most until everything was met.
const MOST_ROUNDS: u64 = 3;

/// How often each situation was met.
#[derive(Debug, Default)]
pub struct Reached(BTreeMap<&'static str, u64>);

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:6} {what}"))
    }
}

impl Reached {
    pub fn note(&mut self, what: &'static str) {
        self.note_times(what, 1);
    }

    pub fn note_times(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub fn join(&mut self, other: Self) {
        for (what, times) in other.0 {
            self.note_times(what, times);
        }
    }

    /// Which of the wanted ones were never met.
    fn missing(&self, wanted: &[&'static str]) -> Vec<&'static str> {
        wanted.iter().copied().filter(|what| self.0.get(what).is_none_or(|times| *times == 0)).collect()
    }
}

/// The seeds to run, and whether they must meet everything: `<NAME>_SEED` asks for one alone, `<NAME>_SCHEDULES` for so many.
pub fn seeds(name: &str, by_default: u64) -> (Range<u64>, bool) {
    let number = |what| std::env::var(format!("{name}_{what}")).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (seed, count) = (number("SEED"), number("SCHEDULES"));
    let first = seed.unwrap_or(0);
    let count = count.unwrap_or(if seed.is_some() { 1 } else { by_default });
    (first..first + count, seed.is_none())
}

/// What a lane met, and what failed in it.
pub type Lane = JoinHandle<(Reached, Vec<String>)>;

/// Runs the schedules of these seeds, in lanes that each take the next seed up to an end. With `all`, so many more follow until everything
/// wanted was met: what comes in the way of what is a matter of moments.
pub async fn run_all(
    seeds: Range<u64>,
    all: bool,
    wanted: &[&'static str],
    lane: impl Fn(Arc<AtomicU64>, u64) -> Lane + Send + Sync,
) {
    let mut reached = Reached::default();
    let count = seeds.end - seeds.start;
    for round in 0..MOST_ROUNDS {
        let begin = seeds.start + round * count;
        reached.join(run_some(begin..begin + count, &lane).await);
        if !all || reached.missing(wanted).is_empty() {
            break;
        }
    }
    std::io::stdout().write_all(reached.to_string().as_bytes()).unwrap();
    let missing = reached.missing(wanted);
    assert!(!all || missing.is_empty(), "never reached: {missing:?}");
}

async fn run_some(seeds: Range<u64>, lane: impl Fn(Arc<AtomicU64>, u64) -> Lane + Send + Sync) -> Reached {
    let next = Arc::new(AtomicU64::new(seeds.start));
    let lanes: Vec<_> = (0..LANES).map(|_| lane(Arc::clone(&next), seeds.end)).collect();
    let (mut reached, mut failures) = (Reached::default(), Vec::new());
    for lane in lanes {
        let (met, failed) = lane.await.unwrap();
        reached.join(met);
        failures.extend(failed);
    }
    assert!(failures.is_empty(), "{} schedules failed\n{}", failures.len(), failures.join("\n\n"));
    reached
}

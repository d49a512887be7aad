//! Driving a contender: so many callers for so long, and what came of it.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::workload::{Draw, Op, Workload};

/// Whoever does the work. A clone of it goes to each task.
pub trait Contender: Clone + Send + Sync + 'static {
    fn who(&self) -> String;

    fn does(&self, op: Op) -> bool;

    /// How so many callers become tasks: one each, unless it makes its own batches.
    fn shape(&self, _op: Op, callers: usize) -> Shape {
        Shape { tasks: callers, batch: 1, stretch: 1 }
    }

    /// Writes every key, so that reads find something. Contenders on the same table leave it to one of them.
    fn fill(&self, work: &'static Workload) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Does as many operations as [`Draw::batch`] says.
    fn turn(&self, op: Op, draw: &mut Draw) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// How callers become tasks.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub tasks: usize,
    /// Operations a turn.
    pub batch: usize,
    /// Turns between two looks at the clock, where a look costs more than a turn.
    pub stretch: usize,
}

impl Shape {
    /// A few tasks that share the callers' operations among them, as batches.
    pub fn batches(tasks: usize, callers: usize) -> Self {
        let tasks = tasks.min(callers);
        Self { tasks, batch: callers / tasks, stretch: 1 }
    }
}

/// What one run came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub ops_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// A contender of any type.
#[async_trait]
pub trait Runner: Send + Sync {
    fn who(&self) -> String;
    fn does(&self, op: Op) -> bool;
    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()>;
    async fn run(&self, op: Op, callers: usize, length: Duration, work: &'static Workload) -> anyhow::Result<Sample>;
}

#[async_trait]
impl<C: Contender> Runner for C {
    fn who(&self) -> String {
        Contender::who(self)
    }

    fn does(&self, op: Op) -> bool {
        Contender::does(self, op)
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        Contender::fill(self, work).await.with_context(|| format!("{} cannot write", Contender::who(self)))
    }

    async fn run(&self, op: Op, callers: usize, length: Duration, work: &'static Workload) -> anyhow::Result<Sample> {
        let shape = self.shape(op, callers);
        let end = Instant::now() + length;
        let tasks: Vec<_> = (0..shape.tasks)
            .map(|task| tokio::spawn(drive(self.clone(), op, Draw::new(work, task, shape.batch), shape.stretch, end)))
            .collect();
        let mut nanos = Vec::new();
        for task in tasks {
            let latencies = task.await?.with_context(|| format!("{} cannot {op}", Contender::who(self)))?;
            nanos.extend(latencies);
        }
        anyhow::ensure!(!nanos.is_empty(), "{} did not end one {op} in {length:?}", Contender::who(self));
        let operations = (nanos.len() * shape.stretch * shape.batch) as f64;
        Ok(Sample {
            ops_per_s: operations / length.as_secs_f64(),
            p50_us: percentile(&mut nanos, 0.50),
            p99_us: percentile(&mut nanos, 0.99),
        })
    }
}

/// One task: turn after turn until the end. Answers the nanoseconds that each operation took; a turn that ended too late does
/// not count.
async fn drive<C: Contender>(
    contender: C,
    op: Op,
    mut draw: Draw,
    stretch: usize,
    end: Instant,
) -> anyhow::Result<Vec<u32>> {
    let mut latencies = Vec::with_capacity(1 << 12);
    let mut began = Instant::now();
    loop {
        for _ in 0..stretch {
            contender.turn(op, &mut draw).await?;
        }
        let now = Instant::now();
        if now > end {
            return Ok(latencies);
        }
        let nanos = (now - began).as_nanos() / stretch as u128;
        latencies.push(u32::try_from(nanos).unwrap_or(u32::MAX));
        began = now;
        if stretch > 1 {
            // What never waits would keep the others of its callers from ever beginning.
            tokio::task::yield_now().await;
            began = Instant::now();
        }
    }
}

/// The microseconds below which such a part of them are.
pub fn percentile(nanos: &mut [u32], part: f64) -> f64 {
    let last = nanos.len() - 1;
    let (_, nanos, _) = nanos.select_nth_unstable((last as f64 * part) as usize);
    f64::from(*nanos) / 1000.0
}

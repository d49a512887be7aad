//! Measures agent-storage beside what people use instead: the same work, on the same servers, in one run.
//!
//! See `docs/performance.md` for how to run it and how to read what it prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

mod drive;
mod fallback;
mod jetstream;
mod library;
mod memory;
mod opendal;
mod overhead;
mod postgres;
mod redis;
mod report;
mod sqlite;
mod stage;
mod support;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::drive::Runner;
use crate::library::Variant;
use crate::opendal::Program;
use crate::report::Row;
use crate::stage::{Backend, Stage};
use crate::workload::{Op, Workload};

/// Measures agent-storage beside the clients that people use instead, on the same servers in one run.
#[derive(Debug, Parser)]
struct Arguments {
    /// The stores to measure; all by default.
    #[arg(long, value_delimiter = ',', value_enum)]
    backend: Vec<Backend>,
    /// The operations to measure; all by default.
    #[arg(long, value_delimiter = ',', value_enum)]
    op: Vec<Op>,
    /// The numbers of concurrent callers.
    #[arg(long, value_delimiter = ',', default_value = "1,16,256,1024", value_parser = clap::value_parser!(u16).range(1..=4096))]
    callers: Vec<u16>,
    /// Rounds; what is printed is their median.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds that each contender runs in a round.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Only contenders whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    who: Vec<String>,
    /// Measures the library with these numbers of lanes too.
    #[arg(long, value_delimiter = ',')]
    lanes: Vec<u32>,
    /// Measures the library without batching too.
    #[arg(long)]
    unbatched: bool,
    /// Measures the library without its fallback too, where it has one by default.
    #[arg(long)]
    unchained: bool,
    /// Leaves Apache OpenDAL out, whose own program takes a few minutes to build the first time.
    #[arg(long)]
    no_opendal: bool,
    /// Measures only the memory of 100,000 waiting calls, beyond their callers' own tasks and values.
    #[arg(long)]
    overhead: bool,
    /// Measures only what the fallback does while a store is away, and when it comes back.
    #[arg(long)]
    fallback: bool,
    /// The folder for the servers' data and the SQLite files: on a real disk.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Writes the medians as JSON, one object a line.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the medians as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
}

impl Arguments {
    fn backends(&self) -> Vec<Backend> {
        if self.backend.is_empty() { Backend::ALL.to_vec() } else { self.backend.clone() }
    }

    fn ops(&self) -> Vec<Op> {
        if self.op.is_empty() { Op::ALL.to_vec() } else { self.op.clone() }
    }

    fn variants(&self) -> Vec<Variant> {
        let lanes = self.lanes.iter().map(|lanes| Variant::Lanes(*lanes));
        let unbatched = self.unbatched.then_some(Variant::Unbatched);
        let unchained = self.unchained.then_some(Variant::Unchained);
        [Variant::Default].into_iter().chain(lanes).chain(unbatched).chain(unchained).collect()
    }

    fn wants(&self, who: &str) -> bool {
        self.who.is_empty() || self.who.iter().any(|part| who.contains(part.as_str()))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.overhead {
        runtime.block_on(overhead::measure(Workload::make()))?;
        // Those who wait would wait on.
        runtime.shutdown_background();
        return Ok(());
    }
    if arguments.fallback {
        return runtime.block_on(fallback::measure(&arguments.folder, Workload::make()));
    }
    let rows = runtime.block_on(measure(&arguments))?;
    println!("{}", report::table(&rows));
    if let Some(path) = &arguments.json {
        report::write_json(&rows, path)?;
    }
    if let Some(path) = &arguments.plot {
        report::write_plot(&rows, path)?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let work = Workload::make();
    let opendal =
        if arguments.no_opendal || !arguments.wants("opendal") { None } else { Some(Program::build().await?) };
    let mut rows = Vec::new();
    for backend in arguments.backends() {
        let stage = Stage::set(backend, &arguments.folder)?;
        let mut contenders = stage.contenders(&arguments.variants(), opendal.as_ref(), work).await?;
        for contender in &contenders {
            contender.fill(work).await?;
        }
        contenders.retain(|contender| arguments.wants(&contender.who()));
        for op in arguments.ops() {
            let able: Vec<&dyn Runner> =
                contenders.iter().map(|contender| &**contender).filter(|contender| contender.does(op)).collect();
            for callers in &arguments.callers {
                rows.extend(cell(arguments, backend, op, usize::from(*callers), &able, work).await?);
            }
        }
    }
    Ok(rows)
}

/// Measures one cell: in each round the contenders one after the other, so that what disturbs the machine disturbs all. Each round begins
/// with another one, and every second one goes backwards, so that nobody always comes after the same one.
async fn cell(
    arguments: &Arguments,
    backend: Backend,
    op: Op,
    callers: usize,
    contenders: &[&dyn Runner],
    work: &'static Workload,
) -> anyhow::Result<Vec<Row>> {
    let length = Duration::from_secs_f64(arguments.seconds);
    // A run that does not count, in which whoever cannot take so many callers drops out: its failure is worth a line, not
    // the end of the others.
    let mut able: Vec<(&dyn Runner, Vec<_>)> = Vec::new();
    for &contender in contenders {
        match contender.run(op, callers, length / 5, work).await {
            Ok(_) => able.push((contender, Vec::new())),
            Err(error) => eprintln!("{} {op} {callers}: {} left out: {error:#}", backend.name(), contender.who()),
        }
    }
    for round in 0..usize::from(arguments.rounds) {
        let first = round % able.len().max(1);
        let (later, first) = able.split_at_mut(first);
        let mut turns: Vec<_> = first.iter_mut().chain(later).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (contender, samples) in turns {
            match contender.run(op, callers, length, work).await {
                Ok(sample) => samples.push(sample),
                Err(error) => eprintln!("{} {op} {callers}: {} failed: {error:#}", backend.name(), contender.who()),
            }
        }
    }
    let row = |(contender, samples): &(&dyn Runner, Vec<_>)| {
        let sample = report::median(samples)?;
        let row = Row { backend: backend.name(), op, callers, who: contender.who(), sample };
        eprintln!("{} {op} {callers}: {} {:.0}/s", row.backend, row.who, row.sample.ops_per_s);
        Some(row)
    };
    Ok(able.iter().filter_map(row).collect())
}

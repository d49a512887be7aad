//! What the fallback does while a store is away, and how fast: the server freezes, is stood in for, and comes back.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_storage::chain::{ChainState, ChainStatus};
use agent_storage::{Cache, Database, StorageManager, Value};
use anyhow::Context;
use comfy_table::{Table, presets};
use tokio::sync::watch::Receiver;

use crate::drive::{Contender, Runner, Sample, percentile};
use crate::library::Variant;
use crate::report;
use crate::stage::{Backend, Stage};
use crate::workload::{Draw, Op, Workload};

/// How long a state may take to be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one thing is measured, and how often.
const LENGTH: Duration = Duration::from_secs(1);
const ROUNDS: usize = 3;

/// From when on a call counts as one that waited for the store.
const A_WAIT: Duration = Duration::from_secs(1);

/// How many operations are owed when the time to the normal state is measured, and when that of a start is.
const OWED: usize = 10_000;
const OWED_AT_START: usize = 1_000_000;

/// How many keys are written in one call where much is to be owed.
const AT_ONCE: usize = 500;

/// How many writers go on while the journal is replayed, and the pause of each between two writes.
const WRITERS: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// Measures all of it, and prints it.
pub async fn measure(folder: &Path, work: &'static Workload) -> anyhow::Result<()> {
    let mut notes = Notes::new();
    for backend in [Backend::Redis, Backend::Jetstream] {
        cache(backend, folder, work, &mut notes).await?;
    }
    database(folder, work, &mut notes).await?;
    start(folder, work, &mut notes).await?;
    println!("{}", notes.0);
    Ok(())
}

struct Notes(Table);

impl Notes {
    fn new() -> Self {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["what", "wanted", "measured"]);
        Self(table)
    }

    fn add(&mut self, what: String, wanted: &str, measured: String) {
        eprintln!("{what}: {measured}");
        self.0.add_row([what, wanted.to_owned(), measured]);
    }
}

/// Either side of the library, before a store that may be away.
#[derive(Clone)]
enum Handle {
    Cache(Cache),
    Database(Database),
}

impl Contender for Handle {
    fn who(&self) -> String {
        report::OURS.to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        for (key, value) in work.keys.iter().zip(work.values.iter().cycle()) {
            self.set(key, Value::json(value.clone())?).await?;
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        match (op, self) {
            // What is missing is an answer too.
            (Op::Get, Self::Cache(cache)) => drop(cache.get(draw.key()).await?),
            // What is not in the journal is unavailable.
            (Op::Get, Self::Database(database)) => drop(database.get(draw.key()).await),
            _ => self.set(draw.key(), Value::json(draw.value())?).await?,
        }
        Ok(())
    }
}

impl Handle {
    async fn set(&self, key: &str, value: Value) -> agent_storage::Result<()> {
        match self {
            Self::Cache(cache) => cache.set(key, value).await.map(drop),
            Self::Database(database) => database.set(key, value).await.map(drop),
        }
    }

    /// So many calls at the same time for so long, a few times; the median.
    async fn measured(&self, op: Op, callers: usize, work: &'static Workload) -> anyhow::Result<Sample> {
        let mut samples = Vec::new();
        for _ in 0..ROUNDS {
            samples.push(self.run(op, callers, LENGTH, work).await?);
        }
        report::median(&samples).context("no round")
    }
}

/// A side of the library with its fallback.
struct Side {
    manager: StorageManager,
    handle: Handle,
    watch: Receiver<ChainStatus>,
}

impl Side {
    async fn cache(config: &str) -> anyhow::Result<Self> {
        let manager = Variant::Default.manager("cache", config)?;
        let handle = Handle::Cache(manager.cache().await?);
        let watch = manager.watch_cache_chain().await?.context("no fallback")?;
        Ok(Self { manager, handle, watch })
    }

    async fn database(config: &str) -> anyhow::Result<Self> {
        let manager = Variant::Default.manager("database", config)?;
        let handle = Handle::Database(manager.database().await?);
        let watch = manager.watch_database_chain().await?.context("no fallback")?;
        Ok(Self { manager, handle, watch })
    }

    /// Waits for a state, and says how long that took.
    async fn until(&mut self, state: ChainState) -> anyhow::Result<Duration> {
        let began = Instant::now();
        tokio::time::timeout(PATIENCE, self.watch.wait_for(|status| status.state == state))
            .await
            .with_context(|| format!("not {state:?} in {PATIENCE:?}"))??;
        Ok(began.elapsed())
    }

    /// Freezes the server under callers that write and read, and notes who waited how often.
    async fn freeze(&mut self, stage: &Stage, work: &'static Workload, notes: &mut Notes) -> anyhow::Result<()> {
        let ended = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..32)
            .map(|task| {
                let (handle, ended) = (self.handle.clone(), Arc::clone(&ended));
                let op = if task % 2 == 0 { Op::Get } else { Op::Set };
                tokio::spawn(async move { waits(handle, op, Draw::new(work, task, 1), &ended).await })
            })
            .collect();
        tokio::time::sleep(LENGTH / 2).await;
        stage.process()?.freeze();
        let noticed = self.until(ChainState::Degraded).await?;
        tokio::time::sleep(LENGTH).await;
        ended.store(true, Ordering::Relaxed);
        let (mut most, mut longest) = (0, Duration::ZERO);
        for caller in callers {
            let waits = caller.await??;
            most = most.max(waits.len());
            longest = longest.max(waits.into_iter().max().unwrap_or_default());
        }
        let name = stage.backend().name();
        notes.add(format!("{name} frozen: noticed after"), "", seconds(noticed));
        notes.add(format!("{name} frozen: the longest wait of a call"), "< 5 s", seconds(longest));
        notes.add(format!("{name} frozen: waits of one caller"), "1", most.to_string());
        Ok(())
    }
}

/// Calls until the end; answers how long those took that waited.
async fn waits(handle: Handle, op: Op, mut draw: Draw, ended: &AtomicBool) -> anyhow::Result<Vec<Duration>> {
    let mut waits = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        handle.turn(op, &mut draw).await?;
        waits.extend(Some(began.elapsed()).filter(|took| *took > A_WAIT));
        // What answers from memory never rests.
        tokio::task::yield_now().await;
    }
    Ok(waits)
}

async fn cache(backend: Backend, folder: &Path, work: &'static Workload, notes: &mut Notes) -> anyhow::Result<()> {
    let stage = Stage::set(backend, folder)?;
    let mut side = Side::cache(&stage.config()).await?;
    Contender::fill(&side.handle, work).await?;
    side.freeze(&stage, work, notes).await?;
    for op in [Op::Get, Op::Set] {
        let sample = side.handle.measured(op, 16, work).await?;
        notes.add(format!("{} frozen: {op}, 16 callers, p99", backend.name()), "< 1000 us", micros(sample.p99_us));
    }
    stage.process()?.thaw();
    let normal = side.until(ChainState::Normal).await?;
    notes.add(format!("{} thawed: normal again after", backend.name()), "", seconds(normal));
    Ok(side.manager.disconnect().await?)
}

async fn database(folder: &Path, work: &'static Workload, notes: &mut Notes) -> anyhow::Result<()> {
    let (stage, sqlite) = (Stage::set(Backend::Postgres, folder)?, Stage::set(Backend::Sqlite, folder)?);
    let mut side = Side::database(&stage.config()).await?;
    Contender::fill(&side.handle, work).await?;
    side.freeze(&stage, work, notes).await?;
    journaled(&side, folder, work, notes).await?;
    let sqlite = sqlite.library(Variant::Default).await?;
    Contender::fill(&sqlite, work).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(side.handle.run(Op::Set, 256, LENGTH, work).await?);
        theirs.push(Runner::run(&sqlite, Op::Set, 256, LENGTH, work).await?);
    }
    let rate = |samples: &[Sample]| report::median(samples).map_or(f64::NAN, |sample| sample.ops_per_s);
    let (ours, theirs) = (rate(&ours), rate(&theirs));
    notes.add("journaled set, 256 callers".to_owned(), "", format!("{ours:.0}/s"));
    notes.add("sqlite set, 256 callers".to_owned(), "", format!("{theirs:.0}/s"));
    notes.add("journaled set of that of sqlite".to_owned(), "> 0.5", format!("{:.2}", ours / theirs));
    let server = stage.process()?;
    returns(&mut side, "thawed", || server.thaw(), work, notes).await?;
    server.kill();
    owe(&side.handle, OWED, work).await?;
    side.until(ChainState::Degraded).await?;
    returns(&mut side, "restarted", || server.restart(), work, notes).await?;
    Ok(side.manager.disconnect().await?)
}

/// Writes of few callers to the journal beside the bare disk.
async fn journaled(side: &Side, folder: &Path, work: &'static Workload, notes: &mut Notes) -> anyhow::Result<()> {
    let (mut disk, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let folder = folder.to_owned();
        disk.push(tokio::task::spawn_blocking(move || fsync(&folder)).await??);
        ours.push(side.handle.run(Op::Set, 16, LENGTH, work).await?);
    }
    let median = |samples: &[Sample]| report::median(samples).context("no round");
    let (disk, ours) = (median(&disk)?, median(&ours)?);
    let both = |sample: Sample| format!("{}, {}", micros(sample.p50_us), micros(sample.p99_us));
    notes.add("fsync of a page, p50 and p99".to_owned(), "", both(disk));
    notes.add("journaled set, 16 callers, p50 and p99".to_owned(), "", both(ours));
    notes.add("times fsync, p99".to_owned(), "< 3", format!("{:.2}", ours.p99_us / disk.p99_us));
    Ok(())
}

/// What it takes to append a page to a file and to have it on the disk. The file is used over and over, as a log is.
fn fsync(folder: &Path) -> anyhow::Result<Sample> {
    let mut file: File = tempfile::tempfile_in(folder)?;
    let (page, end, mut nanos) = (vec![7; 4096], Instant::now() + LENGTH, Vec::new());
    while Instant::now() < end {
        if nanos.len() % 1000 == 0 {
            file.seek(SeekFrom::Start(0))?;
        }
        let began = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        nanos.push(u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    let ops_per_s = nanos.len() as f64 / LENGTH.as_secs_f64();
    Ok(Sample { ops_per_s, p50_us: percentile(&mut nanos, 0.50), p99_us: percentile(&mut nanos, 0.99) })
}

/// Has so many new keys written, many at once.
async fn owe(handle: &Handle, count: usize, work: &'static Workload) -> anyhow::Result<()> {
    let Handle::Database(database) = handle else { anyhow::bail!("a cache owes nothing") };
    let mut draw = Draw::new(work, 0, 1);
    for from in (0..count).step_by(AT_ONCE) {
        let items: Result<Vec<_>, _> = (from..count.min(from + AT_ONCE))
            .map(|number| Ok((format!("owed:{number:07}"), Value::json(draw.value())?)))
            .collect::<agent_storage::Result<_>>();
        for answer in database.set_many(items?).await {
            answer?;
        }
    }
    Ok(())
}

/// The server comes back while writers go on, and is brought what it is owed.
async fn returns(
    side: &mut Side,
    when: &str,
    back: impl FnOnce(),
    work: &'static Workload,
    notes: &mut Notes,
) -> anyhow::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write_on(side.handle.clone(), Draw::new(work, writer, 1), Arc::clone(&ended))))
        .collect();
    let before = side.manager.database_chain().context("no fallback")?;
    back();
    let returned = Instant::now();
    let away = side.until(ChainState::Reconciling).await?;
    let replaying = side.until(ChainState::Normal).await?;
    let all = returned.elapsed();
    let replayed = side.manager.database_chain().context("no fallback")?.replayed - before.replayed;
    ended.store(true, Ordering::Relaxed);
    let mut nanos = Vec::new();
    for writer in writers {
        nanos.extend(writer.await??);
    }
    let rate = replayed as f64 / replaying.as_secs_f64();
    notes.add(format!("{when}: owed"), "", before.pending.to_string());
    notes.add(format!("{when}: counted as away for"), "", seconds(away));
    notes.add(format!("{when}: replayed meanwhile"), "> 10000/s", format!("{rate:.0}/s"));
    notes.add(format!("{when}: normal after"), "< 15 s with 10,000 owed", seconds(all));
    let (p50, p99) = (percentile(&mut nanos, 0.50), percentile(&mut nanos, 0.99));
    notes.add(
        format!("{when}: {} writes meanwhile, p50 and p99", nanos.len()),
        "",
        format!("{}, {}", micros(p50), micros(p99)),
    );
    Ok(())
}

/// Writes at a moderate rate until the end; answers the nanoseconds that each write took.
async fn write_on(handle: Handle, mut draw: Draw, ended: Arc<AtomicBool>) -> anyhow::Result<Vec<u32>> {
    let mut nanos = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        handle.turn(Op::Set, &mut draw).await?;
        nanos.push(u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(nanos)
}

/// A start with much that is owed.
async fn start(folder: &Path, work: &'static Workload, notes: &mut Notes) -> anyhow::Result<()> {
    let stage = Stage::set(Backend::Postgres, folder)?;
    let mut side = Side::database(&stage.config()).await?;
    stage.process()?.kill();
    owe(&side.handle, OWED_AT_START, work).await?;
    side.until(ChainState::Degraded).await?;
    side.manager.disconnect().await?;
    drop(side);
    let began = Instant::now();
    let manager = Variant::Default.manager("database", &stage.config())?;
    let database = manager.database().await?;
    let owed = database.get("owed:0000007").await?;
    let took = began.elapsed();
    anyhow::ensure!(owed.is_some(), "what is owed was not found");
    notes.add(format!("a start with {OWED_AT_START} owed, to the first answer"), "< 5 s", seconds(took));
    Ok(manager.disconnect().await?)
}

fn micros(micros: f64) -> String {
    format!("{micros:.0} us")
}

fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}

//! A process that writes through the library as an application does, and tells its parent of each call before and after it.
//!
//! It is this program, started anew with its orders in the environment.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent_storage::chain::{ChainState, ChainStatus};
use agent_storage::{Clock, HybridClock, Stamp, StorageManager, Timestamp};
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::line::{Digits, Line};
use crate::random::Random;

const ORDERS: &str = "LEDGER_WRITER";

/// How many calls are on their way at a time.
const TASKS: u64 = 5;

/// How long a writer that is told to finish waits until it owes nothing.
const SETTLE: Duration = Duration::from_secs(3);

/// What a writer is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) process: i64,
    pub(crate) seed: u64,
    /// By how many milliseconds its clock is ahead.
    pub(crate) ahead: u64,
    pub(crate) config: String,
}

impl Orders {
    pub(crate) fn give(&self, command: &mut std::process::Command) {
        command.env(ORDERS, serde_json::to_string(self).unwrap());
    }
}

/// The orders, where this process is a writer.
pub(crate) fn orders() -> Option<Orders> {
    std::env::var(ORDERS).ok().map(|orders| serde_json::from_str(&orders).unwrap())
}

pub(crate) fn run(orders: Orders) -> ExitCode {
    let finish = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let finish = Arc::clone(&finish);
        move || {
            let mut word = String::new();
            match std::io::stdin().read_line(&mut word) {
                Ok(1..) => finish.store(true, Ordering::SeqCst),
                // The parent is gone.
                _ => std::process::exit(1),
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(write(orders, finish));
    ExitCode::SUCCESS
}

async fn write(orders: Orders, finish: Arc<AtomicBool>) {
    set_clock(orders.ahead);
    let manager = StorageManager::from_file(&orders.config).unwrap();
    let database = manager.database().await.unwrap();
    let chain = manager.open_database_chain().await.unwrap().expect("a chain by default");
    let mut watch = chain.watch();
    tell_state(&watch.borrow_and_update());
    tokio::spawn({
        let mut watch = watch.clone();
        async move {
            while watch.changed().await.is_ok() {
                tell_state(&watch.borrow_and_update());
            }
        }
    });
    let calls = Arc::new(AtomicU64::new(0));
    let tasks = (0..TASKS).map(|task| {
        let random = Random::seeded(orders.seed.wrapping_mul(1000) + orders.process.unsigned_abs() * 100 + task);
        let caller = Caller {
            process: orders.process,
            ahead: orders.ahead,
            chain: Arc::clone(&chain),
            database: database.clone(),
            calls: Arc::clone(&calls),
            random,
        };
        tokio::spawn(caller.run(Arc::clone(&finish)))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let settled = watch.wait_for(|status| status.state == ChainState::Normal && status.pending == 0);
    // What is still owed then is brought there by whoever takes it over.
    let _ = tokio::time::timeout(SETTLE, settled).await;
    tell_state(&chain.status());
    manager.disconnect().await.unwrap();
}

/// What a call writes names it.
pub(crate) fn value_of(process: i64, call: u64) -> i64 {
    process * 1_000_000 + i64::try_from(call).unwrap()
}

/// Has the process's clock show no less than so many milliseconds after the system's. A clock follows every stamp that it is
/// shown, so it runs as one that is ahead as long as this is called before each call.
pub(crate) fn set_clock(ahead: u64) {
    if ahead > 0 {
        HybridClock::process().observe(Stamp::earliest(Timestamp::from_millis(now() + ahead)));
    }
}

pub(crate) fn stamp() -> Digits {
    digits(HybridClock::process().issue())
}

pub(crate) fn digits(stamp: Stamp) -> Digits {
    stamp.to_string()
}

pub(crate) fn now() -> u64 {
    Clock::system().now().as_millis()
}

fn tell_state(status: &ChainStatus) {
    let ChainStatus { state, pending, parked, .. } = status;
    tell(&Line::State { state: state.as_str().to_owned(), pending: *pending, parked: *parked });
}

/// One write a line: whoever is killed leaves whole ones.
pub(crate) fn tell(line: &Line) {
    let mut text = serde_json::to_string(line).unwrap();
    text.push('\n');
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

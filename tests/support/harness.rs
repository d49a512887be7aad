//! Runs asynchronous tests, each within a time limit, and reports those whose server is missing as ignored.
//!
//! A test file with this harness has `harness = false` in `Cargo.toml` and a `main` that fills a [`Suite`]. It takes the
//! arguments of the standard harness and works under `cargo nextest`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Builder;

use super::servers::{self, Server};

/// How long a test may take before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(60);

/// The tests of one file.
#[derive(Default)]
pub struct Suite {
    trials: Vec<Trial>,
    missing: BTreeMap<Server, (&'static str, usize)>,
}

impl Suite {
    /// Makes an empty suite.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a test that may take 60 seconds, with the servers it needs.
    pub fn test<F, O>(&mut self, name: impl Into<String>, needs: &[Server], body: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = O>,
        O: Outcome,
    {
        self.test_within(LIMIT, name, needs, body);
    }

    /// Adds a test with a time limit of its own.
    pub fn test_within<F, O>(
        &mut self,
        limit: Duration,
        name: impl Into<String>,
        needs: &[Server],
        body: impl FnOnce() -> F + Send + 'static,
    ) where
        F: Future<Output = O>,
        O: Outcome,
    {
        let missing = needs.iter().find_map(|server| server.locate().err().map(|reason| (*server, reason)));
        let Some((server, reason)) = missing else {
            let name = name.into();
            self.trials.push(Trial::test(name.clone(), move || run_within(limit, name, body)));
            return;
        };
        self.missing.entry(server).or_insert((reason, 0)).1 += 1;
        let trial = Trial::test(name, move || Err(Failed::from(format!("{reason}; run scripts/test to install it"))));
        self.trials.push(trial.with_ignored_flag(!server.is_required()));
    }

    /// Runs what the command line asks for; the shared servers are ended afterwards.
    pub fn run(self) -> ExitCode {
        let arguments = Arguments::from_args();
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        servers::stop_shared();
        if !arguments.list {
            for (server, (reason, tests)) in &self.missing {
                let verdict = if server.is_required() { "failed" } else { "ignored" };
                let line = format!("{verdict}: {tests} tests need {}, but {reason}", server.name());
                writeln!(std::io::stderr(), "{line}").expect("standard error can be written to");
            }
        }
        conclusion.exit_code()
    }
}

/// What a test may return: nothing, or a result.
pub trait Outcome {
    /// The reason of a failure.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Debug> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("{error:?}"))
    }
}

/// Runs a test on a thread of its own, beside a runtime of several threads: one that blocks holds up neither the limit nor
/// the tasks that it waits for.
fn run_within<F, O>(limit: Duration, name: String, body: impl FnOnce() -> F + Send + 'static) -> Result<(), Failed>
where
    F: Future<Output = O>,
    O: Outcome,
{
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime can be made");
    let (ended, end) = mpsc::channel();
    let handle = runtime.handle().clone();
    let run = move || {
        // It closes when the test is over, also by a panic.
        let _ended: mpsc::Sender<()> = ended;
        handle.block_on(async { body().await.failure() })
    };
    let thread = std::thread::Builder::new().name(name).spawn(run).expect("a thread can be started");
    let hangs = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
    // What the test left behind may hang too.
    runtime.shutdown_background();
    if hangs {
        return Err(format!("hangs: it did not end within {} seconds", limit.as_secs()).into());
    }
    match thread.join() {
        Ok(None) => Ok(()),
        Ok(Some(failure)) => Err(failure.into()),
        Err(panic) => resume_unwind(panic),
    }
}

//! Runs asynchronous tests, each within a time limit, and reports those whose server is missing as ignored.
//!
//! A test file with this harness has `harness = false` in `Cargo.toml` and a `main` that fills a [`Suite`]. It takes the
//! arguments of the standard harness and works under `cargo nextest`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::panic::resume_unwind;
use std::process::ExitCode;
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
        F: Future<Output = O> + Send + 'static,
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
        F: Future<Output = O> + Send + 'static,
        O: Outcome,
    {
        let missing = needs.iter().find_map(|server| server.locate().err().map(|reason| (*server, reason)));
        let Some((server, reason)) = missing else {
            self.trials.push(Trial::test(name, move || run_within(limit, body)));
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
pub trait Outcome: Send + 'static {
    /// The reason of a failure.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Debug + Send + 'static> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("{error:?}"))
    }
}

/// Runs a test in a runtime of its own with several threads, so that one which blocks or hangs cannot hold up the limit.
fn run_within<F, O>(limit: Duration, body: impl FnOnce() -> F + Send + 'static) -> Result<(), Failed>
where
    F: Future<Output = O> + Send + 'static,
    O: Outcome,
{
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime can be made");
    let outcome = runtime.block_on(async {
        let test = tokio::spawn(async move { body().await.failure() });
        tokio::time::timeout(limit, test).await
    });
    // What the test left behind may hang too.
    runtime.shutdown_background();
    match outcome {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(failure))) => Err(failure.into()),
        Ok(Err(error)) => resume_unwind(error.into_panic()),
        Err(_) => Err(format!("hangs: it did not end within {} seconds", limit.as_secs()).into()),
    }
}

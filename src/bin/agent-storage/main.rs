//! The command line of `agent-storage`: reads and writes what an `agent.yml` points to, and says how it is.
//!
//! It stands on the library's public API alone. A command writes its answer to standard output and everything else to standard
//! error; its exit code says how it ended (see [`exit::Exit`]).

mod arguments;
mod check;
mod conflicts;
mod exit;
mod input;
mod journal;
mod lists;
mod output;
mod reconcile;
mod report;
mod run;
mod values;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use arguments::Arguments;
use exit::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_standard_error();
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::system("the runtime cannot be started", &error).report().into(),
    };
    let exit = runtime.block_on(run::run(arguments));
    // A thread that still waits for standard input must not hold up the end.
    runtime.shutdown_background();
    exit.into()
}

/// Logs warnings and errors, or what `RUST_LOG` asks for.
fn log_to_standard_error() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Whoever reads standard error may be gone, and nobody is to end for that.
    log.with_target(false).without_time().log_internal_errors(false).init();
}

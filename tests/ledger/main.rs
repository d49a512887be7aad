//! The random ledger of the default chain over a real PostgreSQL: several processes write, the server and they themselves die, freeze
//! and are cut off at random, and in the end everything that was acknowledged is accounted for.
//!
//! A failing seed is printed, and replays with `LEDGER_SEED=<seed>`: the same faults and the same calls, not the same moments.
//! `LEDGER_SCHEDULES=<count>` runs so many; `LEDGER_SEED` and `LEDGER_SCHEDULES` together begin at the seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod bundles;
mod caller;
mod check;
mod cleared;
mod counts;
mod history;
mod line;
mod lists;
mod nemesis;
mod outcome;
#[path = "../support/random.rs"]
mod random;
mod reached;
mod reads;
mod road;
mod schedule;
#[path = "../support/mod.rs"]
mod support;
mod values;
mod writer;
mod writers;

use std::process::ExitCode;
use std::time::Duration;

use support::schedules::seeds;
use support::{Server, Suite};

/// How many schedules run when nobody says otherwise.
const SCHEDULES: u64 = 16;

/// How long one may take, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Some(orders) = writer::orders() {
        return writer::run(orders);
    }
    let (seeds, all) = seeds("LEDGER", SCHEDULES);
    let mut suite = Suite::new();
    let limit = LIMIT * u32::try_from(seeds.end - seeds.start).expect("fewer schedules");
    suite.test_within(
        limit,
        "whatever_happens_what_was_acknowledged_is_accounted_for",
        &[Server::Postgres],
        move || schedule::run_all(seeds, all),
    );
    suite.run()
}

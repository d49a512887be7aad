//! The random ledger of moves: processes that share a folder of journals meet changed addresses, copies, restored backups, empty
//! databases and the operator's acceptance, are killed and started anew, and in the end everything that was acknowledged is where it was
//! meant to be.
//!
//! A failing seed is printed with what was done, and replays with `MOVES_SEED=<seed>`: the same moves and the same calls, not the same
//! moments. `MOVES_SCHEDULES=<count>` runs so many; both together begin at the seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod accepted;
mod calls;
mod check;
mod contents;
mod files;
mod folder;
mod heal;
mod history;
mod line;
mod lives;
mod moves;
mod process;
#[path = "../support/random.rs"]
mod random;
mod reached;
mod reads;
mod run;
mod schedule;
mod stories;
#[path = "../support/mod.rs"]
mod support;
mod verdict;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use support::Suite;
use support::schedules::seeds;

/// How many schedules run when nobody says otherwise.
const SCHEDULES: u64 = 40;

/// How long one may take, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    if let Some(orders) = worker::orders() {
        return worker::run(&orders);
    }
    let (seeds, all) = seeds("MOVES", SCHEDULES);
    let mut suite = Suite::new();
    let limit = LIMIT * u32::try_from(seeds.end - seeds.start).expect("fewer schedules");
    suite.test_within(limit, "whatever_moves_what_was_acknowledged_is_where_it_was_meant_to_be", &[], move || {
        run::run_all(seeds, all)
    });
    suite.run()
}

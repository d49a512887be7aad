//! The scenes that are explored.

use crate::operation::Kind::{Append, Clear, Create, Delete, Set, SetForAWhile};
use crate::rules::Rules;
use crate::scene::{Faults, Scene};

/// One of each sort of fault that lies outside of calls.
const FAULTS: Faults =
    Faults { in_all: 1, doubts: 2, outages: 1, crashes: 1, detours: 1, sweeps: 0, endings: 0, full: 1, pauses: 0 };

/// A call each, of every kind, and any two faults.
pub const PAIRS: Scene = Scene {
    name: "pairs of calls",
    kinds: [&[Set, SetForAWhile, Create, Delete, Clear, Append]; 2],
    calls: [1, 1],
    calls_in_all: 2,
    faults: Faults { in_all: 2, outages: 2, sweeps: 1, endings: 1, ..FAULTS },
    primary_wins: false,
    late_may_win: true,
    rules: Rules::ALL,
};

/// Two calls and one, of nearly every kind, and any one fault.
pub const TRIPLES: Scene = Scene {
    name: "triples of calls",
    kinds: [&[Set, Create, Delete, Clear, Append]; 2],
    calls: [2, 1],
    calls_in_all: 3,
    faults: FAULTS,
    ..PAIRS
};

/// Two sets or deletes and one, and any two faults.
pub const VALUES: Scene = Scene {
    name: "values",
    kinds: [&[Set, Delete]; 2],
    faults: Faults { in_all: 2, detours: 0, full: 0, ..FAULTS },
    ..TRIPLES
};

/// Two appends or deletes and one, and any two faults.
pub const LISTS: Scene = Scene { name: "lists", kinds: [&[Append, Delete]; 2], ..VALUES };

/// Three calls of one process, and any two faults.
pub const ALONE: Scene = Scene {
    name: "a process alone",
    kinds: [&[Set, SetForAWhile, Create, Delete, Append], &[]],
    calls: [3, 0],
    faults: Faults { in_all: 2, endings: 1, ..FAULTS },
    ..TRIPLES
};

/// What was written meanwhile wins over what is replayed.
pub const PRIMARY_WINS: Scene =
    Scene { name: "the primary wins", faults: Faults { in_all: 1, ..VALUES.faults }, primary_wins: true, ..TRIPLES };

/// An outage that lasts for longer than clocks differ, and a crash in the midst of its replay.
pub const LONG_OUTAGE: Scene = Scene {
    name: "a long outage",
    kinds: [&[Set]; 2],
    faults: Faults { in_all: 3, doubts: 0, crashes: 1, outages: 1, pauses: 1, detours: 0, full: 0, ..FAULTS },
    ..TRIPLES
};

/// All of them.
pub const ALL: [Scene; 7] = [LONG_OUTAGE, ALONE, PRIMARY_WINS, PAIRS, TRIPLES, VALUES, LISTS];
